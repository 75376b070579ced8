"""What is kept of the windows that were judged: sums in at most so many segments, however long the log is."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 240
"""Segments; when there are more, each two neighbours become one."""


@dataclass
class History:
    """Segments of neighbouring windows, oldest first.

    Attributes
    ----------
    sums : dict of str to ndarray of shape (n_segments, ...)
        What adds up.
    first, start, end : ndarray of shape (n_segments,)
        Number of the first window, time of the first and of the last row.
    size : int
        Windows in a segment; the last may hold fewer.
    """

    sums: dict[str, NDArray[Any]] = field(default_factory=dict)
    first: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    start: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    end: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    size: int = 1

    def __len__(self) -> int:
        return len(self.first)

    def add(
        self, sums: dict[str, NDArray[Any]], first: int, start: NDArray[np.float64], end: NDArray[np.float64]
    ) -> None:
        """Take in windows, the first of number `first`: sums with one row each, times of first and last row."""
        numbers = first + np.arange(len(start))
        if len(self):
            self.sums = {name: np.concatenate([self.sums[name], rows]) for name, rows in sums.items()}
            self.first = np.concatenate([self.first, numbers])
            self.start, self.end = np.concatenate([self.start, start]), np.concatenate([self.end, end])
        else:
            self.sums, self.first, self.start, self.end = sums, numbers, start, end
        self._merge()
        while len(self) > MOST:
            self.size *= 2
            self._merge()

    def since(self, window: int, name: str) -> NDArray[Any]:
        """Return a sum over the segments from the one with that window on."""
        later = self.first >= window - window % self.size
        later[-1] = True
        return np.asarray(self.sums[name][later].sum(axis=0))

    def time_of(self, window: int) -> float:
        """Return when the segment with that window began."""
        place = int(np.searchsorted(self.first, window, side="right")) - 1
        return float(self.start[max(place, 0)])

    def _merge(self) -> None:
        """Put the windows of each segment of `size` together."""
        starts = np.flatnonzero(np.diff(self.first // self.size, prepend=-1))
        if len(starts) == len(self.first):
            return
        ends = np.append(starts[1:], len(self.first)) - 1
        self.sums = {name: np.add.reduceat(rows, starts, axis=0) for name, rows in self.sums.items()}
        self.first, self.start, self.end = self.first[starts], self.start[starts], self.end[ends]
