"""Decoders against brute force over every path, metrics against their definitions."""

import itertools

import numpy as np
import pytest

from rindle.tasks import decode, metrics
from rindle.tasks.decode import bigram, ctc_beam, ctc_greedy, merge, viterbi


def scores(frames, symbols, seed):
    raw = np.random.default_rng(seed).normal(0, 2, (frames, symbols))
    return raw - np.logaddexp.reduce(raw, 1)[:, None]


def paths(s):
    """Every path and its score."""
    for path in itertools.product(range(s.shape[1]), repeat=len(s)):
        yield path, s[np.arange(len(s)), list(path)].sum()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("weight, stay, penalty", [(1.0, 0.0, 0.0), (0.7, -0.3, 1.2), (0.0, 0.0, 0.0)])
def test_viterbi_finds_the_best_path(seed, weight, stay, penalty):
    s = scores(5, 3, seed)
    first, following = bigram([[0, 1, 2, 0], [2, 0, 2], [1]], 3)

    def whole(path, value):
        changes = [(a, b) for a, b in itertools.pairwise(path) if a != b]
        language = first[path[0]] + sum(following[pair] for pair in changes) if weight else 0.0
        return value + weight * language - penalty * len(changes) + stay * (len(path) - 1 - len(changes))

    best = max(paths(s), key=lambda item: whole(*item))[0]
    assert viterbi(s, first, following, weight, stay, penalty) == list(best)


def test_viterbi_of_one_frame_and_of_none():
    first, following = bigram([[1, 0]], 2, smoothing=0.0)
    assert viterbi(np.log([[0.9, 0.1]]), first, following) == [1]  # the bigram never begins with 0
    assert viterbi(np.zeros((0, 2)), first, following) == []


def test_bigram_counts():
    first, following = bigram([[0, 1, 0, 1], [0, 2, 2], []], 3, smoothing=0.5)  # staying is not counted
    assert np.allclose(np.exp(first), np.array([2.5, 0.5, 0.5]) / 3.5)
    assert np.allclose(np.exp(following[0]), np.array([0, 2.5, 1.5]) / 4)
    assert np.isneginf(np.diag(following)).all()


def labellings(s, blank):
    """The log probability of every labelling: the sum over its paths."""
    found = {}
    for path, value in paths(s):
        key = tuple(merge(path, drop=blank))
        found[key] = np.logaddexp(found.get(key, -np.inf), value)
    return found


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("seed", range(12))
def test_a_wide_beam_is_exact(seed, blank):
    s = scores(5, 3, seed)
    truth = labellings(s, blank)
    best = max(truth, key=truth.get)
    found, value = ctc_beam(s, blank, beam=1000)
    assert tuple(found) == best and np.isclose(value, truth[best])


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_with_a_bigram_is_exact(seed):
    s, following = scores(5, 3, seed), scores(3, 3, seed + 100)
    truth = labellings(s, 0)

    def whole(labels):
        return truth[labels] + sum(0.8 * following[a, b] + 0.3 for a, b in zip((0, *labels), labels))

    found, value = ctc_beam(s, beam=1000, following=following, weight=0.8, bonus=0.3)
    assert tuple(found) == max(truth, key=whole) and np.isclose(value, truth[tuple(found)])


def test_the_best_path_is_not_always_the_best_labelling():
    s = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert ctc_greedy(s) == [] and ctc_beam(s)[0] == [1]  # 0.36 against 0.64
    assert ctc_greedy(scores(6, 3, 1)) == merge(scores(6, 3, 1).argmax(1).tolist(), drop=0)


def test_a_narrow_beam_and_pruning_still_answer():
    s = scores(30, 8, 3)
    wide, narrow = ctc_beam(s, beam=64), ctc_beam(s, beam=2, prune=-3.0)
    assert narrow[1] <= wide[1] + 1e-9 and all(0 < symbol < 8 for symbol in narrow[0])


def test_a_repeat_needs_a_blank_between():
    assert merge([1, 1, 0, 1, 2, 2], drop=0) == [1, 1, 2] and merge([]) == [] and merge([3, 3, 0]) == [3, 0]
    s = np.log(np.array([[0.01, 0.98, 0.01], [0.98, 0.01, 0.01], [0.01, 0.98, 0.01]]))
    assert ctc_beam(s)[0] == ctc_greedy(s) == [1, 1]


