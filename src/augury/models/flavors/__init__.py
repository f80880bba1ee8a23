"""Model formats, one small file each."""
