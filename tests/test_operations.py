"""Every operation that is captured around a recurrence: in float it is torch's, in integers it is every engine's."""

import numpy as np
import pytest
import torch
from operations import CASES
from support import ENGINES, assert_agree, random_frames, sequences

from rindle import reference
from rindle.container import dumps, loads
from rindle.nn import simulate
from rindle.nn.convert import convert
from rindle.nn.frontend import capture
from rindle.nn.quantize import prepare
from rindle.nn.source import run_graph


@pytest.mark.parametrize("name", CASES)
def test_the_captured_graph_computes_what_torch_does(name):
    torch.manual_seed(0)
    model = CASES[name].eval()
    graph, _ = capture(model, torch.from_numpy(sequences(3, 10)))
    for rows, time in ((3, 10), (2, 13), (1, 8), (4, 11)):
        x = torch.from_numpy(sequences(rows, time, seed=time))
        with torch.no_grad():
            wanted = model(x)
        torch.testing.assert_close(run_graph(graph, x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_all_engines_give_the_same_integers(name):
    torch.manual_seed(0)
    model, x = CASES[name].eval(), sequences(6, 14)[:4, :12]
    plan = prepare(model, "fixed16", sequences(6, 14))
    artifact = convert(plan.plan, plan.provenance)
    artifact = loads(dumps(artifact))
    lengths = np.array([12, 9, 12, 10])
    for given in (x, random_frames(np.random.default_rng(2), artifact, 4, 12)):
        assert_agree(artifact, given, lengths)
    wanted, found = (engine(artifact, x, lengths).values for engine in (reference.run, simulate.run))
    for node in artifact.graph.nodes:  # not the output alone
        if not artifact.graph.is_float(node.name):
            np.testing.assert_array_equal(found[node.name], wanted[node.name], err_msg=node.name)
    with torch.no_grad():
        exact = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(
        ENGINES["reference"](artifact, x, None).output.reshape(exact.shape),
        exact,
        atol=0.01 * max(1, np.abs(exact).max()),
    )
