"""Transports that carry encoded events: Redis Pub/Sub, Redis Streams, and memory."""
