"""IMDb reviews of Maas et al. (ACL 2011): 25,000 to train, 25,000 to test, half of each positive.

Split: train and test as published. Validation is ids 10000-12499 of each class of the training part (5,000 reviews):
reviews of one film have neighbouring ids, so a random split would leak films (the classes are numbered apart, so a film
can still have its positive reviews in one of the two parts and its negative ones in the other). A training or validation review whose
text also occurs in the test part is dropped (123), and a training review whose text occurs in validation. Reviews are
stored class by class: whoever trains, shuffles.

Words: `<br />` becomes a space; lower case; runs of letters, digits and apostrophes, and the marks ! and ?.
The vocabulary is the most frequent words of the training part alone; 0 pads, 1 is an unknown word.
"""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .source import Package, Source, locate

PAD, UNKNOWN = 0, 1

SOURCE = Source(
    name="imdb",
    title="IMDb (Maas)",
    home="https://ai.stanford.edu/~amaas/data/sentiment/",
    licence="none stated; the authors ask for the ACL 2011 paper to be cited",
    keep=r"(train|test)/(pos|neg)/\d+_\d+\.txt",
    digest="73de4d569fe0a6f3ed42e88391a03580628313090244ad9ace49c9594780ae61",
    ways=(
        (Package("aclImdb.tar.xz", inside="aclImdb"),),
        (
            Package(
                "aclImdb_v1.tar.gz",
                "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
                "md5:7c2ac02c03563afcf9b574c7e56c153a",
                inside="aclImdb",
            ),
        ),
    ),
    folders=("aclImdb",),
)


class Review(NamedTuple):
    id: int
    rating: int  # 1-4 negative, 7-10 positive
    text: str

    @property
    def positive(self) -> bool:
        return self.rating > 5


def reviews(folder: str | Path | None = None) -> dict[str, list[Review]]:
    """The reviews of each part, in order of class and id."""
    home = locate(SOURCE, folder)
    parts = {"train": [], "valid": [], "test": []}
    for part in ("test", "train"):
        for kind in ("neg", "pos"):
            for file in sorted((home / part / kind).glob("*.txt"), key=lambda f: int(f.stem.split("_")[0])):
                number, rating = map(int, file.stem.split("_"))
                held_out = part == "train" and 10_000 <= number < 12_500
                parts["valid" if held_out else part].append(Review(number, rating, file.read_text(encoding="utf-8")))
    seen = {review.text for review in parts["test"]}
    for part in ("valid", "train"):
        parts[part] = [review for review in parts[part] if review.text not in seen]
        seen |= {review.text for review in parts[part]}
    return parts


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+|[!?]", re.sub(r"<br\s*/?>", " ", text).lower())


class IMDb(NamedTuple):
    words: list[str]  # the word of each index
    train: tuple[list[np.ndarray], np.ndarray]  # int32 indices of each review; 1 where it is positive
    valid: tuple[list[np.ndarray], np.ndarray]
    test: tuple[list[np.ndarray], np.ndarray]


def load(folder: str | Path | None = None, vocabulary: int = 20_000, length: int = 400) -> IMDb:
    """The reviews as indices, each cut to its first `length` words."""
    parts = {part: [(words(r.text), r.positive) for r in found] for part, found in reviews(folder).items()}
    counts = Counter(word for text, _ in parts["train"] for word in text)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[: vocabulary - 2]
    table = ["<pad>", "<unk>", *ranked]
    index = {word: i for i, word in enumerate(table)}

    def encode(part):
        rows = [np.array([index.get(w, UNKNOWN) for w in text[:length]], np.int32) for text, _ in part]
        return rows, np.array([positive for _, positive in part], np.int64)

    return IMDb(table, *(encode(parts[part]) for part in ("train", "valid", "test")))
