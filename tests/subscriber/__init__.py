"""The subscriber, and the handlers that it runs."""
