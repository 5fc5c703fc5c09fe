"""Much of everything, for a long time: what must stay bounded, and what must not get lost. `make stress`."""
