"""Data files and scores: padding never counts, faults are named, and the numbers are those of a slow, plain computation."""

import math
import statistics

import numpy as np
import pytest
import torch

import rindle
from rindle import RindleError
from rindle.file.dataset import dataset, load_data
from rindle.measure.decide import ending_of
from rindle.measure.evaluate import drift, judge_of, score, task_of

ROWS, TIME, FEATURES, OUTPUTS = 7, 5, 3, 4
LENGTHS = np.array([5, 1, 3, 5, 2, 4, 5])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def x(rng):
    return rng.normal(size=(ROWS, TIME, FEATURES)).astype(np.float32)


def targets(rng, kind):
    return {
        "row labels": lambda: rng.integers(0, OUTPUTS, ROWS),
        "frame labels": lambda: rng.integers(-1, OUTPUTS, (ROWS, TIME)),
        "row targets": lambda: rng.normal(size=(ROWS, OUTPUTS)).astype(np.float32),
        "frame targets": lambda: rng.normal(size=(ROWS, TIME, OUTPUTS)).astype(np.float32),
    }[kind]()


KINDS = ["row labels", "frame labels", "row targets", "frame targets"]


def outputs(rng, kind):
    return rng.normal(size=(ROWS, OUTPUTS) if "row" in kind else (ROWS, TIME, OUTPUTS)).astype(np.float32)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_file_gives_back_what_was_saved(tmp_path, x, rng, kind):
    data = dataset(x, LENGTHS, targets(rng, kind) if kind else None)
    data.save(tmp_path / "d.npz")
    found = load_data(tmp_path / "d.npz")
    np.testing.assert_array_equal(found.x, x)
    np.testing.assert_array_equal(found.lengths, LENGTHS)
    assert found.frames == LENGTHS.sum() and found.sha256 == data.sha256
    assert (found.y is None) == (kind is None)
    if kind:
        np.testing.assert_array_equal(found.y, data.y)


def test_an_array_alone_is_x_and_all_its_frames_are_real(tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    found = load_data(tmp_path / "x.npy")
    assert found.y is None and found.lengths.tolist() == [TIME] * ROWS and not found.has_ids
    np.save(tmp_path / "x.npy", x[0])
    assert load_data(tmp_path / "x.npy").x.shape == (1, TIME, FEATURES)
    np.save(tmp_path / "x.npy", np.arange(6).reshape(2, 3))
    assert load_data(tmp_path / "x.npy").has_ids


def test_the_hash_sees_what_is_read_and_nothing_else(x, rng):
    y = targets(rng, "frame labels")
    base = dataset(x, LENGTHS, y).sha256
    other_x, other_y = x.copy(), y.copy()
    other_x[1, 1:], other_y[1, 1:] = np.nan, 0
    assert dataset(other_x, LENGTHS, other_y).sha256 == base
    for change in ("x", "y", "lengths"):
        parts = {"x": x.copy(), "lengths": LENGTHS.copy(), "y": y.copy()}
        if change == "lengths":
            parts["lengths"][0] = 4
        else:
            parts[change][0, 0] += 1
        assert dataset(**parts).sha256 != base, change


def bad(**parts):
    return {"x": np.zeros((2, 3, 4), np.float32)} | parts


NAN = np.zeros((2, 3, 4), np.float32)
NAN[1, 2, 0] = np.nan


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (bad(x=np.zeros((2, 3, 4))), "x is float64 [2, 3, 4]"),
        (bad(x=np.zeros((2, 3, 4), int)), "integer ids [N, T]"),
        (bad(x=np.zeros((2, 0, 4), np.float32)), "none of its dimensions may be 0"),
        (bad(x=NAN), "x[1, 2, 0] is nan"),
        (bad(x=np.array([[0, -3]])), "the id -3"),
        (bad(lengths=np.array([3.0, 3.0])), "lengths is float64 [2]"),
        (bad(lengths=np.array([3])), "one for each of the 2 rows"),
        (bad(lengths=np.array([3, 4])), "lengths[1] is 4; it must be 1..3"),
        (bad(lengths=np.array([0, 3])), "lengths[0] is 0"),
        (bad(y=np.zeros(3, int)), "y is int64 [3]"),
        (bad(y=np.zeros((2, 4, 1, 1), int)), "integer labels [2] or [2, 3]"),
        (bad(y=np.zeros((3, 1), np.float32)), "float targets [2, O]"),
        (bad(y=np.zeros((2, 3, 0), np.float32)), "[2, 3, O]"),
        (bad(y=np.zeros(2, int), mask=np.ones(2)), "mask is float64 [2]; it must be bool [2] or [2, 3]"),
        (bad(y=np.zeros(2, int), mask=np.zeros(2, bool)), "leaves nothing to count"),
        (bad(y=np.array(["a", "b"])), "y is <U1 [2]"),
        (bad(y=np.array([0, -2])), "the label -2"),
        (bad(y=np.array([-1, -1])), "no label"),
        (bad(y=np.array([[1.0], [np.inf]])), "NaN or infinity"),
        (bad(labels=np.zeros(2, int)), "labels"),
        ({"y": np.zeros(2, int)}, "no array 'x'"),
    ],
)
def test_a_fault_in_a_file_is_named(tmp_path, parts, words):
    np.savez(tmp_path / "d.npz", **parts)
    with pytest.raises(RindleError) as error:
        load_data(tmp_path / "d.npz")
    assert words in str(error.value) and "d.npz" in str(error.value)


