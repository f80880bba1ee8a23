"""What runs as a process of its own: the roles, the embedded Valkey, and their supervisor."""
