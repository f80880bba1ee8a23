"""Declarative resources (jobs, rules, schedules, sources): one store, versions, CRUD events."""
