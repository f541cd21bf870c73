"""The models of experiments/rezk-2022: their sizes, what they compute, how they train, and the committed checkpoints."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from support import assert_agree
from torch.autograd import gradcheck

HERE = Path(__file__).parent.parent / "experiments/rezk-2022"
for name in ("lightning_fabric", "rapidfuzz"):
    pytest.importorskip(name, reason=f"the extra `tasks` is not installed: there is no {name}")
sys.path.insert(0, str(HERE))

import models  # noqa: E402
import recurrences  # noqa: E402
import task as tasks  # noqa: E402
import train as script  # noqa: E402

import rindle  # noqa: E402
from experiments.baselines.run import about  # noqa: E402
from rindle.tasks.data import mboshi  # noqa: E402
from rindle.tasks.train import Settings, beside, train  # noqa: E402

pytestmark = pytest.mark.fast(1)  # experiments

KINDS = [(kind, size) for size in ("small", "stream") for kind in models.CONFIGURATIONS[size]]
needs_data = pytest.mark.skipif(
    not os.environ.get("RINDLE_DATA_MIRROR"),
    reason="RINDLE_DATA_MIRROR is not set: there are no data to train or test on",
)


def tiny(kind: str, size: str, **changes) -> models.Network:
    """With weights, statistics and biases away from where they start."""
    torch.manual_seed(2)
    changes = {"units": 5, "inputs": 4, "outputs": 3} | ({"projection": 3} if kind == "sru" else {}) | changes
    network = models.network(kind, size, **changes).double()
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        if value.is_floating_point():
            value.data.add_(0.3 * torch.rand_like(value)) if "running_var" in name else value.data.add_(
                0.3 * torch.randn_like(value)
            )
    return network.eval()


# ------------------------------------------------------------------------------------------------------------ sizes

# Of the paper's size functions: first W, each other W, each U (SRU: each projection), the last Linear, all matrices.
WEIGHTS = {
    "lstm": (50_600, 2_420_000, 1_210_000, 2_129_600, 14_280_200),
    "gru": (37_950, 1_815_000, 907_500, 2_129_600, 13_965_050),
    "ligru": (25_300, 1_210_000, 605_000, 2_129_600, 10_019_900),
    "sru": (75_900, 844_800, 281_600, 2_094_400, 7_802_300),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_of_the_papers_size(kind, monkeypatch):
    monkeypatch.setattr(torch.nn.init, "orthogonal_", lambda value: value)  # it takes seconds, and sizes need none
    network = models.network(kind)
    first, other, beside, output, total = WEIGHTS[kind]
    left_out = 23 * 1100 if kind == "sru" else 0  # the formula has three matrices in SRU's first layer, which has four
    matrices = [one.input.weight for one in network.layers]
    seconds = (
        [one.project.weight for one in network.layers[1:]]
        if kind == "sru"
        else [one.recurrent for one in network.layers]
    )
    assert [one.numel() for one in matrices] == [first + left_out] + [other] * (len(matrices) - 1)
    assert [one.numel() for one in seconds] == [beside] * len(seconds)
    assert network.output.weight.numel() == output
    assert sum(one.numel() for one in (*matrices, *seconds, network.output.weight)) == total + left_out


def test_a_model_that_does_not_exist_is_refused():
    with pytest.raises(
        rindle.RindleError, match=r"there is no model stream sru; there are paper lstm, paper gru, .* stream gru"
    ):
        models.network("sru", "stream")


# ------------------------------------------------------------------------------------------------ what they compute


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("name, gates", [("lstm", 4), ("gru_reset_before", 3), ("ligru", 2)])
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_of_the_loops(name, gates, dropout):
    torch.manual_seed(1)
    mask = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 2.0]], dtype=torch.float64) if dropout else None
    assert gradcheck(lambda *a: getattr(recurrences, name)(*a, mask), (random(4, 3, gates * 2), random(gates * 2, 2)))


def test_gradients_of_the_other_loops():
    torch.manual_seed(1)
    assert gradcheck(recurrences.gru, (random(4, 3, 6), random(6, 2), random(6)))
    assert gradcheck(recurrences.sru, (random(4, 3, 2), random(4, 3, 2), random(2)))


@pytest.mark.parametrize("name, gates", [("lstm", 4), ("gru_reset_before", 3), ("ligru", 2), ("gru", 3)])
def test_loops_under_autocast_are_close_to_float32(name, gates):
    torch.manual_seed(1)
    read, weight = torch.randn(6, 3, gates * 8), torch.randn(gates * 8, 8) / 4
    found = []
    for fast in (False, True):
        a, b = read.clone().requires_grad_(), weight.clone().requires_grad_()
        more = [torch.zeros(24)] if name == "gru" else []
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            y = getattr(recurrences, name)(a, b, *more)
        y.square().sum().backward()
        assert y.dtype == a.grad.dtype == b.grad.dtype == torch.float32
        found.append((y.detach(), a.grad, b.grad))
    for exact, near in zip(*found):
        assert not torch.equal(exact, near)
        assert (exact - near).norm() < 0.02 * exact.norm()


@torch.no_grad()
@pytest.mark.parametrize("kind, size", KINDS)
def test_deployed_it_computes_the_same(kind, size):
    """Of Rindle's cells, or torch's: norms folded, directions shared or not; and a padded row is that row alone."""
    network = tiny(kind, size)
    x = torch.randn(9, 3, 4, dtype=torch.float64)
    deployed, y = models.deploy(network), network(x)
    assert not any("models" in type(one).__module__ for one in deployed.modules() if one is not deployed)
    torch.testing.assert_close(deployed(x), y, rtol=0, atol=1e-10)
    padded = network(x, torch.tensor([9, 4, 1]))
    for k, length in enumerate((9, 4, 1)):
        torch.testing.assert_close(padded[:length, k], network(x[:length, k : k + 1])[:, 0], rtol=0, atol=1e-12)


@torch.no_grad()
def test_sru_is_the_papers_equations():
    """One layer with projection and rescaling, by hand: section 2.1 of the paper's equations as the package computes them."""
    network = tiny("sru", "small", layers=2)
    layer, units = network.layers[1], 5
    x = torch.randn(6, 2, 2 * units, dtype=torch.float64)
    wanted = []
    for k, order in enumerate((1, -1)):
        own = slice(k * units, (k + 1) * units)
        c, outputs = torch.zeros(2, units, dtype=torch.float64), []
        for now in x[::order] if order == 1 else x.flip(0):
            u0, u1, u2 = (layer.input(layer.project(now))[:, g * 2 * units :][:, own] for g in range(3))
            f = torch.sigmoid(u1 + layer.peep[0, own] * c + layer.bias[0, own])
            r = torch.sigmoid(u2 + layer.peep[1, own] * c + layer.bias[1, own])
            c = u0 + (c - u0) * f
            skip = 1.3175 * now[:, own]
            outputs.append(skip + (c - skip) * r)
        outputs = torch.stack(outputs)
        wanted.append(outputs if order == 1 else outputs.flip(0))
    torch.testing.assert_close(layer(x), torch.cat(wanted, -1), rtol=0, atol=1e-3)  # 1.3175 has five digits


