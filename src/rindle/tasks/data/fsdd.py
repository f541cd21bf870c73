"""Free Spoken Digit Dataset: 3,000 digits spoken by 6 speakers, 8 kHz.

Splits: `by_speaker` (the default) tests on a speaker that training has not heard: train jackson, nicolas, theo and
george (2,000), valid lucas, test yweweler (500 each). `official` is the publisher's: recordings 0-4 of every speaker
and digit test (300), 5-49 train, of which 5-9 are our validation (300); the speakers are the same in all parts.
Recordings last 0.14 to 2.28 s and differ in loudness: pad and mask, and normalise.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from .audio import read_audio
from .source import DataError, Package, Source, locate

RATE = 8000
COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"

SOURCE = Source(
    name="fsdd",
    title="Free Spoken Digit Dataset",
    home="https://github.com/Jakobovski/free-spoken-digit-dataset",
    licence="CC BY-SA 4.0",
    keep=r"recordings/\d_[a-z]+_\d+\.wav",
    digest="04e1baae96c6a26e39c623f2b01d0182ddae627ba0ac02a3cdc17ba2af99fd9b",
    ways=(
        (Package("fsdd.tar.xz", inside="*"),),
        (
            Package(
                f"free-spoken-digit-dataset-{COMMIT[:8]}.zip",
                f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{COMMIT}.zip",
                inside="*",
            ),
        ),
    ),
    folders=("free-spoken-digit-dataset",),
)


class Recording(NamedTuple):
    digit: int
    speaker: str
    index: int
    samples: np.ndarray  # int16


def load(folder: str | Path | None = None, split: str = "by_speaker") -> dict[str, list[Recording]]:
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: there are {', '.join(SPLITS)}")
    home = locate(SOURCE, folder)
    parts = {"train": [], "valid": [], "test": []}
    for file in sorted((home / "recordings").glob("*.wav")):
        digit, speaker, index = file.stem.split("_")
        samples, rate = read_audio(file)
        if rate != RATE:
            raise DataError(f"{file}: {rate} samples per second, expected {RATE}")
        recording = Recording(int(digit), speaker, int(index), samples)
        parts[SPLITS[split](recording)].append(recording)
    return parts


SPLITS = {
    "by_speaker": lambda r: {"yweweler": "test", "lucas": "valid"}.get(r.speaker, "train"),
    "official": lambda r: "test" if r.index < 5 else "valid" if r.index < 10 else "train",
}
