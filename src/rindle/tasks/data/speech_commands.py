"""Speech Commands v2: words of one second, 16 kHz. Twelve classes: ten words, `_unknown_` and `_silence_`.

Splits. The corpus carries its own: `validation_list.txt` and `testing_list.txt`, the rest trains; they are by speaker.
Its recordings are of 35 words, those not among the ten being `_unknown_`; it has no clips of silence (cut them from
`_background_noise_`). The canonical test set of twelve classes is a package of its own, 4,890 clips. `subset` is a
fixed part of that test set, 60 clips of each class: of a class's n names in sorted order those at floor(i n / 60). It
is for networks trained elsewhere; to train on it at all, split it with `by_speaker`.

A name begins with the speaker (8 hex digits before `_nohash_`), in `_unknown_` with the word before that; clips of
silence have no speaker.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .audio import read_audio
from .source import Package, Source, locate

RATE = 16000
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
CLASSES = (*WORDS, "_silence_", "_unknown_")
ADDRESS = "https://storage.googleapis.com/download.tensorflow.org/data/"
ABOUT = {"home": "https://arxiv.org/abs/1804.03209", "licence": "CC BY 4.0"}

SUBSET = Source(
    name="speech_commands_subset",
    title="Speech Commands v2, a fixed part of its test set",
    keep=rf"({'|'.join(CLASSES)})/[^/]+\.wav",
    digest="6c1354fe156f10dcd9a9d55fd7bb670442910639f233b6282b38bdad58c3786b",
    ways=((Package("gsc_v2_test_small.tar.xz", inside="gsc_v2_test_small"),),),
    folders=("gsc_v2_test_small",),
    advice="`speech_commands.subset` of the whole test set is the same clips; the data are described at",
    **ABOUT,
)
TEST = Source(
    name="speech_commands_test",
    title="Speech Commands v2, test set of twelve classes",
    keep=SUBSET.keep,
    digest=None,  # published without a checksum
    ways=((Package("speech_commands_test_set_v0.02.tar.gz", f"{ADDRESS}speech_commands_test_set_v0.02.tar.gz"),),),
    folders=("speech_commands_test_set_v0.02",),
    **ABOUT,
)
CORPUS = Source(
    name="speech_commands",
    title="Speech Commands v2, corpus",
    keep=r"[a-z_]+/[^/]+\.wav|(validation|testing)_list\.txt",
    digest=None,  # its package has a published checksum
    ways=(
        (
            Package(
                "speech_commands_v0.02.tar.gz",
                f"{ADDRESS}speech_commands_v0.02.tar.gz",
                "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
            ),
        ),
    ),
    folders=("speech_commands_v0.02",),
    **ABOUT,
)


@dataclass(frozen=True)
class Clip:
    file: Path
    label: str  # one of CLASSES
    speaker: str | None

    def samples(self) -> np.ndarray:
        """int16; most clips have 16,000 samples, some of the corpus fewer."""
        return read_audio(self.file)[0]


def clip(file: Path) -> Clip:
    speaker = re.search(r"(?:^|_)([0-9a-f]{8})_nohash_", file.name)
    label = file.parent.name if file.parent.name in CLASSES else "_unknown_"
    return Clip(file, label, speaker.group(1) if speaker else None)


def clips(source: Source, folder: str | Path | None = None) -> list[Clip]:
    home = locate(source, folder)
    files = (file for file in home.glob("*/*.wav") if file.parent.name != "_background_noise_")
    return [clip(file) for file in sorted(files)]


def load(folder: str | Path | None = None) -> list[Clip]:
    """The fixed part of the test set: 60 clips of each class."""
    return clips(SUBSET, folder)


def test_set(folder: str | Path | None = None) -> list[Clip]:
    return clips(TEST, folder)


def subset(whole: list[Clip], each: int = 60) -> list[Clip]:
    """Of each class that occurs, `each` clips spread evenly over the sorted names."""
    by_class = [rows for label in CLASSES if (rows := [c for c in whole if c.label == label])]
    return [rows[i * len(rows) // each] for rows in by_class for i in range(each)]


def corpus(folder: str | Path | None = None) -> dict[str, list[Clip]]:
    """The corpus by its own split: train, valid and test."""
    home = locate(CORPUS, folder)
    lists = {"valid": "validation_list.txt", "test": "testing_list.txt"}
    part_of = {line: part for part, name in lists.items() for line in (home / name).read_text().split()}
    parts: dict[str, list[Clip]] = {"train": [], "valid": [], "test": []}
    for found in clips(CORPUS, home):
        name = found.file.relative_to(home).as_posix()
        parts[part_of.get(name, "train")].append(found)
    return parts


def by_speaker(rows: list[Clip]) -> dict[str, list[Clip]]:
    """60/20/20 of the speakers in sorted order; clips without a speaker, in turn, likewise."""
    speakers = sorted({c.speaker for c in rows if c.speaker})
    silent = sorted(c.file.name for c in rows if not c.speaker)
    place = {name: i / len(names) for names in (speakers, silent) for i, name in enumerate(names)}
    parts: dict[str, list[Clip]] = {"train": [], "valid": [], "test": []}
    for c in rows:
        where = place[c.speaker or c.file.name]
        parts["train" if where < 0.6 else "valid" if where < 0.8 else "test"].append(c)
    return parts
