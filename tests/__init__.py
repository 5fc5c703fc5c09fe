"""The tests. Start with ``conftest.py`` for the fixtures."""
