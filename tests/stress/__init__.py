"""Stress tests: memory must stay bounded, and no event must be lost, under much load for a long time. `make stress`."""
