"""Ways of rounding after training: GPTQ, learned rounding, bias correction (docs/rounding.md)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from support import FEATURES, TorchModel, Words, assert_agree, recurrent, sequences, words
from torch import nn

import rindle
from rindle import RindleError
from rindle.engines import reference
from rindle.file.container import dumps
from rindle.file.dataset import dataset
from rindle.measure.analysis import analyse, over_time
from rindle.nn.capture.source import float_parameters
from rindle.nn.conversion.rounding import Rounding, gptq
from rindle.nn.conversion.rounding.runs import Rows, run_codes
from rindle.nn.quantize import calibrated
from rindle.numbers.codes import Codes, NumPy, product_of
from rindle.numbers.formats import encode

FEW = Rounding(steps=30)


def scheme(words: str, bits: int = 3) -> dict[str, str]:
    return {"*": "fixed16 max(1.25)", "weight.*": f"int{bits} mmse {words}", "code.*": "int8 mmse"}


def model(name: str = "lstm", **options) -> nn.Module:
    torch.manual_seed(0)
    return TorchModel(name, layers=1, **options).eval()


def ragged() -> list[np.ndarray]:
    """Batches of different lengths."""
    return [sequences(3, 9, seed=1), sequences(2, 14, seed=2), sequences(1, 4, seed=3)]


# ------------------------------------------------------------------------------------------------ one matrix


def layer(seed: int, rows: int = 12, columns: int = 20, bits: int = 3):
    """Weights, inputs whose columns are alike, steps per row (some too small, so that codes saturate), and the codes' range."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(rows, columns))
    x = rng.normal(size=(200, 4)) @ rng.normal(size=(4, columns)) + 0.3 * rng.normal(size=(200, columns))
    hi = 2 ** (bits - 1) - 1
    steps = np.abs(weights).max(1, keepdims=True) / hi * rng.uniform(0.4, 1, (rows, 1))
    whole = np.broadcast_to(steps, weights.shape)
    return weights, x, whole, np.full(weights.shape, -hi), np.full(weights.shape, hi)


def error_of(x, weights, codes, steps) -> np.ndarray:
    """Σ over the frames of the squared error of every row's product."""
    return np.square(x @ (weights - codes * steps).T).sum(0)


seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.floats(1e-3, 1e3))
@examples(20)
def test_inputs_that_are_not_alike_leave_nothing_to_repair(seed, size):
    weights, _, steps, lo, hi = layer(seed)
    nearest, gram = encode(weights, steps, lo, hi), size * np.eye(weights.shape[1])
    assert (gptq.gptq(weights, gram, steps, (lo, hi)) == nearest).all()
    assert (gptq.gptq(weights, gram, steps, (lo, hi), actorder=True) == nearest).all()
    assert (gptq._feedback(weights, gram, steps, (lo, hi)) == nearest).all()


@given(seeds, st.booleans(), st.integers(2, 8))
@examples(30)
def test_no_row_is_worse_than_the_nearest_codes_and_codes_are_in_range(seed, actorder, bits):
    weights, x, steps, lo, hi = layer(seed, bits=bits)
    codes = gptq.gptq(weights, x.T @ x, steps, (lo, hi), actorder=actorder)
    found, nearest = (error_of(x, weights, q, steps) for q in (codes, encode(weights, steps, lo, hi)))
    assert (found <= nearest * (1 + 1e-9)).all()
    assert found.sum() < 0.8 * nearest.sum()
    assert (codes >= lo).all() and (codes <= hi).all()


@pytest.mark.parametrize("columns", [1, gptq.BLOCK - 1, gptq.BLOCK + 1, 2 * gptq.BLOCK + 7])
def test_blocks_of_columns_change_nothing(columns, monkeypatch):
    weights, x, steps, lo, hi = layer(5, 4, columns)
    h = x.T @ x + np.eye(columns)
    whole = gptq._feedback(weights, h, steps, (lo, hi))
    monkeypatch.setattr(gptq, "BLOCK", 1)
    assert (gptq._feedback(weights, h, steps, (lo, hi)) == whole).all()
    assert (whole != encode(weights, steps, lo, hi)).any() or columns == 1


