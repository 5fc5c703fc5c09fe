"""Tests of events and their encoding."""
