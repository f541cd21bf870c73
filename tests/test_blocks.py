"""The core runs rows block by block: short rows side by side, long ones in pieces. None of it may be seen in a result."""

import re

import numpy as np
import pytest
import random_models
import torch
from random_models import attempt
from support import (
    ENGINES,
    FEATURES,
    GRAPHS,
    assert_agree,
    assert_equal,
    quantized,
    quantized_graph,
    random_frames,
    sequences,
)
from torch import nn

import rindle

LONG = np.array([150, 1, 61, 60, 3, 2, 125, 59])  # frames; a block has 60
CORE = {name: engine for name, engine in ENGINES.items() if name.startswith("runtime")}


def core_agrees(artifact, x, lengths):
    wanted = ENGINES["reference"](artifact, x, lengths)
    for name, engine in CORE.items():
        found = engine(artifact, x, lengths)
        assert_equal(artifact, found.output, wanted.output, name)
        assert (found.saturations, found.changes) == (wanted.saturations, wanted.changes), name


@pytest.mark.parametrize("seed", range(40))
def test_random_models_run_long_and_short_rows(seed):
    rng = np.random.default_rng(seed)
    artifact = attempt(([rng.choice(random_models.KINDS, 3).tolist() for _ in range(3)], seed))
    if artifact is None:
        pytest.skip("no model of this seed")
    lengths = np.maximum(LONG, artifact.graph.least_frames)
    core_agrees(artifact, random_frames(rng, artifact, len(lengths), int(lengths.max())), lengths)


@pytest.mark.parametrize("kind", GRAPHS)
def test_graphs_run_long_and_short_rows(kind):
    artifact = quantized_graph(kind, "int8").artifact
    core_agrees(artifact, random_frames(np.random.default_rng(0), artifact, len(LONG), 150), LONG)


@pytest.mark.parametrize("cell", ["lstm", "gru", "sru"])
@pytest.mark.parametrize("scheme", ["int8", "w4a8", "fixed16"])
def test_a_product_of_many_frames_is_theirs(cell, scheme):
    """What a long row gives is what its frames give one by one; the states are those of a stream."""
    model = quantized(cell, scheme)
    x = sequences(rows=3, time=130, seed=2)
    stream = model.stream()
    for row in x:
        stream.reset()
        np.testing.assert_array_equal(np.stack([stream.step(frame) for frame in row]), model.run(row[None])[0])
    assert_agree(model.artifact, x[:1])


# ---------------------------------------------------------------------------------------------------- why no stream


class Net(nn.Module):
    def __init__(self, forward, **modules):
        super().__init__()
        self.rnn = nn.GRU(FEATURES, 4, batch_first=True)
        for name, module in modules.items():
            setattr(self, name, module)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, self.rnn(x)[0])


def over_time(m, y):
    return m.conv(y.transpose(1, 2)).transpose(1, 2)


WHY = {
    "reads the sequence from its end": lambda: Net(lambda m, y: m.two(y)[0], two=nn.GRU(4, 3, batch_first=True, bidirectional=True)),
    "keeps the first frame": lambda: Net(lambda m, y: y[:, 0]),
    "averages over the whole sequence": lambda: Net(lambda m, y: y.mean(1)),
    "is the maximum over the whole sequence": lambda: Net(lambda m, y: y.amax(1)),
    "reads frames ahead": lambda: Net(over_time, conv=nn.Conv1d(4, 3, 3, padding=1)),
    "changes the number of frames": lambda: Net(over_time, conv=nn.Conv1d(4, 3, 3, stride=2)),
    "weighs the whole sequence": lambda: Net(lambda m, y: (torch.softmax(m.score(y), 1) * y).sum(1), score=nn.Linear(4, 1)),
}  # fmt: skip


@pytest.mark.parametrize("why", WHY)
def test_core_and_graph_say_the_same_of_what_has_no_stream(why):
    torch.manual_seed(0)
    model = rindle.quantize(WHY[why]().eval(), "int8", sequences())
    node = model.artifact.graph.node(model.artifact.graph.whole_sequence)
    assert node.why_whole == why
    with pytest.raises(RuntimeError, match=re.escape(f'node "{node.name}" {why}: use run, not step')):
        model._core.check_stream()
    x, lengths = sequences(time=70), np.array([70, 5, 61, 60, 64, 4, 33, 59])
    core_agrees(model.artifact, x, lengths)
