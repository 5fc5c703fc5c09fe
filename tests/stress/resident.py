"""Resident memory of this process over time."""

from __future__ import annotations

import gc
import os
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Resident:
    """Samples of the resident memory of this process, as the kernel counts it, which covers everything."""

    def __init__(self) -> None:
        self.samples: list[int] = []

    def sample(self) -> None:
        """Take a sample, after a garbage collection, as garbage is no leak."""
        gc.collect()
        self.samples.append(int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE)

    def assert_flat(self, *, at_least: int, within: float = 0.05) -> None:
        """Fail if there are too few samples, or if one exceeds the first by more than the given part of it."""
        shown = [f"{sample / 2**20:.1f}" for sample in self.samples]
        assert len(self.samples) >= at_least, f"only {len(self.samples)} samples"
        assert max(self.samples) <= (1 + within) * self.samples[0], f"resident memory grew, in MiB: {shown}"
