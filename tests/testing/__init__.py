"""The testing kit, and the embedded server."""
