"""Tests of leases, announcements and barriers."""
