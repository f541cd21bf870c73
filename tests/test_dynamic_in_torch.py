"""Modules of integers as torch meets them: recorded by its compilers and exporters, copied over devices, loaded from old state dicts."""

import copy
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from modules_table import assert_equal, furthest
from torch import nn

import rindle
from rindle import CELLS, RindleError

FIRST_FORM = Path(__file__).parent / "golden" / "dynamic-first-form.npz"


class Net(nn.Module):
    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        self.rnn = kind(5, 8, 2, batch_first=True, bidirectional=True, **options)
        self.fc = nn.Linear(self.rnn(torch.zeros(1, 1, 5))[0].shape[2], 3)

    def forward(self, x):
        return self.fc(self.rnn(x)[0])


KINDS = {"LSTM": Net, "GRU": lambda: Net(nn.GRU), "projection": lambda: Net(nn.LSTM, proj_size=3)}


def net(kind: str = "LSTM"):
    torch.manual_seed(0)
    return KINDS[kind]().eval()


def x(rows: int = 2, frames: int = 6):
    return torch.randn(rows, frames, 5, generator=torch.Generator().manual_seed(rows + frames))


def through_bytes(save, load, what):
    file = io.BytesIO()
    save(what, file)
    file.seek(0)
    return load(file)


@pytest.mark.fast(1)
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_whole(kind):
    module = rindle.quantize_dynamic(net(kind))
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for shape in ((2, 6), (3, 4)):
        assert_equal(compiled(x(*shape)), module(x(*shape)))


@pytest.mark.parametrize("kind", KINDS)
def test_exported_for_any_length_and_saved(kind):
    module = rindle.quantize_dynamic(net(kind))
    dims = {0: torch.export.Dim("b", min=2, max=64), 1: torch.export.Dim("t", min=2, max=64)}
    exported = torch.export.export(module, (x(),), dynamic_shapes=(dims,))
    again = through_bytes(torch.export.save, torch.export.load, exported)
    for other in (exported.module(), again.module()):
        assert_equal(other(x(3, 11)), module(x(3, 11)))
    targets = [str(node.target) for node in exported.graph.nodes]
    assert targets.count("rindle.dynamic_layer.default") == 4 and targets.count("rindle.dynamic_linear.default") == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning"
)  # of the checks of shapes, as torch's own modules have them
def test_traced_for_any_shape_and_saved(kind):
    module = rindle.quantize_dynamic(net(kind))
    traced = torch.jit.trace(module, x())
    for other in (traced, through_bytes(torch.jit.save, torch.jit.load, traced)):
        assert_equal(other(x(3, 9)), module(x(3, 9)))


def converted():
    return rindle.convert(rindle.prepare(net(), "int8", x(4)), whole=False)


def walked():
    torch.manual_seed(0)
    return rindle.quantize_dynamic(nn.Sequential(rindle.SRU(5, 5)))


REFUSING = {"converted": (converted, "rnn"), "a cell without an operator": (walked, "0")}
RECORDERS = {
    "trace": lambda module: torch.jit.trace(module, x()),
    "export": lambda module: torch.export.export(module, (x(),)),
    "make_fx": lambda module: torch.fx.experimental.proxy_tensor.make_fx(module)(x()),
    "onnx": lambda module: torch.onnx.export(module, (x(),), io.BytesIO(), dynamo=False),
}


@pytest.mark.parametrize("recorder", RECORDERS)
@pytest.mark.parametrize("made", REFUSING)
def test_what_would_become_a_constant_is_refused(made, recorder):
    make, name = REFUSING[made]
    with pytest.raises(RindleError, match=f"{name} cannot be .*(rindle.quantize|rindle export)"):
        RECORDERS[recorder](make())


@pytest.mark.parametrize("made", REFUSING)
def test_compile_leaves_it_out_of_its_graph(made):
    module = REFUSING[made][0]()
    y, wanted = torch.compile(module, backend="eager")(x()), module(x())
    assert_equal(y, wanted)


