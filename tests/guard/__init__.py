"""Guards, and the frameworks that they stand in."""
