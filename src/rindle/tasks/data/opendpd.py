"""OpenDPD: what goes into a power amplifier and what comes out, as I/Q samples, for modelling and pre-distortion.

Split: as published, three parts contiguous in time (60/20/20). Cut frames inside a part; never join or shuffle parts.
Inputs are within 1. Outputs carry the amplifier's gain: estimate it on the training part (`gain`) and nowhere else.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .source import Package, Source, locate

AMPLIFIERS = ("DPA_100MHz", "DPA_200MHz", "APA_200MHz")
COMMIT = "93b3209b2a6b43f52a849fc928fa220a4495fa6f"

SOURCE = Source(
    name="opendpd",
    title="OpenDPD",
    home="https://github.com/lab-emi/OpenDPD",
    licence="Apache-2.0",
    keep=r"(DPA_100MHz|DPA_200MHz|APA_200MHz)/((train|val|test)_(in|out)put\.csv|spec\.json)",
    digest="e1297fdddf6c50606cbfe74f9a1b0074727e8fad202e183e27b01442adc23327",
    ways=(
        (Package("opendpd.tar.xz", inside="OpenDPD/datasets"),),
        (
            Package(
                f"OpenDPD-{COMMIT[:8]}.zip",
                f"https://github.com/lab-emi/OpenDPD/archive/{COMMIT}.zip",
                inside="*/datasets",
            ),
        ),
    ),
    folders=("OpenDPD/datasets",),
)


class Signals(NamedTuple):
    rate: float  # samples per second
    bandwidth: float  # Hz, of the main channel
    train: tuple[np.ndarray, np.ndarray]  # input and output, float32 (samples, 2), I and Q
    valid: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]

    @property
    def gain(self) -> float:
        """The largest output amplitude over the largest input amplitude, of the training part."""
        x, y = (np.linalg.norm(signal, axis=1).max() for signal in self.train)
        return float(y / x)


def load(amplifier: str = "DPA_200MHz", folder: str | Path | None = None) -> Signals:
    if amplifier not in AMPLIFIERS:
        raise ValueError(f"no amplifier {amplifier!r}: there are {', '.join(AMPLIFIERS)}")
    home = locate(SOURCE, folder) / amplifier
    spec = json.loads((home / "spec.json").read_text())
    parts = (
        tuple(read(home / f"{part}_{end}.csv") for end in ("input", "output")) for part in ("train", "val", "test")
    )
    bandwidth = spec.get("bw_main_ch", spec.get("input_signal_bw"))
    return Signals(spec["input_signal_fs"], bandwidth, *parts)


def read(file: Path) -> np.ndarray:
    return np.loadtxt(file, np.float32, delimiter=",", skiprows=1, ndmin=2)