def test_onnx_is_refused():
    with pytest.raises(
        RindleError, match=r"rnn cannot be exported to ONNX: .* rindle\.quantize makes a model of integers"
    ):
        torch.onnx.export(rindle.quantize_dynamic(net()), (x(),), io.BytesIO(), dynamo=False)


@pytest.mark.filterwarnings("ignore:The tensor attributes self.rnn._flat_weights")  # of torch.export, for any nn.LSTM
def test_half_precision_is_torchs_own_module():
    module = rindle.quantize_dynamic(net(), dtype=torch.float16)
    assert isinstance(module.rnn, nn.LSTM)
    assert_equal(torch.export.export(module, (x(),)).module()(x()), module(x()))


def test_data_parallel_and_deep_copies():
    module = rindle.quantize_dynamic(net())
    assert_equal(nn.DataParallel(module)(x()), module(x()))
    assert_equal(copy.deepcopy(module)(x()), module(x()))


CHILD = """
import sys, torch
module, x = torch.load(sys.argv[1], weights_only=False)
torch.save(module(x)[0], sys.argv[2])
"""


@pytest.mark.fast(0)
def test_another_process(tmp_path):
    module = rindle.quantize_dynamic(net()).rnn
    torch.save((module, x()), tmp_path / "module")
    subprocess.run([sys.executable, "-c", CHILD, tmp_path / "module", tmp_path / "y"], check=True)
    assert_equal(torch.load(tmp_path / "y"), module(x())[0])


def test_other_dtypes_come_back_as_they_went():
    module = rindle.quantize_dynamic(net().rnn)
    for dtype in (torch.float64, torch.bfloat16):
        y, (h, c) = module(x().to(dtype))
        assert {y.dtype, h.dtype, c.dtype} == {dtype}
        assert furthest(y.float(), module(x())[0]) < 0.02


# ------------------------------------------------------------------------------------------------- the first form

FIRST = {
    "lstm": lambda: nn.LSTM(3, 4, 2, proj_size=2, bidirectional=True),
    "gru": lambda: nn.GRU(3, 4, bias=False),
    "rnn_cell": lambda: nn.RNNCell(3, 4),
    "linear": lambda: nn.Linear(3, 4),
    "recurrent": lambda: rindle.Recurrent(CELLS["gru_reset_before"], 3, 4, bidirectional=True, shared=True),
}


def stored(prefix: str) -> dict[str, torch.Tensor]:
    with np.load(FIRST_FORM) as file:
        return {key[len(prefix) :]: torch.from_numpy(file[key]) for key in file.files if key.startswith(prefix)}


@pytest.mark.parametrize("dtype, kinds", [("qint8", list(FIRST)), ("float16", ["gru", "linear"])])
def test_state_dicts_of_the_first_form_load(dtype, kinds):
    """Made by the first form's code from the float weights beside them; the same weights, to within their steps."""
    for kind in kinds:
        torch.manual_seed(1)
        module = nn.Sequential(FIRST[kind]())
        other = rindle.quantize_dynamic(module, dtype=getattr(torch, dtype))
        values = torch.randn(5, 2, 3) if kind not in ("rnn_cell", "linear") else torch.randn(5, 3)
        state = {f"0.{name}": value for name, value in stored(f"{dtype}/{kind}.").items()}
        assert not other.load_state_dict(state).missing_keys
        wanted = module
        wanted.load_state_dict({f"0.{name}": value for name, value in stored(f"float/{kind}.").items()})
        with torch.no_grad():
            assert 0 < furthest(other(values), wanted(values)) < (0.03 if dtype == "qint8" else 1e-3)


def calibrated(module, x):
    return rindle.convert(rindle.prepare(module, "int8", x), whole=False)


@pytest.mark.parametrize(
    "make", [lambda module, _: rindle.quantize_dynamic(module), calibrated], ids=["dynamic", "calibrated"]
)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_no_rows_one_frame_and_no_frames(kind, make):
    module = make(net(kind), x(4))
    for shape in ((0, 6), (3, 1)):
        assert module(x(*shape)).shape == (*shape, 3)
    with pytest.raises(RindleError, match="the input has no frames"):
        module(x(3, 0))
