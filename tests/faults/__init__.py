"""Failures of production on real servers: no event may be lost without a report."""
