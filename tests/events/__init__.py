"""Events, and how they travel."""
