"""Rules: patterns, the matcher over many of them, and the versions of both."""
