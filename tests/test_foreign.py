"""Modules of other packages, and weights that are computed, as capture takes them over."""

import importlib
import sys
import warnings

import pytest
import torch
import torch.utils.cpp_extension
from support import FEATURES, Only, sequences
from torch import nn

import rindle
from rindle import CELLS, Recurrent, RindleError
from rindle.nn import filled, register
from rindle.nn.calibrate.plan import calibrate
from rindle.nn.capture import registry
from rindle.nn.capture.captured import captured_copy
from rindle.nn.capture.fold import norm_of_product, product_of_norm
from rindle.nn.capture.frontend import capture
from rindle.nn.capture.source import run_graph
from rindle.nn.numerics import FakeQuantized

X = torch.from_numpy(sequences(3, 7))


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def wild(module: nn.Module) -> nn.Module:
    """Every parameter and statistic away from where it starts; variances stay positive."""
    torch.manual_seed(5)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.is_floating_point() and "scale_x" not in name and "drop" not in name:
            nn.init.normal_(value.data, std=0.5)
            if "running_var" in name:
                value.data.abs_().add_(0.3)
    return module.eval()


class Sequence(nn.Module):
    """A recurrent module of either layout among others, batch first; its output alone."""

    def __init__(self, rnn, inputs: int, outputs: int, batch_first: bool = False):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, inputs))
        self.rnn, self.batch_first, self.last = rnn, batch_first, nn.Linear(outputs, 3)

    def forward(self, x):
        x = self.body(x)
        y = self.rnn(x if self.batch_first else x.transpose(0, 1))
        y = y[0] if isinstance(y, tuple) else y
        return self.last(y if self.batch_first else y.transpose(0, 1))


@torch.no_grad()
def assert_taken_over(model: nn.Module, scheme: str = "fixed16"):
    """The graph computes what the model does, at another length, too; integers are made of it; the model stays."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modules = [type(module) for module in model.modules()]
    graph, batch_first = capture(model, X)
    assert batch_first
    for x in (X, torch.from_numpy(sequences(2, 11)), torch.from_numpy(sequences(1, 1))):
        close(run_graph(graph, x), model(x))
    quantized = rindle.quantize(model, scheme, X)
    assert (torch.from_numpy(quantized.run(X.numpy())) - model(X)).abs().max() < 0.02 * model(X).abs().max()
    assert [type(module) for module in model.modules()] == modules
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return graph


# ------------------------------------------------------------------------------------------------- the sru package


@pytest.fixture(scope="session")
def sru():
    """The package, with the recurrence that it has in Python: the other one it compiles for minutes as it is imported."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(torch.utils.cpp_extension, "load", lambda **_: None)
        patch.setattr(torch.jit, "script", lambda function: function)
        package, operations = importlib.import_module("sru"), importlib.import_module("sru.ops")

    def in_python(*arguments):
        with (
            torch.enable_grad(),
            warnings.catch_warnings(),
        ):  # it takes this way where gradients are wanted, and warns of it
            warnings.simplefilter("ignore")
            return [result.detach() for result in operations.elementwise_recurrence_naive(*arguments)]

    operations.elementwise_recurrence_inference = in_python
    return package


SRU = {
    "plain": ((6, 6), {}, ["sru"] * 2),
    "rescale": ((6, 6), {"rescale": True}, ["sru_rescale"] * 2),
    "rescale, highway bias": ((6, 6), {"rescale": True, "highway_bias": -1.5}, ["sru_rescale"] * 2),
    "other width": ((5, 8), {}, ["sru_highway", "sru"]),
    "other width, rescale": ((5, 8), {"rescale": True}, ["sru_highway", "sru_rescale"]),
    "projection": ((8, 8), {"projection_size": 3}, ["sru_projection"] * 2),
    "projection, rescale": ((8, 8), {"projection_size": 3, "rescale": True}, ["sru_projection_rescale"] * 2),
    "projection, other width": ((6, 8), {"projection_size": 3}, ["sru_highway_projection", "sru_projection"]),
    "input to hidden": ((5, 8), {"proj_input_to_hidden_first": True}, ["sru"] * 2),
    "both": ((5, 4), {"bidirectional": True}, ["sru_highway", "sru_beside"]),
    "both, as wide": ((8, 4), {"bidirectional": True, "rescale": True}, ["sru_beside_rescale"] * 2),
    "both, projection": ((9, 4), {"bidirectional": True, "projection_size": 3}, ["sru_highway_projection", "sru_beside"]),
}  # fmt: skip