def distance(a, b):
    """Levenshtein's recursion, as written."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


def test_error_rates_are_of_the_corpus():
    draw = np.random.default_rng(2)
    found, true = ([draw.integers(0, 3, draw.integers(1, 6)).tolist() for _ in range(20)] for _ in range(2))
    errors = [distance(f, t) for f, t in zip(found, true)]
    assert metrics.edits(found, true).errors.tolist() == errors
    assert metrics.error_rate(found, true) == sum(errors) / sum(map(len, true))
    assert metrics.error_rate([["A", "C"], []], [["A", "B"], ["C"]]) == 2 / 3
    with pytest.raises(ValueError, match="1 utterances found, 2 references"):
        metrics.error_rate([[]], [["a"], ["b"]])


def test_frame_error_leaves_out_what_has_no_label():
    assert metrics.frame_error([1, 2, 3, 9], [1, 0, 3, -1]) == pytest.approx(1 / 3)
    assert metrics.accuracy([1, 2], [1, 1]) == 0.5
    with pytest.raises(ValueError, match=r"accuracy of \(2,\) answers to \(3,\) questions"):
        metrics.accuracy([1, 2], [1, 2, 3])


def test_perplexity_of_a_uniform_guess_is_the_vocabulary():
    assert metrics.perplexity(7 * np.log(10_000), 7) == pytest.approx(10_000)


def test_nmse_and_frame_mse():
    true = np.random.default_rng(0).random((4, 6, 5, 7))
    assert metrics.nmse_db(true * 1.1, true) == pytest.approx(-20)
    assert metrics.nmse_db(np.zeros_like(true), true) == pytest.approx(0)
    assert np.allclose(metrics.frame_mse(true + 0.5, true), 0.25 * 35) and metrics.frame_mse(true, true).shape == (4, 6)


def test_ssim_is_one_for_the_same_and_less_for_another():
    true = np.random.default_rng(0).random((2, 3, 16, 16))
    assert metrics.ssim(true, true) == pytest.approx(1) and abs(metrics.ssim(1 - true, true)) < 1
    flat = np.full((1, 16, 16), 0.5)  # constants: the luminance term alone, (2ab + c) / (a² + b² + c), c = 1e-4
    assert metrics.ssim(flat * 0.5, flat) == pytest.approx((0.25 + 1e-4) / (0.3125 + 1e-4))


def test_bootstrap_sees_a_difference_and_no_difference():
    draw = np.random.default_rng(0)
    a = draw.random(400) < 0.8
    better = a | (draw.random(400) < 0.4)
    found = metrics.paired_bootstrap(a, better, draws=2000)
    assert found.mean == pytest.approx(better.mean() - a.mean()) and 0 < found.low < found.mean < found.high
    assert found.p < 0.01
    same = metrics.paired_bootstrap(a, draw.permutation(a), draws=2000)
    assert same.low < 0 < same.high and same.p > 0.05
    assert metrics.paired_bootstrap(a, a, draws=50).p == 1.0
    with pytest.raises(ValueError, match="the same items"):
        metrics.paired_bootstrap([1], [1, 0])


def test_bootstrap_is_paired_and_as_wide_as_the_normal_theory_says():
    draw = np.random.default_rng(1)
    difficulty = draw.normal(0, 10, 300)  # shared by both: a test that is not paired would drown in it
    a, b = difficulty, difficulty + draw.normal(0.5, 1, 300)
    found = metrics.paired_bootstrap(a, b, draws=4000)
    error = (b - a).std() / np.sqrt(300)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_bootstrap_of_an_error_rate():
    a = np.array([[2, 10], [0, 2], [5, 8]] * 20)
    b = a - [1, 0] * (a[:, :1] > 0)
    found = metrics.paired_bootstrap(a, b, metrics.rate_of, draws=500)
    assert found.mean == pytest.approx(5 / 20 - 7 / 20) and found.high < 0 and found.p < 0.05


def test_decoders_and_metrics_take_what_the_other_gives():
    s = scores(9, 4, 0)
    assert metrics.error_rate([decode.ctc_greedy(s)], [decode.ctc_greedy(s)]) == 0
