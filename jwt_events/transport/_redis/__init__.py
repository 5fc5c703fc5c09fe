"""Connections to a Redis server: protocol, replies, deadlines, multiplexing, reconnecting. Not public."""
