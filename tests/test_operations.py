"""Every operation that is captured around a recurrence: in float it is torch's, in integers it is every engine's."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from operations import CASES
from support import ENGINES, assert_agree, random_frames, sequences

from rindle.engines import reference
from rindle.file.container import dumps, loads
from rindle.nn import simulate
from rindle.nn.capture.frontend import HANDLERS, capture
from rindle.nn.capture.source import run_graph
from rindle.nn.conversion.convert import convert
from rindle.nn.quantize import calibrated

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # of torch itself


@pytest.mark.fast(16)
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


@pytest.mark.fast(16)
@pytest.mark.parametrize("name", CASES)
def test_all_engines_give_the_same_integers(name):
    torch.manual_seed(0)
    model, x = CASES[name].eval(), sequences(6, 14)[:4, :12]
    plan = calibrated(model, "fixed16", sequences(6, 14))
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


def test_the_documents_name_every_operation_and_no_other():
    page = (Path(__file__).parents[1] / "docs/operations.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    told = {name for row in rows for name in re.findall(r"`([\w.]+)`", row[1])}
    names = {getattr(target, "__name__", str(target)) for target in HANDLERS}
    known = {
        str(target).removeprefix("aten.").rpartition(".")[0] for target in HANDLERS if str(target).startswith("aten.")
    }
    known |= {"rindle.recurrent", "getitem"} & {name.removesuffix(".default") for name in {*names, *map(str, HANDLERS)}}
    assert told == known


def exported(model, x) -> set[str]:
    """Names of the operations in a model's exported graph."""
    graph = torch.export.export(model.eval(), (torch.from_numpy(x),)).graph
    return {
        str(fx.target).removeprefix("aten.").split(".")[0].rstrip("_") for fx in graph.nodes if fx.op == "call_function"
    }


@pytest.mark.fast(0)
def test_every_operation_has_a_case():
    elsewhere = {
        "gru",
        "lstm",
        "rnn_tanh",
        "rnn_relu",
        "rindle",
        "embedding",
        "zeros",
        "zeros_like",
        "new_zeros",
        "dropout",
        "feature_dropout",
    }  # test_frontend.py
    other_names = {"contiguous", "_unsafe_view", "t", "mT", "mm", "swapaxes", "swapdims", "constant_pad_nd", "relu6", "alias", "lift_fresh_copy", "_to_copy", "<built-in function getitem>"}  # fmt: skip
    seen = set.union(*(exported(model, sequences(3, 10)) for model in CASES.values()))
    wanted = {str(target).removeprefix("aten.").split(".")[0] for target in HANDLERS}
    assert wanted - seen - elsewhere - other_names == set()
