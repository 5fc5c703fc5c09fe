"""Tests of signals: logout tokens and security events of other systems."""