def test_feedback_is_algorithm_1_as_it_stands_in_the_paper():
    weights, x, steps, lo, hi = layer(3)
    h = x.T @ x + np.eye(weights.shape[1])
    left, found = weights.copy(), np.zeros(weights.shape)
    for j in range(weights.shape[1]):  # equation (2) of OBQ: the inverse of what is left, anew for each column
        inverse = np.linalg.inv(h[j:, j:])
        found[:, j] = encode(left[:, j], steps[:, j], lo[:, j], hi[:, j])
        error = (left[:, j] - found[:, j] * steps[:, j]) / inverse[0, 0]
        left[:, j:] -= np.outer(error, inverse[0])
    assert (gptq._feedback(weights, h, steps, (lo, hi)) == found).all()


@given(seeds)
@examples(20)
def test_a_nearest_column_stays_and_the_others_make_its_error_good(seed):
    weights, x, steps, lo, hi = layer(seed)
    free, gram = np.arange(weights.shape[1]) >= 10, x.T @ x
    nearest = encode(weights, steps, lo, hi)
    codes = gptq.gptq(weights, gram, steps, (lo, hi), free)
    assert (codes[:, ~free] == nearest[:, ~free]).all()
    alone = nearest.copy()
    alone[:, free] = gptq.gptq(weights[:, free], gram[np.ix_(free, free)], steps[:, free], (lo[:, free], hi[:, free]))
    found, apart = (error_of(x, weights, q, steps).sum() for q in (codes, alone))
    assert found < apart


def test_feedback_alone_makes_the_error_of_nearest_columns_good(monkeypatch):
    monkeypatch.setattr(gptq, "SWEEPS", 0)
    for seed in range(5):
        test_a_nearest_column_stays_and_the_others_make_its_error_good.hypothesis.inner_test(seed)


def test_the_descent_never_makes_the_error_larger():
    weights, x, steps, lo, hi = layer(7)
    h = x.T @ x
    codes = np.random.default_rng(0).integers(lo, hi + 1)
    before = gptq.row_errors(weights - codes * steps, h)
    gptq._descend(codes, weights, h, steps, (lo, hi), range(weights.shape[1]))
    after = gptq.row_errors(weights - codes * steps, h)
    assert (after <= before * (1 + 1e-9)).all() and after.sum() < 0.5 * before.sum()
    assert (codes >= lo).all() and (codes <= hi).all()


# -------------------------------------------------------------------------------------------- what is seen


def spied(artifact, x, lengths=None) -> list:
    """(operation, inputs as codes) of every affine, in the reference."""
    seen = []

    class Spy(Codes):
        def affine(self, op, *codes):
            seen.append((self.layer, op, codes))
            return super().affine(op, *codes)

    reference.run(artifact, x, lengths, make=Spy)
    return seen


@pytest.mark.parametrize("name", ["lstm", "gru", "sru", "convlstm"])
def test_the_gram_matrix_is_of_what_the_reference_multiplies(name, monkeypatch):
    """For any error E of the weights, E XᵀX Eᵀ is the squared error of the affine's sums."""
    monkeypatch.setattr("rindle.nn.conversion.rounding.runs.ROWS", 4)
    rng, data = np.random.default_rng(0), ragged()
    planned = calibrated(model(name), scheme(""), data)
    artifact, layer = planned.model().artifact, planned.plan.layers["rnn.l0"]
    op = layer.program.affines[0]
    gram = gptq.Gram(layer, op)
    for _ in run_codes(
        planned.plan, "rnn.l0", Rows(data, True), lambda o, codes, _: o.out == op.out and gram.add(codes)
    ):
        pass
    errors = [rng.normal(size=layer.program.block_shape(f"{op.out[0]}.{t.source}")) for t in op.terms]
    wanted = 0.0
    for batch in data:
        for other, o, codes in spied(artifact, batch):
            if o.out == op.out and other.program.cell == layer.program.cell:
                sums = [
                    product_of(NumPy, t, e, layer.program.sizes)(c * layer.formats[t.code].scale)
                    for t, e, c in zip(o.terms, errors, codes)
                ]
                wanted = wanted + np.square(sum(sums)).sum()
    found = gptq.row_errors(np.hstack(errors), gram.of(list(op.terms), False)).sum()
    assert found == pytest.approx(wanted, rel=1e-9)