@pytest.mark.fast(3)
@pytest.mark.parametrize("name", SRU)
@torch.no_grad()
def test_the_sru_package(sru, name):
    (inputs, hidden), options, cells = SRU[name]
    rnn = wild(sru.SRU(inputs, hidden, 2, **options))
    outputs = rnn.output_size
    model = Sequence(rnn, inputs, outputs).eval()
    graph = assert_taken_over(model)
    assert [node.layer.program.cell for node in graph.recurrent if not node.reverse] == cells
    paths = [f"{k}.rnn" if "beside" in name else str(k) for k, name in enumerate(cells)]
    assert {node.name for node in graph.recurrent if node.reverse} == (
        {f"rnn.layers.{path}.l0_reverse" for path in paths} if options.get("bidirectional") else set()
    )
    # both directions read one product with the projection, and their own half of what it reads
    assert sum(node.name.endswith("project") for node in graph.programs) == (name == "both, projection")
    assert not [node for node in graph.nodes if node.kind == "gather"] or "beside" in cells[0]


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True}, {"nn_rnn_compatible_return": True, "bidirectional": True}]
)
def test_the_sru_packages_states(sru, options):
    """The replacement has the package's forward: states in and out are laid out as there."""
    theirs = wild(sru.SRU(5, 4, 2, **options))
    ours = captured_copy(theirs)
    x = torch.randn(6, 3, 5)
    before = torch.randn(2, 3, theirs.output_size)
    for arguments in ((x,), (x, before)):
        for found, wanted in zip(ours(*arguments), theirs(*arguments), strict=True):
            close(found, wanted)


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", ["both, as wide", "both, projection"])
def test_the_sru_package_trains_under_quantization(sru, name):
    """Untrained it is what quantize makes; trained, the integers follow."""
    (inputs, hidden), options, _ = SRU[name]
    rnn = wild(sru.SRU(inputs, hidden, 2, **options))
    model = Sequence(rnn, inputs, rnn.output_size).eval()
    ready = rindle.prepare(model, "int8", X)
    same = rindle.quantize(model, "int8", X).run(X.numpy())
    assert (rindle.convert(ready, X).run(X.numpy()) == same).all()
    optimizer = torch.optim.SGD(ready.parameters(), 0.02)
    (ready(X) - X[..., :3]).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for name, p in ready.named_parameters() if "rnn" in name)
    optimizer.step()
    y = ready(X).detach()
    found = torch.from_numpy(rindle.convert(ready).run(X.numpy()))
    assert (found - y).abs().max() < 0.02 * (y.max() - y.min())
    assert (found.numpy() != same).any()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"layer_norm": True}, "layer_norm"),
        ({"has_skip_term": False}, "has_skip_term=False"),
        ({"custom_m": nn.Linear(5, 16)}, "custom_m"),
    ],
)
def test_what_is_not_taken_of_the_sru_package(sru, options, words):
    model = Sequence(sru.SRU(5, 4, 1, **options), 5, 4).eval()
    with pytest.raises(
        RindleError, match=rf"the module 'rnn' is a sru\.modules\.SRU: it has {words}, which is not supp"
    ):
        capture(model, X)


# ------------------------------------------------------------- stand-ins: the attributes and the equations of others


class LiGRU(nn.Module):
    """SpeechBrain's parameters and equations: a = BN(W x)₁ + (U h)₁, z likewise with the second half; both directions are
    one batch, the second half of it reversed.
    """

    def __init__(self, inputs, hidden, layers=1, bidirectional=False, norm=nn.BatchNorm1d, act=nn.ReLU):
        super().__init__()
        self.rnn = nn.ModuleList()
        for _ in range(layers):
            one = nn.Module()
            one.w, one.u = nn.Linear(inputs, 2 * hidden, bias=False), nn.Linear(hidden, 2 * hidden, bias=False)
            one.norm, one.act = norm(2 * hidden), act()
            one.input_size, one.hidden_size, one.bidirectional = inputs, hidden, bidirectional
            self.rnn.append(one)
            inputs = hidden * (1 + bidirectional)

    def forward(self, x, hx=None):
        lasts = []
        for k, one in enumerate(self.rnn):
            directions = [x, x.flip(1)] if one.bidirectional else [x]
            w = one.w(torch.cat(directions))
            w = one.norm(w.flatten(0, 1)).view(w.shape)
            h, frames = (
                torch.zeros(len(w), one.hidden_size) if hx is None else hx.view(len(self.rnn), len(w), -1)[k],
                [],
            )
            for frame in w.unbind(1):
                a, z = (frame + one.u(h)).chunk(2, 1)
                z = z.sigmoid()
                h = z * h + (1 - z) * one.act(a)
                frames.append(h)
            y = torch.stack(frames, 1).chunk(len(directions))
            x = torch.cat([y[0], y[1].flip(1)], 2) if one.bidirectional else y[0]
            lasts.append(x[:, -1])
        h = torch.stack(lasts, 1)
        return x, h.reshape(2 * h.shape[1], h.shape[0], -1) if one.bidirectional else h.transpose(0, 1)


