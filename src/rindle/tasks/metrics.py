"""What a result is measured in. Well-kept libraries count; this file says what is counted, and against what.

Errors are shares (0.1 is 10 %), not per cent. Rates of a corpus divide the errors of all utterances by the length of
all references; they are not means of the utterances' own rates.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np


def accuracy(found: np.ndarray, true: np.ndarray) -> float:
    found, true = np.asarray(found), np.asarray(true)
    if found.shape != true.shape or not found.size:
        raise ValueError(f"accuracy of {found.shape} answers to {true.shape} questions")
    return float((found == true).mean())


def perplexity(loss: float, tokens: int) -> float:
    """From the summed negative log-likelihood in nats. End marks are tokens."""
    return math.exp(loss / tokens)


class Edits(NamedTuple):
    """Of a corpus: how many edits turn the references into what was found, and how long the references are."""

    errors: np.ndarray  # int64, per utterance
    lengths: np.ndarray

    @property
    def rate(self) -> float:
        return float(self.errors.sum() / self.lengths.sum())


def edits(found: Sequence[Sequence[Hashable]], true: Sequence[Sequence[Hashable]]) -> Edits:
    """Levenshtein distances: substitutions, insertions and deletions count one each. Words, phones or characters."""
    from rapidfuzz.distance import Levenshtein

    if len(found) != len(true):
        raise ValueError(f"{len(found)} utterances found, {len(true)} references")
    errors = [Levenshtein.distance(list(f), list(t)) for f, t in zip(found, true)]
    return Edits(np.array(errors, np.int64), np.array([len(t) for t in true], np.int64))


def error_rate(found: Sequence[Sequence[Hashable]], true: Sequence[Sequence[Hashable]]) -> float:
    """Word, phone or character error rate, according to what the sequences hold."""
    return edits(found, true).rate


def frame_error(found: np.ndarray, true: np.ndarray, ignore: int = -1) -> float:
    """The share of wrong frames among those whose true label is not `ignore`."""
    real = np.asarray(true) != ignore
    return 1.0 - accuracy(np.asarray(found)[real], np.asarray(true)[real])


def frame_mse(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Squared error of each frame of each sequence, summed over pixels in [0, 1]: (…, height, width) → (…)."""
    difference = np.asarray(found, np.float64) - np.asarray(true, np.float64)
    return (difference**2).sum((-2, -1))


def ssim(found: np.ndarray, true: np.ndarray) -> float:
    """Mean structural similarity of images in [0, 1], with Wang's Gaussian window: (…, height, width)."""
    from skimage.metrics import structural_similarity

    size = np.shape(true)[-2:]
    pairs = zip(np.reshape(found, (-1, *size)), np.reshape(true, (-1, *size)))
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(np.mean([structural_similarity(t.astype(float), f.astype(float), **options) for f, t in pairs]))


def nmse_db(found: np.ndarray, true: np.ndarray) -> float:
    """Normalised mean squared error in dB: the energy of the error over that of the signal. Lower is better."""
    found, true = np.asarray(found, np.float64), np.asarray(true, np.float64)
    return float(10 * np.log10(((found - true) ** 2).sum() / (true**2).sum()))


class Difference(NamedTuple):
    mean: float  # b minus a
    low: float  # the confidence interval
    high: float
    p: float  # two-sided: how often a resampled difference is on the other side of 0


def paired_bootstrap(
    a: Sequence,
    b: Sequence,
    statistic: Callable[[np.ndarray], float] | None = None,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Does b differ from a, on the same test items?

    `a` and `b` hold a row per item (1 where it was right, or errors and length of an utterance); the same items are
    drawn with replacement for both. `statistic` makes one number of the drawn rows; the default is their mean.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or not len(a):
        raise ValueError(f"a paired test needs the same items on both sides: {a.shape} and {b.shape}")
    statistic = statistic or np.mean
    random = np.random.default_rng(seed)
    found = np.empty(draws)
    for i in range(draws):
        rows = random.integers(len(a), size=len(a))
        found[i] = statistic(b[rows]) - statistic(a[rows])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    other = min((found <= 0).sum(), (found >= 0).sum())
    return Difference(
        float(statistic(b) - statistic(a)), float(low), float(high), min(1.0, 2 * (other + 1) / (draws + 1))
    )


def rate_of(rows: np.ndarray) -> float:
    """The statistic of an error rate, for rows of (errors, length): see `paired_bootstrap`."""
    return float(rows[:, 0].sum() / rows[:, 1].sum())
