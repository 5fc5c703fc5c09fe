"""Ways to move bytes: Redis Pub/Sub, Redis Streams, and memory."""
