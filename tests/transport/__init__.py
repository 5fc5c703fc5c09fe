"""Transports, and the connections below them."""
