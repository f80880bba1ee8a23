"""Data sets in and out: discovery, the schema contract, batches, output parts, the manifest."""
