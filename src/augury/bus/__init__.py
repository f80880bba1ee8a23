"""The bus: the durable stream that carries events, and the outbox that feeds it from the ledger."""
