"""Penn Treebank, word level, as prepared by Mikolov: lower case, numbers as N, 9,999 words and the end mark.

Split: as published. The vocabulary comes from the training part alone and is ordered by falling frequency (ties by
spelling), so an index is also a rank. Every line gets one end mark, and perplexities are comparable only with the end
marks counted: 929,589 / 73,760 / 82,430 tokens.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .source import Package, Source, locate

END = "<eos>"

SOURCE = Source(
    name="ptb",
    title="Penn Treebank (Mikolov)",
    home="https://www.fit.vutbr.cz/~imikolov/rnnlm/",
    licence="none stated; the text is Wall Street Journal, under the terms of LDC99T42",
    keep=r"ptb\.(train|valid|test)\.txt",
    digest="9fdce0ac74adf6b961682ba3c6cb933bdb09a17d7928bfef5cc2b3fd67fd9f99",
    ways=(
        (Package("ptb.tar.xz", inside="ptb"),),
        (
            Package(
                "simple-examples.tgz",
                "https://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz",
                inside="simple-examples/data",
            ),
        ),
    ),
    folders=("ptb",),
)


class PTB(NamedTuple):
    words: list[str]  # the word of each index
    train: np.ndarray  # int32: the text as one sequence
    valid: np.ndarray
    test: np.ndarray


def load(folder: str | Path | None = None) -> PTB:
    home = locate(SOURCE, folder)
    text = {part: tokens(home / f"ptb.{part}.txt") for part in ("train", "valid", "test")}
    counts = Counter(text["train"])
    words = sorted(counts, key=lambda word: (-counts[word], word))
    index = {word: i for i, word in enumerate(words)}
    return PTB(words, *(np.array([index[word] for word in text[part]], np.int32) for part in text))


def tokens(file: Path) -> list[str]:
    with open(file, encoding="utf-8") as lines:
        return [word for line in lines for word in [*line.split(), END]]