@pytest.mark.parametrize("kind, size", KINDS)
def test_quantized_every_engine_agrees(kind, size):
    network = tiny(kind, size).float()
    x = np.random.default_rng(0).normal(size=(3, 11, 4)).astype(np.float32)
    for scheme in ("int8", "fixed16"):
        model = rindle.quantize(network, scheme, torch.from_numpy(x).transpose(0, 1))
        assert_agree(model.artifact, x, np.array([11, 2, 7]))
    with torch.no_grad():
        wanted = network(torch.from_numpy(x).transpose(0, 1)).transpose(0, 1).numpy()
    assert np.abs(model.run(x) - wanted).mean() < 0.02 * np.abs(wanted - wanted.mean()).mean()


def test_a_dropped_unit_is_dropped_in_every_frame_and_others_make_up_for_it():
    torch.manual_seed(4)
    for kind in ("lstm", "gru", "ligru"):
        network = models.network(kind, "small", units=50, inputs=4, layers=1, dropout=0.5)
        layer, x = network.layers[0], torch.randn(20, 1, 4).expand(-1, 6, -1)
        alive = (layer.train()(x) != 0).any(0)
        assert 0.4 < alive.double().mean() < 0.6 and (alive[0] != alive[1]).any()
        assert (layer.eval()(x) != 0).any(0).double().mean() > 0.9  # a unit of Li-GRU may rest by itself
    layer = models.network("ligru", "small", units=50, inputs=4, layers=1, dropout=0.5, norm=False).layers[0]
    x = torch.randn(1, 6, 4)
    kept, whole = layer.train()(x), layer.eval()(x)
    torch.testing.assert_close(kept[kept != 0], 2 * whole[kept != 0])