LiGRU.__module__, LiGRU.__qualname__ = "speechbrain.nnet.RNN", "LiGRU"


@pytest.mark.fast(1)
@pytest.mark.parametrize("layers, bidirectional", [(1, False), (2, False), (1, True), (2, True)])
def test_speechbrains_ligru(layers, bidirectional):
    rnn = wild(LiGRU(5, 4, layers, bidirectional))
    graph = assert_taken_over(Sequence(rnn, 5, 4 * (1 + bidirectional), batch_first=True).eval())
    assert {node.layer.program.cell for node in graph.recurrent} == {"ligru"}
    ours, x = captured_copy(rnn), torch.randn(3, 6, 5)
    before = torch.randn(layers * (1 + bidirectional), 3, 4)
    with torch.no_grad():
        for arguments in ((x,), (x, before)):
            for found, wanted in zip(ours(*arguments), rnn(*arguments), strict=True):
                close(found, wanted)
        close(ours(x.unflatten(-1, (5, 1)))[0], rnn(x)[0])


class Kaldi(nn.Module):
    """pytorch-kaldi's attributes and equations of liGRU: a matrix and a norm per gate, (1 − p) on the candidate at test."""

    def __init__(self, inputs, hidden, layers=2, bidir=True, norm=True, norm_inp=False, bias=False, act=nn.ReLU):
        super().__init__()
        self.N_ligru_lay, self.bidir, self.test_flag = layers, bidir, True
        self.ligru_lay, self.ligru_drop = [hidden] * layers, [0.2, 0.5][:layers]
        self.ligru_use_batchnorm, self.ligru_use_laynorm = [norm] * layers, [False] * layers
        self.ligru_use_batchnorm_inp, self.ligru_use_laynorm_inp = norm_inp, False
        if norm_inp:
            self.bn0 = nn.BatchNorm1d(inputs)
        for name in ("wh", "uh", "wz", "uz", "bn_wh", "bn_wz", "act"):
            setattr(self, name, nn.ModuleList())
        for _ in range(layers):
            for gate in "hz":
                getattr(self, f"w{gate}").append(nn.Linear(inputs, hidden, bias=bias))
                getattr(self, f"u{gate}").append(nn.Linear(hidden, hidden, bias=False))
                getattr(self, f"bn_w{gate}").append(nn.BatchNorm1d(hidden))
            self.act.append(act())
            inputs = hidden * (1 + bidir)

    def forward(self, x):  # [T, B, F]
        if self.ligru_use_batchnorm_inp:
            x = self.bn0(x.flatten(0, 1)).view(x.shape)
        for k in range(self.N_ligru_lay):
            if self.bidir:
                x = torch.cat([x, x.flip(0)], 1)
            wh, wz = self.wh[k](x), self.wz[k](x)
            if self.ligru_use_batchnorm[k]:
                wh = self.bn_wh[k](wh.flatten(0, 1)).view(wh.shape)
                wz = self.bn_wz[k](wz.flatten(0, 1)).view(wz.shape)
            h, frames = torch.zeros(x.shape[1], self.ligru_lay[k]), []
            for a, z in zip(wh, wz):
                z = torch.sigmoid(z + self.uz[k](h))
                h = z * h + (1 - z) * self.act[k](a + self.uh[k](h)) * (1 - self.ligru_drop[k])
                frames.append(h)
            x = torch.stack(frames)
            if self.bidir:
                forward, backward = x.chunk(2, 1)
                x = torch.cat([forward, backward.flip(0)], 2)
        return x


Kaldi.__module__, Kaldi.__qualname__ = "neural_networks", "liGRU"


@pytest.mark.fast(2)
@pytest.mark.parametrize(
    "options",
    [{}, {"bidir": False, "layers": 1}, {"norm_inp": True}, {"norm": False, "bias": True}, {"norm": False, "norm_inp": True}],
)  # fmt: skip
def test_pytorch_kaldis_ligru(options):
    rnn = wild(Kaldi(5, 9, **options))
    graph = assert_taken_over(Sequence(rnn, 5, 9 * (1 + rnn.bidir)).eval())
    assert {node.layer.program.cell for node in graph.recurrent} == {"ligru"}
    assert sum(node.reverse for node in graph.recurrent) == rnn.bidir * rnn.N_ligru_lay