def test_what_stands_past_a_length_is_not_checked(x):
    x[1, 1:] = np.nan
    y = np.zeros((ROWS, TIME), int)
    y[1, 1:] = -77
    assert dataset(x, LENGTHS, y).frames == LENGTHS.sum()


@pytest.mark.parametrize("content", [b"", b"not an array", b"PK\x03\x04 broken"])
def test_an_unreadable_file_is_one_error(tmp_path, content):
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(RindleError, match="readable"):
        load_data(tmp_path / "d.npz")


def test_batches_hold_every_row_once_without_padding(x):
    data, seen = dataset(x, LENGTHS), []
    for batch, rows in data.batches(2):
        assert len(rows) <= 2 and (LENGTHS[rows] == batch.shape[1]).all()
        np.testing.assert_array_equal(batch, x[rows, : batch.shape[1]])
        seen += rows.tolist()
    assert sorted(seen) == list(range(ROWS))


def plain(output, data):
    """The metric, counted one by one."""
    right, squares, total, wanted_ones = 0, 0.0, 0, []
    for row in range(ROWS):
        places = [(row, t) for t in range(LENGTHS[row])] if output.ndim == 3 else [(row,)]
        for place in places:
            if data.has_labels:
                label = int(data.y[place])
                if label == -1:
                    continue
                right += int(np.argmax(output[place])) == label
                total += 1
            else:
                for found, wanted in zip(output[place].tolist(), data.y[place].tolist()):
                    squares, total = squares + (found - wanted) ** 2, total + 1
                wanted_ones.append(data.y[place].tolist())
    if data.has_labels:
        return right / total
    variation = sum(len(one) * statistics.pvariance(one) for one in zip(*wanted_ones))
    return squares / total, 10 * math.log10(squares / variation)


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_what_counting_gives_and_padding_changes_nothing(x, rng, kind):
    y, output = targets(rng, kind), outputs(rng, kind)
    data = dataset(x, LENGTHS, y)
    found = score(output, data)
    wanted = plain(output, data)
    if "labels" in kind:
        assert found.value == wanted and found.metric == ("accuracy" if "row" in kind else "frame accuracy")
    else:
        assert found.value == pytest.approx(wanted[0], rel=1e-12)
        assert found.more["NMSE dB"] == pytest.approx(wanted[1], rel=1e-12)
    assert (found.items * found.counts).sum() / found.counts.sum() == pytest.approx(found.value)
    if "frame" in kind:
        for row, length in enumerate(LENGTHS):
            output[row, length:] = np.nan
            y[row, length:] = 1
        again = score(output, dataset(x, LENGTHS, y))
        assert again.value == found.value and again.more == found.more
        np.testing.assert_array_equal(again.soft, found.soft)


