"""From a network's scores to a sequence: Viterbi with a phone bigram, and CTC, greedy and by prefix beam search.

Scores are natural logarithms, (frames, symbols). Everything here is NumPy on one utterance.
"""

from collections.abc import Sequence

import numpy as np

NEVER = -np.inf


def merge(path: Sequence[int], drop: int | None = None) -> list[int]:
    """Repeats become one, then `drop` (silence, or CTC's blank) goes."""
    path = list(path)
    kept = [path[i] for i in range(len(path)) if i == 0 or path[i] != path[i - 1]]
    return [symbol for symbol in kept if symbol != drop]


def bigram(sequences: Sequence[Sequence[int]], symbols: int, smoothing: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """log P(first) and log P(next | previous), from sequences without repeats; `smoothing` is added to every count.

    The diagonal of the second is not used by `viterbi`: staying is the duration's business, not the bigram's.
    """
    first, pairs = np.full(symbols, smoothing), np.full((symbols, symbols), smoothing)
    np.fill_diagonal(pairs, 0)
    for sequence in sequences:
        if len(sequence):
            first[sequence[0]] += 1
        np.add.at(pairs, (list(sequence[:-1]), list(sequence[1:])), 1)
    np.fill_diagonal(pairs, 0)
    with np.errstate(divide="ignore"):
        return np.log(first / first.sum()), np.log(pairs / np.maximum(pairs.sum(1, keepdims=True), 1e-300))


def viterbi(
    scores: np.ndarray,
    first: np.ndarray,
    following: np.ndarray,
    weight: float = 1.0,
    stay: float = 0.0,
    penalty: float = 0.0,
) -> list[int]:
    """The best symbol of every frame (merge them for the sequence).

    A path costs the scores of its frames; weight · log P(first); at each change weight · log P(next | previous) -
    penalty; at each frame without a change `stay`. For a hybrid model the scores are log posteriors minus log priors.
    """
    frames, symbols = scores.shape
    if not frames:
        return []
    steps = weight * following - penalty if weight else np.zeros_like(following) - penalty
    steps = steps.copy()
    np.fill_diagonal(steps, stay)
    best = scores[0] + (weight * first if weight else 0)
    came = np.zeros((frames, symbols), np.int64)
    for t in range(1, frames):
        ways = best[:, None] + steps
        came[t] = ways.argmax(0)
        best = ways[came[t], np.arange(symbols)] + scores[t]
    path = [int(best.argmax())]
    for t in range(frames - 1, 0, -1):
        path.append(int(came[t, path[-1]]))
    return path[::-1]


def ctc_greedy(scores: np.ndarray, blank: int = 0) -> list[int]:
    """The labelling of the best path: not always the best labelling."""
    return merge(scores.argmax(1).tolist(), drop=blank)


def ctc_beam(
    scores: np.ndarray,
    blank: int = 0,
    beam: int = 16,
    following: np.ndarray | None = None,
    weight: float = 1.0,
    bonus: float = 0.0,
    prune: float = NEVER,
) -> tuple[list[int], float]:
    """The best labelling and its log probability, by prefix beam search (Hannun et al. 2014).

    A prefix carries two log probabilities, of its paths that end in blank and of those that do not, so paths with the
    same labelling add up. `following[previous, next]` is a log bigram, with the blank's row for the beginning, times
    `weight`; `bonus` is added per symbol. Symbols whose score is below `prune` are not tried at that frame. With a
    beam that holds every prefix and nothing pruned the search is exact.
    """
    prefixes: dict[tuple[int, ...], tuple[float, float, float]] = {(): (0.0, NEVER, 0.0)}  # blank, other, language
    symbols = [s for s in range(scores.shape[1]) if s != blank]
    for frame in scores:
        grown: dict[tuple[int, ...], list[float]] = {}

        def add(prefix, which, value, language, grown=grown):
            entry = grown.setdefault(prefix, [NEVER, NEVER, language])
            entry[which] = np.logaddexp(entry[which], value)

        tried = [s for s in symbols if frame[s] >= prune]
        for prefix, (in_blank, in_other, language) in prefixes.items():
            whole = np.logaddexp(in_blank, in_other)
            add(prefix, 0, whole + frame[blank], language)
            if prefix:
                add(prefix, 1, in_other + frame[prefix[-1]], language)
            for symbol in tried:
                last = prefix[-1] if prefix else blank
                step = bonus + (weight * following[last, symbol] if following is not None else 0.0)
                before = in_blank if symbol == last else whole  # a repeat needs a blank between
                if before > NEVER:
                    add((*prefix, symbol), 1, before + frame[symbol], language + step)
        ranked = sorted(grown.items(), key=lambda item: -(np.logaddexp(item[1][0], item[1][1]) + item[1][2]))
        prefixes = {prefix: tuple(entry) for prefix, entry in ranked[:beam]}
    best = max(prefixes, key=lambda p: np.logaddexp(prefixes[p][0], prefixes[p][1]) + prefixes[p][2])
    in_blank, in_other, _ = prefixes[best]
    return list(best), float(np.logaddexp(in_blank, in_other))