def kaldi(**attributes):
    one = Kaldi(5, 4)
    for name, value in attributes.items():
        setattr(one, name, value)
    return one


@pytest.mark.parametrize(
    "rnn, batch_first, words",
    [
        (LiGRU(5, 8, norm=nn.LayerNorm), True, "speechbrain.*: layer norm inside a cell has no integer meaning.*weight norm or batch"),
        (LiGRU(5, 8, act=nn.Tanh), True, r"speechbrain.*: its activation is Tanh\(\); only ReLU"),
        (kaldi(ligru_use_laynorm=[False, True]), False, "neural_networks.*: layer norm inside a cell"),
        (kaldi(ligru_use_laynorm_inp=True), False, "neural_networks.*: layer norm inside a cell"),
        (kaldi(test_flag=False), False, "neural_networks.liGRU: it is in training mode"),
        (Kaldi(5, 4, act=nn.Tanh), False, r"its activation is Tanh\(\); only ReLU"),
    ],
)  # fmt: skip
def test_what_is_not_taken_of_the_ligrus(rnn, batch_first, words):
    with pytest.raises(RindleError, match=f"the module 'rnn' is a {words}" if "its" not in words[:3] else words):
        capture(Sequence(rnn, 5, 8, batch_first).eval(), X)


# -------------------------------------------------------------------------------------------------------- registry


