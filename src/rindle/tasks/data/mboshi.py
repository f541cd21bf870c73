"""Mboshi (a Bantu language): read utterances, as 40 log-mel bins at 100 frames/s with forced phone alignments.

Splits. `text` (the default): test is the official dev part; validation is every tenth distinct text of the official
train part, so that no text is in two parts; the three speakers are in all of them. `speaker`: train abiayi, valid
martial, test kouarata, from both official parts; a training utterance whose text another part has too is dropped.

Labels: 0 is silence, 255 is outside the alignment (9 % of the frames) and not necessarily silence: mask it. The
alignments as published lag the audio by about 60 ms; the labels here have that taken off. They are forced alignments,
not a person's. Phones are upper-case graphemes: Latin E and Greek Ε look alike and are two phones.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .source import Package, Source, locate

UNLABELLED = 255

SOURCE = Source(
    name="mboshi",
    title="Mboshi, log-mel features and phone alignments",
    home="https://github.com/besacier/mboshi-french-parallel-corpus",
    licence='none stated; "made available to the community for reproducible computational language documentation '
    'experiments and their evaluation"',
    keep=r"(train|dev)_(feats\.npy|meta\.npz|utts\.json)|config\.json",
    digest="4a6e4d5aea41d0c24f975b99e150e4a0e5095c840fa9970319c648eba41610f8",
    ways=((Package("mboshi_logmel40.tar.xz", inside="mboshi_logmel40"),),),
    folders=("mboshi_logmel40",),
    advice="the features are rindle.data.audio.logmel of the corpus's 16 kHz audio, stored as "
    "clip(round(8 (L + 14)), 0, 255); the corpus is at",
)


class Utterance(NamedTuple):
    id: str
    speaker: str
    text: str  # lower case, words split by spaces
    codes: np.ndarray  # uint8 (frames, 40); see `features`
    labels: np.ndarray  # uint8 (frames,)


class Mboshi(NamedTuple):
    phones: list[str]  # the phone of each label
    mean: np.ndarray  # of each log-mel bin over the official train part
    deviation: np.ndarray
    train: list[Utterance]
    valid: list[Utterance]
    test: list[Utterance]

    def features(self, utterance: Utterance) -> np.ndarray:
        """Log-mel, float32, each bin with mean 0 and deviation 1 over the official train part."""
        return (utterance.codes.astype(np.float32) / 8 - 14 - self.mean) / self.deviation


def load(folder: str | Path | None = None, split: str = "text") -> Mboshi:
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: there are {', '.join(SPLITS)}")
    home = locate(SOURCE, folder)
    config = json.loads((home / "config.json").read_text(encoding="utf-8"))
    statistics = (np.array(config[key], np.float32) for key in ("train_mean", "train_std"))
    return Mboshi(config["phones"], *statistics, *SPLITS[split](read(home, "train"), read(home, "dev")))


def read(home: Path, part: str) -> list[Utterance]:
    codes = np.load(home / f"{part}_feats.npy", mmap_mode="r")
    with np.load(home / f"{part}_meta.npz") as meta:
        offsets, labels = meta["frame_offset"], meta["frame_label"]
    about = json.loads((home / f"{part}_utts.json").read_text(encoding="utf-8"))
    return [
        Utterance(u["id"], u["speaker"], u["text_cleaned"], codes[start:end], labels[start:end])
        for u, start, end in zip(about, offsets[:-1], offsets[1:])
    ]


def by_text(train, dev):
    held_out = set(sorted({utterance.text for utterance in train})[9::10])
    return (
        [utterance for utterance in train if utterance.text not in held_out],
        [utterance for utterance in train if utterance.text in held_out],
        dev,
    )


def by_speaker(train, dev):
    spoken = {name: [u for u in train + dev if u.speaker == name] for name in ("abiayi", "martial", "kouarata")}
    test = spoken["kouarata"]
    seen = {utterance.text for utterance in test}
    valid = [utterance for utterance in spoken["martial"] if utterance.text not in seen]
    seen |= {utterance.text for utterance in valid}
    return [utterance for utterance in spoken["abiayi"] if utterance.text not in seen], valid, test


SPLITS = {"text": by_text, "speaker": by_speaker}
