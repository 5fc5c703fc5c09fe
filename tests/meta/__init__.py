"""The project itself: its shape, names, documents and lanes."""