class Foreign(nn.Module):
    """Somebody's module: a GRU whose output is doubled, in a way that capture does not know."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(FEATURES, FEATURES, batch_first=True)

    def forward(self, x):
        return torch.cumsum(torch.stack([self.gru(x)[0]] * 2), 0)[1], None


class Doubled(nn.Module):
    """``Foreign`` of what capture knows."""

    def __init__(self, foreign):
        super().__init__()
        gru = foreign.gru
        parameters = {name: getattr(gru, f"{name}_l0").detach() for name in CELLS["gru"].layout}
        self.rnn = filled(Recurrent(CELLS["gru"], FEATURES, FEATURES, batch_first=True), parameters)
        self.twice = nn.Linear(FEATURES, FEATURES)
        nn.init.zeros_(self.twice.bias)
        self.twice.weight.data = 2 * torch.eye(FEATURES)

    def forward(self, x):
        return self.twice(self.rnn(x)[0]), None


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "CONVERTERS", dict(registry.CONVERTERS))
    return register


def test_a_users_class_is_registered(registered):
    one = Foreign()
    model = nn.Sequential(nn.Linear(FEATURES, FEATURES), Only(one), Only(one), nn.Linear(FEATURES, 2)).eval()
    with pytest.raises(RindleError, match=r"aten\.cumsum\.default in the module '1\.rnn' is not supported"):
        capture(model, X)
    registered(Foreign, Doubled)
    graph = assert_taken_over(model)
    assert [node.name for node in graph.recurrent] == ["1.rnn.rnn.l0", "2.rnn.rnn.l0"]
    registered(f"{__name__}.Foreign", lambda foreign: Only(Doubled(foreign)))  # the later one counts
    with pytest.raises(RindleError, match=r"torch\.export cannot capture"):
        capture(nn.Sequential(Only(one), Only(one)), X)


def test_the_model_itself_may_be_registered(registered):
    registered(Foreign, lambda foreign: Only(Doubled(foreign)))
    graph, _ = capture(Foreign().eval(), X)
    assert [node.layer.program.cell for node in graph.nodes] == ["gru", "linear"]


class Derived(Foreign):
    pass


def test_a_subclass_is_not_meant(registered):
    registered(Foreign, Doubled)
    with pytest.raises(RindleError, match=r"aten\.cumsum"):
        capture(Only(Derived()).eval(), X)


def test_what_cannot_be_registered(registered):
    for cls, convert in (("Foreign", Doubled), (Foreign, None)):
        with pytest.raises(RindleError, match="register takes a class, or its path, and a function"):
            registered(cls, convert)
    registered(Foreign, lambda foreign: None)
    with pytest.raises(RindleError, match=r"the module 'rnn' is a .*Foreign, whose registered function returns None"):
        capture(Only(Foreign()), X)


def test_no_package_is_imported_for_the_registry():
    assert "speechbrain" not in sys.modules and "neural_networks" not in sys.modules


# ------------------------------------------------------------------------------------------------- weights and norms


def old_weight_norm(module, name="weight"):
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(module, name)


NORMS = {
    "weight norm": nn.utils.parametrizations.weight_norm,
    "the older weight norm": old_weight_norm,
    "spectral norm": nn.utils.parametrizations.spectral_norm,
}


@pytest.mark.fast(3)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["lstm", "gru", "ours"])
def test_computed_weights_are_evaluated(norm, name):
    torch.manual_seed(0)
    make = {"lstm": nn.LSTM, "gru": nn.GRU}.get(name) or (lambda *sizes: Recurrent(CELLS["gru_reset_before"], *sizes))
    rnn = make(FEATURES, 6, 2)
    for parameter in ("weight_hh_l0", "weight_ih_l1"):
        rnn = NORMS[norm](rnn, parameter)
    model = Sequence(rnn, FEATURES, 6)
    model.last = NORMS[norm](model.last)
    model.eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(("_g", "original0", "original")):
                parameter.mul_(1.7)  # away from where it began
    keys = set(model.state_dict())
    assert_taken_over(model)
    assert set(model.state_dict()) == keys
    model.train()(X).square().sum().backward()  # still a model to train
    assert any(parameter.grad is not None for key, parameter in model.named_parameters() if "weight_hh_l0" in key)


def test_batch_norm_folds_into_the_product_beside_it():
    norm, product = wild(nn.BatchNorm1d(4)).double(), nn.Linear(3, 4).double()
    x = torch.randn(6, 3, dtype=torch.float64)
    weight, bias = norm_of_product(product.weight, product.bias, norm)
    torch.testing.assert_close(x @ weight.T + bias, norm(product(x)), rtol=0, atol=1e-12)
    weight, bias = norm_of_product(product.weight, None, norm)
    torch.testing.assert_close(x @ weight.T + bias, norm(x @ product.weight.T), rtol=0, atol=1e-12)
    behind, y = nn.Linear(4, 2).double(), torch.randn(6, 4, dtype=torch.float64)
    weight, bias = product_of_norm(behind.weight, behind.bias, norm)
    torch.testing.assert_close(y @ weight.T + bias, behind(norm(y)), rtol=0, atol=1e-12)
    weight, bias = product_of_norm(behind.weight, None, norm)
    torch.testing.assert_close(y @ weight.T + bias, norm(y) @ behind.weight.T, rtol=0, atol=1e-12)
    plain = wild(nn.BatchNorm1d(4, affine=False)).double()
    weight, bias = norm_of_product(product.weight, product.bias, plain)
    torch.testing.assert_close(x @ weight.T + bias, plain(product(x)), rtol=0, atol=1e-12)
    with pytest.raises(RindleError, match="keeps no running statistics"):
        norm_of_product(product.weight, None, nn.BatchNorm1d(4, track_running_stats=False))


# ------------------------------------------------------------------------------------------------------- layer norm


@rindle.cell(states=("h",))
def normed(n, x, h):
    z, a = n.affine("z a", x, h)
    a = n.add(n.mul(n.path("unit", n.layer_norm(a)), n.vector("gain")), n.vector("shift"))
    return n.lerp(n.sigmoid(z), h, n.tanh(a))


REASON = "layer norm inside a cell has no integer meaning.* Train with weight norm or batch norm instead"


def test_layer_norm_trains():
    torch.manual_seed(0)
    module = Recurrent(normed, FEATURES, 6, batch_first=True)
    wanted = torch.tanh(X.cumsum(1))
    first = None
    optimizer = torch.optim.Adam(module.parameters(), 0.02)
    for _ in range(60):
        loss = (module(X)[0][..., :FEATURES] - wanted).square().mean()
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(parameter.grad.any() for parameter in module.parameters())
    assert loss.item() < 0.5 * first


def test_layer_norm_is_refused_before_integers():
    model = Only(Recurrent(normed, FEATURES, 6, batch_first=True)).eval()
    with pytest.raises(RindleError, match=f"rnn.l0/unit: {REASON}"):
        rindle.quantize(model, "int8", X)
    graph, _ = capture(model, X)
    with torch.no_grad():
        close(run_graph(graph, X), model(X))
    with pytest.raises(RindleError, match=f"rnn.l0/unit: {REASON}"):
        calibrate(graph, X, True, "int8")


def test_layer_norm_is_refused_by_a_fake_quantized_run_and_by_conversion():
    from rindle.nn.calibrate.plan import LayerPlan
    from rindle.nn.conversion.convert import convert_layer

    graph, _ = capture(Only(Recurrent(normed, FEATURES, 6, batch_first=True)).eval(), X)
    layer = graph.nodes[0].layer
    plan = LayerPlan(layer.program, {})
    with pytest.raises(RindleError, match=f"normed/unit: {REASON}"):
        FakeQuantized(layer, plan)
    with pytest.raises(RindleError, match=f"rnn.l0/unit: {REASON}"):
        convert_layer("rnn.l0", layer, plan)
