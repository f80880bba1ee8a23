"""From the bus into the ledger: the router, what it writes, and how to read that."""