def test_one_output_is_a_score_for_label_1(x):
    data = dataset(x, LENGTHS, np.array([1, 0, 1, 0, 1, 0, 1]))
    output = np.array([2.0, -1.0, -3.0, 0.5, 0.1, -2.0, 4.0], np.float32)[:, None]
    found = score(output, data)
    assert found.value == 5 / 7
    assert found.soft[0] == pytest.approx(1 / (1 + math.exp(-2.0)))
    assert found.soft[1] == pytest.approx(1 / (1 + math.exp(-1.0)))
    with pytest.raises(RindleError, match="only 2 apart"):
        score(output, dataset(x, LENGTHS, np.array([1, 0, 2, 0, 1, 0, 1])))


@pytest.mark.parametrize("kind", ["row labels", "row targets"])
def test_without_targets_a_reference_answers(x, rng, kind):
    reference, output = outputs(rng, kind), outputs(rng, kind)
    data, task = dataset(x, LENGTHS), kind.split()[1]
    found = score(output, data, reference, task)
    if task == "labels":
        assert found.metric == "agreement" and found.value == (output.argmax(1) == reference.argmax(1)).mean()
    else:
        assert found.value == pytest.approx(((output.astype(float) - reference) ** 2).mean())
    same = score(reference, data, reference, task)
    assert same.value == (1.0 if task == "labels" else 0.0)
    with pytest.raises(RindleError, match="reference"):
        score(output, data)


def test_points_are_of_accuracy_or_relative(x, rng):
    y = np.zeros(ROWS, int)
    right = np.tile(np.array([5.0, 0, 0, 0], np.float32), (ROWS, 1))
    worse = right.copy()
    worse[2] = worse[2, ::-1]
    data = dataset(x, LENGTHS, y)
    base, found = score(right, data), score(worse, data)
    assert found.lost(base) == pytest.approx(100 / ROWS) and base.lost(base) == 0.0
    mean, error = found.soft_lost(base)
    p = math.exp(5) / (math.exp(5) + 3)
    drops = np.zeros(ROWS)
    drops[2] = p - 1 / (math.exp(5) + 3)
    assert mean == pytest.approx(100 * drops.mean())
    assert error == pytest.approx(100 * drops.std(ddof=1) / math.sqrt(ROWS))
    assert base.soft_lost(base) == (0.0, 0.0)
    data = dataset(x, LENGTHS, np.ones((ROWS, 1), np.float32))
    base, found = (score(np.full((ROWS, 1), value, np.float32), data) for value in (1.5, 2.0))
    assert found.lost(base) == pytest.approx(300.0) and base.lost(found) == pytest.approx(-75.0)
    exact = score(np.ones((ROWS, 1), np.float32), data)
    assert base.lost(exact) == pytest.approx(25.0), "of the targets' energy, where the base has no error"


def test_drift_is_zero_for_equal_outputs_and_counts_real_frames(x, rng):
    data = dataset(x, LENGTHS)
    base, moved = outputs(rng, "frame labels"), outputs(rng, "frame labels")
    for task in ("labels", "targets"):
        assert drift(base, base, data, task) == 0.0 < drift(moved, base, data, task)
    hidden = np.where(data.real[..., None], base, moved)
    assert drift(hidden, base, data, "labels") == drift(hidden, base, data, "targets") == 0.0
    certain = np.zeros((ROWS, 2), np.float32)
    certain[:, 0] = 100
    flipped = certain.copy()
    flipped[0] = flipped[0, ::-1]
    assert drift(flipped, certain, data, "labels") == pytest.approx(1 / ROWS)


