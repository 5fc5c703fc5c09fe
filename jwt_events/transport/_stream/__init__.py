"""Receivers of a Redis stream: cursors, consumer groups, gap arithmetic, settling, dead letters. Not public."""
