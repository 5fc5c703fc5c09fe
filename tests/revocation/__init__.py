"""The revocation list."""
