"""Events: the CloudEvents envelope, the catalog of what Augury emits, the normalisers."""