def test_the_norm_is_over_all_frames_and_does_not_count_padding():
    network = models.network("lstm", "small", units=5, inputs=4, layers=1)
    layer, x = network.layers[0], torch.randn(7, 3, 4)
    layer.norm.momentum = 1.0
    layer.train()(x)
    torch.testing.assert_close(layer.norm.running_mean, layer.input(x).flatten(0, 1).mean(0))
    with pytest.raises(rindle.RindleError, match="lengths are for evaluation; in training give rows of one length"):
        network.train()(x, torch.tensor([7, 2, 1]))


# ------------------------------------------------------------------------------------------------- how they train


class Words(tasks.Mboshi):
    """Six short utterances of random frames in the place of the corpus; a frame's phone is its largest feature."""

    inputs = outputs = 4
    data = tasks._Features()

    def __init__(self, epochs_per_length: int = 1, batch: int = 4, longest: int = 230):
        random = np.random.default_rng(3)
        self.seed = 1
        rows = []
        for k, length in enumerate(np.linspace(40, longest, 6).astype(int)):
            frames = random.normal(size=(length, 4)).astype(np.float32)
            rows.append(mboshi.Utterance(str(k), "", "", frames, frames.argmax(1).astype(np.uint8)))
        rows[0].labels[:3] = mboshi.UNLABELLED
        self.parts = {part: rows for part in ("train", "valid", "test")}
        self.count(4)
        self._prepare(epochs_per_length, batch)


