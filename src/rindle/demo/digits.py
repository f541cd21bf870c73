"""Spoken digits of a speaker that the network has never heard: the Free Spoken Digit Dataset, one speaker left out at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..data import fsdd
from ..data.fsdd import Recording
from .frontend import logmel, normalize

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


class Utterance:
    """One recording. samples: int16 [n] at 8 kHz. frames: float32 [T, 32], what a model reads, computed when first asked for."""

    def __init__(self, recording: Recording):
        self.digit, self.speaker, self.samples = recording.digit, recording.speaker, recording.samples

    @cached_property
    def frames(self) -> np.ndarray:
        return normalize(logmel(self.samples))


@dataclass(frozen=True)
class Fold:
    """Whom the test hears, whom validation hears (thresholds, the best epoch), and whom training does: three disjoint sets
    of speakers.
    """

    test_speaker: str
    valid_speaker: str
    train: list[Utterance]
    valid: list[Utterance]
    test: list[Utterance]


def folds(names: tuple[str, ...] = SPEAKERS, step: int = 1) -> dict[str, Fold]:
    """Test speaker -> its fold; validation hears the next speaker in the alphabet. step: keeps every step-th recording."""
    everyone = [Utterance(one) for part in fsdd.load().values() for one in part]
    everyone.sort(key=lambda one: SPEAKERS.index(one.speaker))
    spoken = {s: [one for one in everyone if one.speaker == s][::step] for s in SPEAKERS}
    made = {}
    for test in names:
        valid = SPEAKERS[(SPEAKERS.index(test) + 1) % len(SPEAKERS)]
        train = [one for s in SPEAKERS if s not in (test, valid) for one in spoken[s]]
        made[test] = Fold(test, valid, train, spoken[valid], spoken[test])
    return made


def packed(utterances: list[Utterance]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x float32 [N, T, 32], zero past each length; lengths int32 [N]; digits int64 [N]."""
    lengths = np.array([len(one.frames) for one in utterances], np.int32)
    x = np.zeros((len(utterances), lengths.max(), BINS), np.float32)
    for row, one in zip(x, utterances):
        row[: len(one.frames)] = one.frames
    return x, lengths, np.array([one.digit for one in utterances])
