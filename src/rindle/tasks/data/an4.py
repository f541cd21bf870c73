"""CMU AN4 (the alphanumeric database): spelled letters, digits and control words, as 13 MFCCs at 100 frames/s.

Split: the official train and test, whose speakers are disjoint; validation is the last 8 training speakers in sorted
order. Texts are not disjoint, as published: 24 of the 130 test utterances (117 of 773 words: commands, names, digits)
and 26 of the 100 of validation have the text of a training utterance. NOVEMBER and THIRTEEN occur in the test part
only: an output of words cannot get them, one of characters or phones can. c0 is about 9 and the others below 1:
normalise, with statistics of the training part or per utterance.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .source import DataError, Package, Source, locate

SOURCE = Source(
    name="an4",
    title="CMU AN4, MFCC",
    home="http://www.speech.cs.cmu.edu/databases/an4/",
    licence="free for use for any purpose, BSD-style, (c) 1991-2005 Carnegie Mellon University",
    keep=r"etc/an4_(train|test)\.(fileids|transcription)|etc/an4\.(dic|phone)|feat/\w+/\w+/[\w-]+\.mfc",
    digest="448b08cd3493aef380b1311c6f3bcdff41b691c7ffe67a1ec84bbc7a9e0e3b08",
    ways=((Package("an4_mfcc.tar.xz", inside="an4"),),),
    folders=("an4",),
    advice="the official page has the audio, from which sphinx_fe makes the features with the settings in its README; "
    "they are also in the folder an4 of https://github.com/cphazen/Machine-Learning-Project-ASR; the page is",
)

VALID_SPEAKERS = 8


class Utterance(NamedTuple):
    id: str
    speaker: str
    features: np.ndarray  # float32 (frames, 13)
    words: list[str]


def load(folder: str | Path | None = None) -> dict[str, list[Utterance]]:
    home = locate(SOURCE, folder)
    train, test = read(home, "train"), read(home, "test")
    held_out = sorted({utterance.speaker for utterance in train})[-VALID_SPEAKERS:]
    return {
        "train": [utterance for utterance in train if utterance.speaker not in held_out],
        "valid": [utterance for utterance in train if utterance.speaker in held_out],
        "test": test,
    }


def read(home: Path, part: str) -> list[Utterance]:
    files = (home / f"etc/an4_{part}.fileids").read_text().split()
    lines = (home / f"etc/an4_{part}.transcription").read_text().splitlines()
    utterances = []
    for file, line in zip(files, lines, strict=True):
        words, name = re.fullmatch(r"(.*?)\s*\((\S+)\)\s*", line).groups()
        _, speaker, id = file.split("/")
        if name != id:
            raise DataError(f"{home}: transcription of {name} where that of {id} should be")
        words = [word for word in words.split() if word not in ("<s>", "</s>")]
        utterances.append(Utterance(id, speaker, read_mfcc(home / "feat" / f"{file}.mfc"), words))
    return utterances


def read_mfcc(file: Path, size: int = 13) -> np.ndarray:
    """Sphinx's feature file: a big-endian int32 count, then that many big-endian float32, frame by frame."""
    data = file.read_bytes()
    count = int(np.frombuffer(data, ">i4", 1)[0])
    if len(data) != 4 + 4 * count or count % size:
        raise DataError(f"{file}: {len(data)} bytes for {count} values of {size} per frame")
    return np.frombuffer(data, ">f4", count, 4).astype(np.float32).reshape(-1, size)


def lexicon(folder: str | Path | None = None) -> dict[str, list[list[str]]]:
    """The pronunciations of each word, in phones."""
    words: dict[str, list[list[str]]] = {}
    for line in (locate(SOURCE, folder) / "etc/an4.dic").read_text().splitlines():
        word, *phones = line.split()
        words.setdefault(re.sub(r"\(\d+\)$", "", word), []).append(phones)
    return words