def test_sequences_double_and_every_frame_is_in_one_piece():
    task = Words()
    assert [task.limit(epoch) for epoch in (0, 1, 2, 3, 4, 30)] == [100, 200, 400, 800, 1000, 1000]
    assert [Words(2).limit(epoch) for epoch in range(5)] == [100, 100, 200, 200, 400]
    frames = sum(len(one.labels) for one in task.parts["train"])
    for epoch in range(4):
        plan = task.plan(epoch)
        seen = {(row, t) for batch in plan for row, start, end in batch for t in range(start, end)}
        lengths = [end - start for batch in plan for _, start, end in batch]
        assert len(seen) == sum(lengths) == frames
        assert max(lengths) <= task.limit(epoch) and max(len(batch) for batch in plan) == 4
        assert plan == task.plan(epoch)
        for row in range(6):  # cut evenly
            own = [end - start for batch in plan for r, start, end in batch if r == row]
            assert max(own) - min(own) <= 1 and len(own) == -(-sum(own) // task.limit(epoch))
    assert task.plan(2) != task.plan(3)


def test_who_answers_right_has_no_errors_and_the_same_scores_in_any_batch():
    task = Words()
    truth = [np.log(np.eye(4)[one.labels % 4] + 1e-30).astype(np.float32) for one in task.parts["test"]]
    posteriors = task.scores

    task.scores = lambda model, part: truth
    assert task.evaluate(None, "test") == {"per": 0.0, "frame_error": 0.0}
    task.scores = lambda model, part: [-one for one in truth]
    assert task.evaluate(None, "test")["frame_error"] == 1.0 and task.edits(None).rate > 0.5
    task.scores = posteriors
    network = tiny("gru", "small", outputs=4).float()
    alone = [network(*beside(network, torch.from_numpy(one.codes)[:, None]))[:, 0] for one in task.parts["test"]]
    for found, deployed, wanted in zip(
        task.scores(network, "test"), task.scores(models.deploy(network), "test"), alone
    ):
        np.testing.assert_allclose(found, wanted.detach(), atol=1e-5)
        np.testing.assert_allclose(deployed, wanted.detach(), atol=1e-5)


def settings(**changes) -> Settings:
    return Settings(
        epochs=3, lr=0.01, optimizer="rmsprop", schedule="constant", halving=0.001, save_every=0.0, **changes
    )


@pytest.mark.parametrize("kind", ["lstm", "sru"])
def test_a_killed_training_ends_where_an_unbroken_one_does(kind, tmp_path):
    """With dropout, curriculum and halvings; killed inside an epoch."""

    class Killed(Words):
        steps = 0

        def loss(self, *arguments):
            self.steps += 1
            if self.steps == 7:
                raise KeyboardInterrupt
            return super().loss(*arguments)

    def network():
        torch.manual_seed(0)
        return models.network(
            kind, "small", units=4, inputs=4, outputs=4, layers=2, **({"projection": 3} if kind == "sru" else {})
        )

    whole, broken = network(), network()
    curve = train(whole, Words(), settings(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(broken, Killed(), settings(), tmp_path / "broken")
    again = train(network().train(), Words(), settings(), tmp_path / "broken")
    assert [line["loss"] for line in again] == [line["loss"] for line in curve] and len(curve) == 3
    resumed = network()
    train(resumed, None, settings(), tmp_path / "broken")
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_the_recipe_of_the_paper():
    for kind, chosen in script.PAPER.items():
        assert (chosen.epochs, chosen.halving, script.BATCHES["paper"][0]) == (24, 0.001, 8)
        assert (chosen.optimizer, chosen.lr) == {"lstm": ("rmsprop", 0.0016), "sru": ("adam", 0.001)}.get(
            kind, ("rmsprop", 0.0004)
        )


# ---------------------------------------------------------------------------------------------------------- the data


@needs_data
def test_parts_of_mboshi_share_no_text():
    task = tasks.Mboshi()
    texts = {part: {one.text for one in rows} for part, rows in task.parts.items()}
    assert len(task.parts["search"]) == len(task.parts["calibration"]) == 72
    assert texts["search"] <= texts["valid"] and texts["calibration"] <= texts["train"]
    ids = {part: {one.id for one in rows} for part, rows in task.parts.items()}
    assert not ids["test"] & (ids["search"] | ids["calibration"] | ids["train"] | ids["valid"])
    assert not texts["search"] & texts["train"]
    assert all(one.shape[::2] == (1, 40) and one.dtype == np.float32 for one in task.calibration())


@needs_data
def test_the_sample_of_timit():
    task = tasks.Timit(quick=True)
    by_speaker: dict = {}
    for one in task.parts["train"]:
        by_speaker.setdefault(one.speaker, []).append(one)
        inside = one.labels[one.labels != mboshi.UNLABELLED]
        assert one.codes.shape == (len(one.labels), 23) and inside.max() < 48 and len(inside) > 0.9 * len(one.labels)
    for rows in by_speaker.values():
        frames = np.concatenate([one.codes for one in rows])
        np.testing.assert_allclose(frames.mean(0), 0, atol=1e-3)
        np.testing.assert_allclose(frames.std(0), 1, atol=1e-3)
    truth = [
        np.where(np.arange(48) == one.labels[:, None], 0.0, -70.0).astype(np.float32) for one in task.parts["test"]
    ]
    task.scores = lambda model, part: truth
    assert task.edits(None).rate == 0.0 and len(set(task.fold)) == 39


@needs_data
@pytest.mark.parametrize("kind, size, data", [("ligru", "small", "mboshi"), ("gru", "stream", "timit")])
def test_quick(kind, size, data, monkeypatch, capsys):
    before = {file: file.read_bytes() for file in (HERE / "checkpoints").glob("*")}
    monkeypatch.setattr(
        sys, "argv", ["train.py", kind, "--size", size, "--data", data, "--quick", "--precision", "32-true"]
    )
    monkeypatch.setitem(models.CONFIGURATIONS[size], kind, models.replace(models.CONFIGURATIONS[size][kind], units=8))
    script.main()
    said = capsys.readouterr().out
    numbers = json.loads(said[said.index("{\n") :])
    assert 0 < numbers["test"]["per"] and 0 < numbers["test"]["frame_error"] < 1
    assert before == {file: file.read_bytes() for file in (HERE / "checkpoints").glob("*")}


def test_models_of_other_corpora_and_of_full_size_lie_in_build(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(models.CONFIGURATIONS["small"], "sru", models._sru(2, 6, 4))
    assert script.checkpoint("sru", "small") == HERE / "checkpoints/small-sru.safetensors"
    full = script.checkpoint("sru", "paper", "mboshi")
    path = script.checkpoint("sru", "small", "timit")
    assert full != path and {full.parent, path.parent} == {Path("build/rezk-2022/checkpoints")}
    network = models.network("sru", "small", inputs=tasks.Timit.inputs, outputs=tasks.Timit.outputs)
    path.parent.mkdir(parents=True)
    safetensors.torch.save_file(script.unique(network), path)
    x = torch.randn(4, 1, tasks.Timit.inputs)
    assert torch.equal(script.load("sru", "small", "timit")(x), network.eval()(x))


FILES = sorted((HERE / "checkpoints").glob("*.safetensors"))


def test_there_is_a_checkpoint_of_each():
    assert {file.stem for file in FILES} == {f"{size}-{kind}" for kind, size in KINDS}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_checkpoint_fits_its_model_and_is_small(file):
    size, kind = file.stem.split("-")
    network, found = script.load(kind, size), about(file)
    assert file.stat().st_size <= 8e6
    assert sum(value.numel() for value in network.parameters()) == found["parameters"]
    assert models.Configuration(**found["configuration"]) == network.about
    assert all(torch.equal(value, value.half().float()) for value in network.parameters())
    assert f"{kind} --size {size}" in found["command"] and len(found["curve"]) == found["settings"]["epochs"]


@needs_data
def test_checkpoints_measure_what_they_say():
    """On 24 utterances at even distances, whose error is near the validation part's."""
    task = tasks.Mboshi()
    task.parts["few"] = task.parts["search"][::3]
    for kind in models.CONFIGURATIONS["small"]:
        numbers, wanted = task.evaluate(script.load(kind), "few"), about(script.checkpoint(kind, "small"))["valid"]
        assert abs(numbers["frame_error"] - wanted["frame_error"]) < 0.05
        assert abs(numbers["per"] - wanted["per"]) < 0.06


# --------------------------------------------------------------------------------------------------------- under quantization


@pytest.mark.parametrize("kind", models.CONFIGURATIONS["small"])
def test_a_prepared_model_is_what_quantize_makes_of_it_and_trains(kind):
    network = tiny(kind, "small", layers=3).float()
    x = torch.randn(10, 2, 4, generator=torch.Generator().manual_seed(4))
    ready = rindle.prepare(network, "int8", x)
    rows = x.transpose(0, 1).numpy()
    same = rindle.quantize(network, "int8", x).run(rows)
    np.testing.assert_array_equal(rindle.convert(ready, x).run(rows), same)
    ready(x).square().mean().backward()
    assert all(value.grad is not None for value in ready.parameters())
    torch.optim.SGD(ready.parameters(), 0.05).step()
    y = ready(x).detach().transpose(0, 1).numpy()
    found = rindle.convert(ready).run(rows)
    assert np.abs(found - y).max() < 0.05 * (y.max() - y.min()) and (found != same).any()