def test_a_centred_gram_is_the_covariance():
    planned = calibrated(model(), scheme(""), ragged())
    layer = planned.plan.layers["first"]
    (op,) = layer.program.affines
    gram, seen = gptq.Gram(layer, op), []

    def watch(_, codes, __):
        gram.add(codes)
        seen.append(codes[0].numpy() * layer.formats[op.terms[0].code].scale)

    for _ in run_codes(planned.plan, "first", Rows(ragged(), True), watch):
        pass
    x = np.concatenate(seen)
    np.testing.assert_allclose(gram.of(list(op.terms), True), np.cov(x.T, ddof=0) * len(x), atol=1e-9)


# ------------------------------------------------------------------------------------------------ whole models


@pytest.mark.fast(3)
@pytest.mark.parametrize("name", ["lstm", "gru", "sru", "convlstm"])
@pytest.mark.parametrize("words", ["gptq", "gptq actorder corrected", "learned"])
def test_every_engine_runs_the_codes_that_were_chosen(name, words):
    net, x = model(name), sequences(4, 12, seed=5)
    made = calibrated(net, scheme(words), ragged(), rounding=FEW)
    plain = rindle.quantize(net, scheme(""), ragged())
    artifact = made.model().artifact
    assert_agree(artifact, x)
    changed = [
        (a.weight != b.weight).any()
        for node, other in zip(artifact.graph.programs, plain.artifact.graph.programs)
        for path, constant in node.layer.constants.items()
        if node.name == "rnn.l0" and hasattr(constant, "products")
        for a, b in zip(constant.products, other.layer.constants[path].products)
    ]
    assert any(changed)
    for node in artifact.graph.programs:
        for constant in node.layer.constants.values():
            for product in getattr(constant, "products", ()):
                assert np.abs(product.weight).max() <= 3
    story = artifact.provenance["rounding"]["rnn.l0"]
    assert story.get("gptq", story.get("learned")).get("error", story.get("learned", {}).get("loss")) < 1


def loss_of(net, data, made) -> float:
    with torch.no_grad():
        wanted = net(torch.from_numpy(data)).numpy()
    return float(np.square(made.run(data) - wanted).mean())


@pytest.mark.fast(1)
@pytest.mark.parametrize("words", ["gptq", "learned"])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_the_error_of_the_model_falls_on_other_data(name, words):
    net, data, other = model(name), sequences(24, 30, seed=1), sequences(24, 30, seed=2)
    nearest, better = (rindle.quantize(net, scheme(w), data, rounding=Rounding(steps=80)) for w in ("", words))
    assert loss_of(net, other, better) < 0.85 * loss_of(net, other, nearest)


@pytest.mark.fast(1)
@pytest.mark.parametrize("words", ["gptq corrected", "learned"])
def test_the_same_call_gives_the_same_file(words):
    net, data = Words().eval(), words_of_batches()
    files = [dumps(rindle.quantize(net, scheme(words), data, rounding=FEW).artifact) for _ in range(2)]
    assert files[0] == files[1]


def words_of_batches():
    return [words(4, 12, 1), words(2, 7, 2)]


def test_embedding_fed_layers_and_both_directions_are_rounded():
    torch.manual_seed(0)
    net = Words("all", "gru", True).eval()
    made = calibrated(net, scheme("gptq"), words_of_batches()).model()
    assert all(story["gptq"]["error"] < 1 for story in made.artifact.provenance["rounding"].values())
    assert_agree(made.artifact, words(3, 9, 4).astype(np.int32))