@pytest.mark.parametrize(
    ("output", "y", "words"),
    [
        (np.zeros((ROWS, TIME, 2)), np.zeros(ROWS, int), "a value per frame"),
        (np.zeros((ROWS, 2)), np.zeros((ROWS, TIME), int), "one per row"),
        (np.zeros((ROWS, 2)), np.zeros((ROWS, 3), np.float32), "3 values each"),
        (np.zeros((ROWS, 2)), np.full(ROWS, 2), "label 2"),
        (np.zeros((ROWS + 1, 2)), np.zeros(ROWS, int), "do not fit"),
    ],
)
def test_targets_that_do_not_fit_the_model_are_named(x, output, y, words):
    with pytest.raises(RindleError) as error:
        score(output, dataset(x, LENGTHS, y))
    assert words in str(error.value)


def test_the_task_follows_from_the_targets(x):
    data = dataset(x, LENGTHS, np.zeros(ROWS, int))
    assert task_of(data, 4) == "labels" and task_of(dataset(x), 4) == "labels" and task_of(dataset(x), 1) == "targets"
    with pytest.raises(RindleError, match="cannot be 'targets'"):
        task_of(data, 4, "targets")
    with pytest.raises(RindleError, match="unknown task"):
        task_of(data, 4, "regression")


# -- one output, several labels, values: what decides, and against what errors are measured


def one_output(x, values, y=None, **how):
    return judge_of(dataset(x, None, y), np.asarray(values, np.float32).reshape(ROWS, 1), **how)


def test_one_output_is_decided_at_a_half_or_at_logit_0_and_it_is_said_which(x):
    y = np.array([1, 0, 1, 0, 1, 0, 1])
    chance = np.array([0.9, 0.2, 0.4, 0.6, 0.7, 0.1, 0.8])
    logit = np.log(chance / (1 - chance))
    found = [one_output(x, one, y) for one in (chance, logit)]
    assert [one.base_score.value for one in found] == [5 / 7, 5 / 7]
    assert "decided at 1/2: all outputs lie in 0..1, from 0.1 to 0.9" in str(found[0])
    assert "decided at logit 0: outputs are scores from -2.2 to 2.2" in str(found[1])
    np.testing.assert_allclose(found[0].base_score.soft, found[1].base_score.soft, rtol=1e-6)
    assert found[0].trivial.value == 4 / 7 and found[0].trivial.what == "label 1"
    assert one_output(x, chance, y, decision="zero").base_score.value == 4 / 7, "all of them are above 0"
    assert one_output(x, chance, y, decision=0.3).base_score.value == 6 / 7
    assert one_output(x, chance, y, decision="0.3").decision.rule == "0.3"
    assert one_output(x, logit, y, decision="half").base_score.value == 6 / 7, "a threshold on scores"
    for wrong, words in (("argmax", "argmax chooses among several"), ("middle", "half, zero, argmax or a number")):
        with pytest.raises(RindleError, match=words):
            one_output(x, chance, y, decision=wrong)
    with pytest.raises(RindleError, match="decided by argmax"):
        judge_of(dataset(x, None, y), np.zeros((ROWS, 3)), decision="half")


@pytest.mark.parametrize("form", ["int", "bool", "float", "column"])
def test_labels_of_0_and_1_come_in_every_form(x, form):
    y = np.array([1, 0, 1, 0, 1, 0, 1])
    y = {"int": y, "bool": y.astype(bool), "float": y.astype(np.float32)[:, None], "column": y[:, None]}[form]
    found = one_output(x, [0.9, 0.2, 0.4, 0.6, 0.7, 0.1, 0.8], y)
    assert found.task == "labels" and found.base_score.value == 5 / 7 and found.base_score.metric == "accuracy"
    if form == "float":
        assert one_output(x, np.zeros(ROWS), y, task="targets").base_score.metric == "MSE"


