"""How large the values of a path are, kept in little memory however many there are."""

from __future__ import annotations

import numpy as np
import torch

BINS = 2048


class Histogram:
    """Of |v|: BINS equal bins up to a power of two that doubles as needed, by merging pairs of bins.

    steps: (of a product's code, rule) -> the step that each sequence alone would get, where a rule wants their median.
    """

    def __init__(self):
        self.counts, self.top, self.largest = np.zeros(BINS), 0.0, 0.0
        self.zeros = 0  # seen before anything else
        self.steps: dict[tuple, list[float]] = {}

    def add(self, values: torch.Tensor) -> None:
        magnitude = values.detach().abs().flatten().double()
        largest = float(magnitude.max())
        self.largest = max(self.largest, largest)
        if self.top == 0.0:
            if largest == 0.0:
                self.zeros += len(magnitude)
                return
            self.top = 2.0 ** np.ceil(np.log2(largest))
            self.counts[0] = self.zeros
        while largest > self.top:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2)])
            self.top *= 2
        self.counts += torch.histc(magnitude, BINS, 0.0, self.top).numpy()

    def magnitudes(self) -> tuple[np.ndarray, np.ndarray]:
        """(centres, counts) of the bins in use, the exact maximum standing for the last."""
        used = np.flatnonzero(self.counts)
        if not self.top or not len(used):
            return np.zeros(1), np.ones(1)
        centres = (used + 0.5) * self.top / BINS
        centres[-1] = self.largest
        return centres, self.counts[used]
