"""Where bytes and rows are kept: the object store, the database, the tables, their migrations."""
