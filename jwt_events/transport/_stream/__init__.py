"""Not public."""
