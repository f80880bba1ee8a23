"""What rules do: each kind of action is a spec and a pure function over the event."""
