"""Augury: event-driven distributed batch inference."""