def test_fixed_weights_are_rounded_on_their_one_step():
    rules = {"*": "fixed16 max(1.25)", "weight.*": "fixed3 mmse gptq", "code.*": "fixed8 mmse"}
    made = calibrated(model(), rules, ragged())
    assert made.provenance["rounding"]["rnn.l0"]["gptq"]["error"] < 0.9
    assert_agree(made.model().artifact, sequences(3, 8))


def test_learned_codes_are_neighbours_of_the_nearest():
    net = model("gru")
    plain, learned = (calibrated(net, scheme(w, 5), ragged(), rounding=FEW).plan for w in ("", "learned"))
    for name, layer in learned.layers.items():
        blocks = learned.graph.node(name).layer.blocks
        for op in layer.program.affines:
            for term in op.terms:
                fmt, steps = plain.layers[name].weights[term.key]
                matrix = torch.cat([blocks[f"{gate}.{term.source}"] for gate in term.gates]).detach().double().numpy()
                nearest = encode(matrix, steps[:, None].astype(float), fmt.lo, fmt.hi)
                assert np.abs(layer.codes[term.key] - nearest).max() <= 1


# ---------------------------------------------------------------------------------------------- bias correction


@pytest.mark.fast(1)
@pytest.mark.parametrize("bias", [True, False])
def test_a_corrected_bias_takes_the_mean_shift_away(bias):
    net, data = model(bias=bias), sequences(16, 20, seed=3)
    with torch.no_grad():
        wanted = net(torch.from_numpy(data)).numpy().mean((0, 1))
    off = {}
    for word in ("", "corrected"):
        made = rindle.quantize(net, scheme(word), data)
        off[word] = np.abs(made.run(data).mean((0, 1)) - wanted).max()
    assert off["corrected"] < 0.05 * off[""]
    story = made.artifact.provenance["rounding"]["rnn.l0"]["corrected"]
    assert story["left"] < 0.5 * story["shift"]
    assert_agree(made.artifact, data[:2])


def test_a_gate_that_had_no_bias_gets_one_and_is_still_compared_with_its_origin():
    planned = calibrated(model("sru"), scheme("corrected"), sequences())
    assert "u" not in planned.plan.graph.node("rnn.l0").layer.blocks and planned.plan.layers["rnn.l0"].biases["u"].any()
    made = planned.model()
    found = analyse(made.artifact, dataset(sequences(2, 6)), float_parameters(planned.plan.graph))
    assert [one.name for one in over_time(made.artifact, found)] == ["rnn.l0/c.next", "rnn.l0/h", "last/y"]


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "overrides, words",
    [
        ({"weight.*.x": "int4 mmse gptq", "weight.*.h": "int4 mmse learned"}, "one layer takes one of the two"),
        ({"weight.*": "int4 mmse actorder"}, 'write "gptq actorder"'),
        ({"code.*": "int8 mmse gptq"}, "'gptq' stands at rules of weight paths"),
        ({"weight.*": "int4 mmse gptk"}, "did you mean 'gptq'"),
    ],
)
def test_what_is_refused(overrides, words):
    with pytest.raises(RindleError, match=words):
        rindle.quantize(model(), scheme(""), ragged(), overrides)


def test_convolutions_of_several_groups_are_refused_by_name():
    net = nn.Sequential(nn.Linear(FEATURES, 6), Grouped(), recurrent_of(6)).eval()
    with pytest.raises(RindleError, match="several groups, which gptq does not round"):
        rindle.quantize(net, scheme("gptq"), sequences())


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 6, 3, padding=1, groups=3)

    def forward(self, x):
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


def recurrent_of(size: int) -> nn.Module:
    from support import Only

    return Only(recurrent("gru", size, size, batch_first=True))


@pytest.mark.parametrize("words", ["gptq", "learned", "corrected"])
def test_prepare_refuses_what_rounds_after_training(words):
    with pytest.raises(RindleError, match=f"leave out {words}"):
        rindle.prepare(model(), scheme(words), torch.from_numpy(sequences()))