def test_several_labels_are_one_decision_per_output(x, rng):
    y = rng.integers(-1, 2, (ROWS, TIME, 3))
    output = rng.normal(size=(ROWS, TIME, 3)).astype(np.float32)
    real = (np.arange(TIME) < LENGTHS[:, None])[..., None] & (y >= 0)
    found = judge_of(dataset(x, LENGTHS, y), output)
    assert (
        found.base_score.value == ((output > 0) == y)[real].mean() and found.base_score.metric == "label frame accuracy"
    )
    hits = ((output > 0) & (y == 1) & real).sum()
    assert found.base_score.more["F1"] == pytest.approx(
        2 * hits / (((output > 0) & real).sum() + ((y == 1) & real).sum())
    )
    best = [max((y[..., k] == one)[real[..., k]].sum() for one in (0, 1)) for k in range(3)]
    assert found.trivial.value == pytest.approx(sum(best) / real.sum())
    per_row = rng.integers(0, 2, (ROWS, TIME))  # as many outputs as frames: the outputs tell what y means
    output = rng.normal(size=(ROWS, TIME)).astype(np.float32)
    assert judge_of(dataset(x, LENGTHS, per_row), output).base_score.value == ((output > 0) == per_row).mean()


def test_one_hot_targets_are_labels_unless_the_outputs_are_probabilities_of_each(x, rng):
    labels = rng.integers(0, OUTPUTS, ROWS)
    y, output = np.eye(OUTPUTS, dtype=np.float32)[labels], outputs(rng, "row labels")
    assert judge_of(dataset(x, None, y), output).base_score.value == (output.argmax(1) == labels).mean()


def test_a_mask_says_what_counts(x, rng):
    y, output = rng.normal(size=(ROWS, TIME, 2)).astype(np.float32), rng.normal(size=(ROWS, TIME, 2)).astype(np.float32)
    mask = rng.random((ROWS, TIME)) < 0.6
    y[~mask] = np.nan
    found = score(output, dataset(x, LENGTHS, y, mask=mask))
    real = mask & (np.arange(TIME) < LENGTHS[:, None])
    assert found.value == pytest.approx(((output - y)[real].astype(float) ** 2).mean())
    labels = rng.integers(0, 2, ROWS)
    rows = np.arange(ROWS) % 2 == 0
    found = score(output[:, 0], dataset(x, LENGTHS, labels, mask=rows))
    assert found.value == (output[:, 0].argmax(1) == labels)[rows].mean()
    with pytest.raises(RindleError, match="NaN or infinity"):
        dataset(x, LENGTHS, y)


def test_the_mask_is_saved_cut_and_hashed(tmp_path, x):
    data = dataset(x, LENGTHS, np.zeros(ROWS, int), mask=np.arange(ROWS) != 2)
    data.save(tmp_path / "d.npz")
    found = load_data(tmp_path / "d.npz")
    np.testing.assert_array_equal(found.mask, data.mask)
    assert found.sha256 == data.sha256 != dataset(x, LENGTHS, np.zeros(ROWS, int)).sha256
    assert found.rows([2, 3]).mask.tolist() == [False, True]


def test_errors_of_values_are_relative_to_their_variance_not_to_their_power(x, rng):
    """A temperature around 300: to stand still at the mean is 0 dB, however small beside 300 the error is."""
    y = (300 + rng.normal(size=(ROWS, TIME, 2)) * [1.0, 100.0]).astype(np.float32)
    data, still = dataset(x, None, y), np.broadcast_to(y.mean((0, 1)), y.shape)
    found = judge_of(data, y)
    assert score(still, data).more["NMSE dB"] == pytest.approx(0.0, abs=1e-3)
    assert found.trivial.value == pytest.approx(y.reshape(-1, 2).var(axis=0).mean(), rel=1e-4)
    one = y.copy()
    one[..., 0] = y[..., 0].mean()  # the quiet output alone: 0.01 % of the energy, and half of the outputs
    loss = found.loss(one)
    assert loss.more["lost"] < 0.02 and loss.more["soft_lost"] == pytest.approx(50.0, rel=1e-3) and loss.limit > 49
    assert loss.still.startswith("output 0 stands still") and found.loss(y).still == ""
    alike = np.broadcast_to(y[:1], y.shape)
    assert "should differ between rows" in found.loss(alike).still
    ended = y.copy()
    ended[:, 2:, 1] = ended[:, 2:3, 1]
    assert "output 1 stands still: it should differ between the later frames" in found.loss(ended).still
    ended[3, 4, 1] += 1
    assert found.loss(ended).still == ""
    assert judge_of(dataset(x), y, task="targets").drift(one) == pytest.approx(0.5, rel=1e-3)


