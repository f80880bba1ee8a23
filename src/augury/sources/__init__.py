"""What produces events by itself: object watchers and schedules."""
