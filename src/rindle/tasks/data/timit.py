"""TIMIT: read American English with phone and word segments, from the LDC's distribution or NLTK's sample of it.

Both layouts are read alike: `TRAIN/DR1/FCJF0/SA1.WAV` (LDC; upper or lower case, SPHERE or RIFF) and
`dr1-fvmh0/sa1.wav` (NLTK). `sa1` and `sa2` are the same two sentences of every speaker: leave them out of phone
recognition (the default).

Splits, by speaker. LDC: test is the core test set of 24 speakers; validation is 50 other speakers of the test folder,
the development set of Halberstadt (1998) that the field uses; the train folder trains. The sample has 16 speakers, all
of the train folder, so its test part is not comparable with any published figure: dialects 1-5 train (10 speakers), 6
is valid (2), 7 and 8 are test (4). It is eight minutes: a check of the whole path, not a benchmark.

Phones: 61 are marked, 48 are trained, 39 are scored (Lee & Hon 1989); `q` (the glottal stop) is dropped.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .audio import read_audio
from .source import DataError, Package, Source, locate

RATE = 16000

SOURCE = Source(
    name="timit",
    title="TIMIT",
    home="https://catalog.ldc.upenn.edu/LDC93S1",
    licence="LDC's for the corpus; the NLTK sample CC BY-NC-SA, (c) 1993 Linguistic Data Consortium",
    keep=r"(?i)((.*/)?(train|test)/dr\d/\w+|dr\d-\w+)/\w+\.(wav|phn|wrd|txt)",
    digest=None,  # the corpus is bought, and its files differ between the sample and the distributions
    ways=(
        (Package("timit_sample.tar.xz", inside="timit"),),
        (
            Package(
                "nltk-timit.zip",
                "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/timit.zip",
                inside="timit",
            ),
        ),
    ),
    folders=("TIMIT", "timit"),
    advice="the corpus is ordered from the LDC, a sample of 16 speakers comes with NLTK (nltk.download('timit')); see",
)

CORE_TEST = frozenset(
    "mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0 "
    "mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0 mnjm0 fdhc0 mjln0 mpam0 fmld0".split()
)
DEVELOPMENT = frozenset(
    "faks0 fdac1 fjem0 mgwt0 mjar0 mmdb1 mmdm2 mpdf0 fcmh0 fkms0 mbdg0 mbwm0 mcsh0 fadg0 fdms0 fedw0 mgjf0 mglb0 "
    "mrtk0 mtaa0 mtdt0 mthc0 mwjg0 fnmr0 frew0 fsem0 mbns0 mmjr0 mdls0 mdlf0 mdvc0 mers0 fmah0 fdrw0 mrcs0 mrjm4 "
    "fcal1 mmwh0 fjsj0 majc0 mjsw0 mreb0 fgjd0 fjmg0 mroa0 mteb0 mjfc0 mrjr0 fmml0 mrws1".split()
)

# Where a phone of the 61 is not its own symbol in the 48, and one of the 48 not its own in the 39.
TO_48 = {
    "ux": "uw",
    "axr": "er",
    "ax-h": "ax",
    "em": "m",
    "nx": "n",
    "eng": "ng",
    "hv": "hh",
    "pau": "sil",
    "h#": "sil",
}
TO_48 |= dict.fromkeys(("bcl", "dcl", "gcl"), "vcl") | dict.fromkeys(("pcl", "tcl", "kcl"), "cl") | {"q": None}
TO_39 = {"ao": "aa", "ax": "ah", "ix": "ih", "en": "n", "el": "l", "zh": "sh"} | dict.fromkeys(
    ("cl", "vcl", "epi"), "sil"
)
PHONES_61 = tuple(
    "aa ae ah ao aw ax ax-h axr ay b bcl ch d dcl dh dx eh el em en eng epi er ey f g gcl h# hh hv ih ix iy jh k kcl l "
    "m n ng nx ow oy p pau pcl q r s sh t tcl th uh uw ux v w y z zh".split()
)


def fold(phone: str, to: int = 39) -> str | None:
    """A phone of the 61 as one of the 48 or the 39; None for `q`."""
    if phone not in PHONES_61:
        raise ValueError(f"{phone!r} is not one of TIMIT's 61 phones")
    phone = TO_48.get(phone, phone)
    return phone if to == 48 or phone is None else TO_39.get(phone, phone)


PHONES_48 = tuple(sorted({fold(phone, 48) for phone in PHONES_61} - {None}))
PHONES_39 = tuple(sorted({fold(phone, 39) for phone in PHONES_61} - {None}))


class Segment(NamedTuple):
    start: int  # first sample
    end: int  # one past the last
    label: str


@dataclass(frozen=True)
class Utterance:
    file: Path  # without its ending
    endings: tuple[tuple[str, Path], ...]
    speaker: str
    sentence: str
    dialect: int

    def path(self, ending: str) -> Path:
        for name, path in self.endings:
            if name == ending:
                return path
        raise DataError(f"{self.file}: there is no .{ending} beside the recording")

    def samples(self) -> np.ndarray:
        samples, rate = read_audio(self.path("wav"))
        if rate != RATE:
            raise DataError(f"{self.path('wav')}: {rate} samples per second, expected {RATE}")
        return samples

    def phones(self) -> list[Segment]:
        """As marked, of the 61."""
        return segments(self.path("phn"))

    def words(self) -> list[Segment]:
        return segments(self.path("wrd"))

    def text(self) -> str:
        return self.path("txt").read_text().split(maxsplit=2)[2].strip()


def segments(file: Path) -> list[Segment]:
    rows = (line.split() for line in file.read_text().splitlines() if line.strip())
    return [Segment(int(start), int(end), label) for start, end, label in rows]


def utterances(folder: str | Path | None = None) -> list[Utterance]:
    home = locate(SOURCE, folder)
    found: dict[Path, dict[str, Path]] = {}
    for path in sorted(home.rglob("*")):
        if re.fullmatch(SOURCE.keep, path.relative_to(home).as_posix()):
            stem = path.with_name(path.name.split(".")[0])
            found.setdefault(stem, {})[path.name.split(".")[-1].lower()] = path
    rows = []
    for stem, endings in found.items():
        if "wav" in endings:
            dialect, _, speaker = stem.parent.name.lower().partition("-")
            if not speaker:
                dialect, speaker = stem.parent.parent.name.lower(), stem.parent.name.lower()
            rows.append(Utterance(stem, tuple(endings.items()), speaker, stem.name.lower(), int(dialect[2:])))
    return rows


def load(folder: str | Path | None = None, sa: bool = False) -> dict[str, list[Utterance]]:
    parts: dict[str, list[Utterance]] = {"train": [], "valid": [], "test": []}
    for utterance in utterances(folder):
        part = part_of(utterance)
        if part and (sa or not utterance.sentence.startswith("sa")):
            parts[part].append(utterance)
    return parts


def part_of(utterance: Utterance) -> str | None:
    """None for the speakers of the LDC's test folder that are neither in the core test nor in the development set."""
    if utterance.file.parent.name.lower() != utterance.speaker:  # the sample: dr1-fvmh0
        return "train" if utterance.dialect <= 5 else "valid" if utterance.dialect == 6 else "test"
    if utterance.file.parents[2].name.lower() == "train":
        return "train"
    return "test" if utterance.speaker in CORE_TEST else "valid" if utterance.speaker in DEVELOPMENT else None


def frame_labels(rows: list[Segment], frames: int, phones: tuple[str, ...] = PHONES_39) -> np.ndarray:
    """int64 (frames,): the folded phone at the middle of each 25 ms frame, every 10 ms; -1 for `q` and outside."""
    middle = 160 * np.arange(frames) + 200
    labels = np.full(frames, -1)
    for start, end, label in rows:
        folded = label if len(phones) == 61 else fold(label, len(phones))
        if folded is not None:
            labels[(middle >= start) & (middle < end)] = phones.index(folded)
    return labels
