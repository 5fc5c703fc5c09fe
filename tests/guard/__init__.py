"""Tests of the guards and the framework modules."""