def test_decisions_that_are_all_alike_and_models_no_better_than_none_are_found(x):
    y = np.array([1, 0, 0, 0, 0, 0, 1])
    found = one_output(x, [2, -1, -2, -1, -3, -1, 1], y)
    assert found.loss(np.float32([[-0.1], [-1], [-2], [-1], [-3], [-1], [-0.2]])).still.startswith("all decisions")
    two_wrong = found.loss(np.float32([[1], [1], [-2], [-1], [-3], [-1], [-1]]))
    assert two_wrong.still == "" and "no better than a model that always says label 0" in two_wrong.useless
    one_wrong = found.loss(np.float32([[1], [1], [-2], [-1], [-3], [-1], [1]]))
    assert one_wrong.useless == "" and one_wrong.more["lost"] == pytest.approx(100 / 7)


@pytest.mark.parametrize(
    ("end", "ending", "rule", "task"),
    [
        (lambda: torch.nn.Sequential(torch.nn.Linear(8, 1), torch.nn.Sigmoid()), "sigmoid", "half", "targets"),
        (lambda: torch.nn.Linear(8, 1), "scores", "zero", "targets"),
        (lambda: torch.nn.Sequential(torch.nn.Linear(8, 3), torch.nn.Sigmoid()), "sigmoid", "half", "targets"),
        (lambda: torch.nn.Linear(8, 3), "scores", "argmax", "labels"),
        (lambda: torch.nn.Sequential(torch.nn.Linear(8, 3), torch.nn.Softmax(-1)), "softmax", "argmax", "labels"),
        (lambda: torch.nn.Sequential(torch.nn.Linear(8, 3), torch.nn.Tanh()), "values", None, "targets"),
        (lambda: torch.nn.Identity(), "values", None, "targets"),
    ],
)
def test_the_graph_tells_what_outputs_are(end, ending, rule, task):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.end = torch.nn.GRU(4, 8, batch_first=True), end()

        def forward(self, x):
            return self.end(self.rnn(x)[0])

    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(6, 9, 4)).astype(np.float32)
    model = rindle.quantize(Net().eval(), "int8", x)
    assert ending_of(model.artifact.graph) == ending
    judge = judge_of(dataset(x), model.run(x), model.artifact.graph)
    assert judge.task == task and judge.agreement
    if ending == "sigmoid":
        assert judge.decision.rule == rule, "values and decisions: they may be either"
        changed = judge.loss(1 - model.run(x))
        assert changed.more["changed_decisions"] > 90 and changed.limit >= changed.more["changed_decisions"]
    elif task == "labels":
        assert judge.decision.rule == rule and judge.decision.probabilities == (ending == "softmax")
    else:
        assert judge.decision is None
    if model.output_size == 1:
        y = np.zeros((6, 9), int)
        y[0] = 1
        assert judge_of(dataset(x, None, y), model.run(x), model.artifact.graph).decision.rule == rule


def test_outputs_with_frames_of_their_own_are_judged_by_y_of_as_many():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.rnn = torch.nn.Conv1d(4, 6, 3, stride=2), torch.nn.GRU(6, 3, batch_first=True)

        def forward(self, x):
            return self.rnn(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]

    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(6, 13, 4)).astype(np.float32)
    model, lengths = rindle.quantize(Net().eval(), "int8", x), np.array([13, 9, 13, 5, 7, 3])
    output = model.run(x, lengths)
    y = output.argmax(-1)
    y[0, 0] = (y[0, 0] + 1) % 3
    y[1, 4:] = 2  # beyond what becomes of 9 frames
    found = judge_of(dataset(x, lengths, y), output, model.artifact.graph)
    assert output.shape[1] == 6 and found.base_score.counts.tolist() == [6, 4, 6, 2, 3, 1]
    assert found.base_score.value == 21 / 22
