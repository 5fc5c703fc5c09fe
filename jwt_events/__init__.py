"""JWT lifecycle events between services, over Redis."""
