"""The exported C gives the reference's integers, whatever the model, asks nobody for anything, and says what it takes."""

import json
import math
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from exported import SANITIZED, WARNINGS, assert_exact, random_artifact, random_stream, replay, run, tool, with_extremes
from random_models import random_layer, wild_layer
from support import EVERY_CELL, GRAPHS, Words, is_float, quantized, quantized_graph, words
from test_laws import some_thresholds

import rindle
from rindle import SCHEMES, RindleError, cli, fixed
from rindle.engines import reference
from rindle.engines.golden import with_golden, with_thresholds
from rindle.export import TARGETS, to_c
from rindle.export.c.model import ModelWriter
from rindle.export.c.operations import _blocks as text_blocks
from rindle.file.artifact import Artifact, Golden
from rindle.numbers.codes import Rescale
from rindle.program.graph import Graph
from rindle.program.nodes import INPUT, FloatNode, ProgramNode

pytestmark = pytest.mark.fast(1)  # each case is compiled, mostly under sanitizers

SEEDS = range(21)


# --------------------------------------------------------------------------------------------- the same integers


def _samples():
    """Every cell dense and held, in schemes that take turns; the best known in all of them."""
    schemes = list(SCHEMES)
    for i, name in enumerate(EVERY_CELL):
        all_of_them = name == "lstm"
        yield from ((name, scheme, False) for scheme in (schemes if all_of_them else [schemes[i % len(schemes)]]))
        yield from ((name, scheme, True) for scheme in (schemes if all_of_them else [schemes[(i + 1) % len(schemes)]]))


@pytest.mark.fast(2)
@pytest.mark.parametrize(("name", "scheme", "held"), _samples())
def test_c_is_the_reference_on_cells_and_schemes(name, scheme, held, tmp_path):
    artifact = quantized(name, scheme, "last" if held else "all").artifact
    artifact = with_thresholds(artifact, some_thresholds(artifact, 0.1)) if held else artifact
    artifact = with_extremes(artifact)
    golden = artifact.golden
    assert sum(reference.run(artifact, golden.inputs, golden.lengths).saturations.values()) > 0
    assert_exact(artifact, tmp_path / "c")


@pytest.mark.parametrize("seed", SEEDS)
def test_c_is_the_reference_on_random_models(seed, tmp_path):
    if random_stream(seed) is not None:
        assert_exact(random_stream(seed), tmp_path / "c")


@pytest.mark.fast(0)
def test_most_random_models_convert_and_saturate():
    """Else the test above would say less than it seems to."""
    models = [one for one in map(random_stream, SEEDS) if one is not None]
    assert len(models) > 0.9 * len(SEEDS)
    kinds = set()
    for artifact in models:
        found = reference.run(artifact, artifact.golden.inputs, artifact.golden.lengths).saturations
        for node in artifact.graph.programs:
            kinds |= {op.kind for op in node.layer.program.ops if found.get((node.name, op.out[0]))}
    assert kinds == {"affine", "requantize", "add", "sub", "mul", "sum_of_products", "lerp"}


def narrow_words():
    """Ids whose embedding has 5 bits."""
    torch.manual_seed(0)
    overrides = {"rnn.l0/code.*.x": "int5 mmse", "rnn.l0/weight.*": "int3 mmse"}
    return rindle.quantize(Words().eval(), "int8", words(), overrides).artifact


@pytest.mark.parametrize("kind", ["words", "words, last", "narrow"])
def test_c_is_the_reference_on_ids(kind, tmp_path):
    artifact = with_extremes(narrow_words() if kind == "narrow" else quantized_graph(kind, "int8").artifact)
    assert_exact(artifact, tmp_path / "c")
    main = f"""#include "net.h"
int main(void)
{{
    static net_state state, before;
    int16_t y[{artifact.output_size}];
    net_reset(&state);
    before = state;
    if (net_step(&state, -1, y) != 1 || net_step(&state, NET_VOCABULARY, y) != 1) return 1;
    for (unsigned k = 0; k < sizeof state; ++k) if (((char *)&state)[k] != ((char *)&before)[k]) return 2;
    return net_step(&state, NET_VOCABULARY - 1, y);
}}"""
    (tmp_path / "c" / "ids.c").write_text(main)
    assert run("cc", *SANITIZED, "net.c", "ids.c", "-o", "ids", cwd=tmp_path / "c").returncode == 0
    assert run("./ids", cwd=tmp_path / "c").returncode == 0


@rindle.cell()
def one_table(n, x):
    return n.tanh(x)


@rindle.cell()
def one_shift(n, x):
    return n.requantize(x)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("cell", [one_table, one_shift], ids=lambda cell: cell.name)
def test_one_operation_on_all_codes(cell, seed, tmp_path):
    """Of random tables with every flag, and of shifts, whose ties are half of all codes where they are by one bit."""
    rng, x = np.random.default_rng(seed), fixed(16, 12)
    layer = wild_layer(rng, random_layer(rng, cell, {"I": 64, "H": 64}, [x], "n"))
    if cell is one_shift:
        layer.constants[layer.program.ops[0].out[0]] = [
            Rescale(1, 1),
            Rescale(3, 7),
            Rescale(5, 13),
            Rescale(1 << 17, 18),
            Rescale(3 << 17, 18),
            Rescale(5 << 19, 25),
        ][seed]  # in 32 bits, and in 64
    artifact = Artifact(Graph(64, (ProgramNode("n", (INPUT,), layer),), "n"), x, Golden(None, None, None), {})
    codes = np.arange(-32768, 32768).astype(np.int16).reshape(1, 1024, 64)
    assert_exact(with_golden(artifact, codes, np.array([1024])), tmp_path)


@cache
def planes_layer(bits: int, codes: str, inputs: int, hidden: int):
    """An LSTM with weights of so many bits."""
    torch.manual_seed(bits)
    x = np.random.default_rng(0).normal(size=(4, 9, inputs)).astype(np.float32)
    overrides = {"weight.*": f"int{bits} mmse", "code.*": codes}
    net = StatesOf(torch.nn.LSTM(inputs, hidden, batch_first=True))
    return with_extremes(rindle.quantize(net.eval(), "int8", x, overrides).artifact)


class StatesOf(torch.nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, x):
        return self.rnn(x)[0]


@pytest.mark.fast(0)
@pytest.mark.parametrize("bits", range(2, 8))
def test_planes_of_every_width_are_exact(bits, tmp_path):
    """Rows and columns that fill words and that do not; sums of two products in 16 bits, and codes too large for it."""
    sizes, codes = ((13, 37), (40, 24))[bits & 1], ("int8 mmse", "int10 mmse", "fixed16 max")[bits % 3]
    artifact = planes_layer(bits, codes, *sizes)
    assert_exact(artifact, tmp_path / "dense")
    assert_exact(with_extremes(with_thresholds(artifact, some_thresholds(artifact, 0.1))), tmp_path / "held")


@pytest.mark.fast(0)
@pytest.mark.parametrize("bits", range(2, 8))
def test_codes_at_the_bound_of_two_lanes_are_exact(bits, tmp_path):
    """Eight columns of the largest weights on the largest codes, of either sign, fill the 16 bits of a lane."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 12)
    layer.weight.data = torch.where(torch.arange(12)[:, None] % 2 == 0, 1.0, -1.0).expand(12, 24).clone()
    x = np.random.default_rng(0).uniform(-1, 1, (2, 4, 24)).astype(np.float32)
    overrides = {"weight.*": f"int{bits} max", "code.*": "int9 max"}  # codes to 255, the widest that lanes take
    artifact = rindle.quantize(torch.nn.Sequential(layer).eval(), "int8", x, overrides).artifact
    hi = artifact.graph.programs[0].layer.formats[artifact.graph.programs[0].layer.program.codes[0]].hi
    assert hi == 255
    full = np.array([artifact.input_format.hi, artifact.input_format.lo])
    rows = np.stack(
        [
            np.full(24, full[0]),
            np.full(24, full[1]),
            np.where(np.arange(24) % 2, *full),
            np.where(np.arange(24) % 2, *full[::-1]),
        ]
    )
    codes = np.stack([rows, rows[::-1], rows[[2, 0, 3, 1]]]).astype(np.int16)
    for name, theta in (("dense", None), ("held", 0)):
        one = with_thresholds(artifact, dict.fromkeys(artifact.held_codes(), theta))
        assert_exact(with_golden(one, codes, np.array([4, 4, 4])), tmp_path / name)
        assert re.search(r"planes\(.*, 1, ", (tmp_path / name / "net.c").read_text())


def quiet_head():
    """A held input of a layer that reads a vector: it has nothing to remember from frame to frame."""
    artifact = quantized("gru", "int8", "last").artifact
    return with_extremes(with_thresholds(artifact, {"last/x": 40}))


def test_a_held_layer_on_a_vector_remembers_nothing(tmp_path):
    assert_exact(quiet_head(), tmp_path)
    assert "rindle_quiet(" in (tmp_path / "net.c").read_text()


WIDE = {"int3 max": 6200, "int4 max": 3000, "int8 max": 1200, "fixed16 max": 40}  # weights -> columns for sums of 2^31


def wide_artifact(weights: str):
    """A layer whose sums need 64 bits: 16-bit codes, and weights of two values."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(WIDE[weights], 5)
    layer.weight.data = layer.weight.data.sign()
    x = np.random.default_rng(0).uniform(-1, 1, (2, 4, WIDE[weights])).astype(np.float32)
    overrides = {"weight.*": weights, "code.*": "fixed16 max"}
    return rindle.quantize(torch.nn.Sequential(layer).eval(), "int8", x, overrides).artifact


@pytest.mark.parametrize("weights", WIDE)
def test_sums_beyond_32_bits_are_exact(weights, tmp_path):
    artifact = wide_artifact(weights)
    (node,) = artifact.graph.programs
    signs = np.sign(node.layer.constants["y"].products[0].weight)
    hi = artifact.input_format.hi
    x = np.stack([signs[0] * hi, signs[1] * hi, -signs[2] * hi])[:, None].astype(np.int16)  # the largest sums there are
    x = np.concatenate([x, -x], 1)
    for name, theta in (("dense", None), ("held", 3)):
        one = with_thresholds(artifact, dict.fromkeys(artifact.held_codes(), theta))
        assert_exact(with_golden(one, x, np.array([2, 2, 2])), tmp_path / name)
        assert "int64_t *acc" in (tmp_path / name / "net.c").read_text()


@pytest.mark.fast(0)
def test_every_function_of_the_c_text_is_in_some_tested_model():
    artifacts = [one for one in map(random_stream, SEEDS) if one is not None]
    artifacts += [
        quantized_graph("words", "int8").artifact,
        narrow_words(),
        quantized("lstm", "w4a8").artifact,
        quiet_head(),
    ]
    for weights in WIDE:
        one = wide_artifact(weights)
        artifacts += [one, with_thresholds(one, dict.fromkeys(one.held_codes(), 3))]
    used = set()
    for artifact in artifacts:
        used |= set(re.findall(r"\brindle_\w+", ModelWriter(artifact, "net").source))
    assert {name for defined, _ in text_blocks() for name in defined} <= used


def test_the_golden_program_can_fail(tmp_path):
    artifact = quantized("gru", "int8").artifact
    outputs = artifact.golden.outputs.copy()
    outputs[0, 0, 0] ^= 1
    done = replay(replace(artifact, golden=replace(artifact.golden, outputs=outputs)), tmp_path / "c")
    assert (done.returncode, done.stdout) == (1, "golden: 1 codes differ\n")


def test_reset_starts_again_and_streams_are_independent(tmp_path):
    """Rows of the golden vector, each from reset: in any order they give what they give alone."""
    artifact = quantized("lstm", "int8").artifact
    artifact = with_extremes(with_thresholds(artifact, some_thresholds(artifact, 0.05)), lengths=(4, 7))
    turned = with_golden(artifact, artifact.golden.inputs[::-1].copy(), artifact.golden.lengths[::-1].copy())
    np.testing.assert_array_equal(turned.golden.outputs[0], artifact.golden.outputs[1])
    assert_exact(turned, tmp_path / "c")


# ------------------------------------------------------------------------------------------ asks nobody for anything


def test_one_command_of_the_readme_says_pass(tmp_path):
    made = to_c(quantized("gru", "w4a8").artifact, tmp_path / "gru", "speaker")
    text = (tmp_path / "gru" / "README.md").read_text()
    command = re.search(r"```\n(cc .*)\n```", text)[1]
    assert command == made.check
    assert run("sh", "-c", command, cwd=tmp_path / "gru").stdout == "golden: pass\n"
    assert sorted(made.files) == sorted(path.name for path in (tmp_path / "gru").iterdir() if path.name != "golden")


@pytest.mark.parametrize("level", ["-O2", "-O3", "-Os"])
def test_the_object_needs_no_library_and_has_no_writable_data(level, tmp_path):
    artifact = quantized("lstm", "int8", "last").artifact
    to_c(with_thresholds(artifact, some_thresholds(artifact, 0.1)), tmp_path / "c", "net")
    assert run("cc", *WARNINGS, level, "-c", "net.c", cwd=tmp_path / "c").returncode == 0
    symbols = [line.split()[-2:] for line in run("nm", "net.o", cwd=tmp_path / "c").stdout.splitlines()]
    assert {name for kind, name in symbols if kind in "TDBCU"} == {"net_reset", "net_step"}
    assert not {kind for kind, _ in symbols} & set("dbDBCU")


@pytest.mark.parametrize("seed", [1, 2, 7, 12])
def test_there_is_no_float_and_no_division(seed):
    source = ModelWriter(random_stream(seed), "net").source
    code = re.sub(r"/\*.*?\*/|^#include.*?$|\"[^\"]*\"", "", source, flags=re.DOTALL | re.MULTILINE)
    assert len(code) > 1000
    assert not re.search(r"\b(float|double|malloc|memcpy|memset)\b|[/%]", code)


@pytest.mark.parametrize("seed", range(0, 18, 6))
def test_clang_has_no_warning_either(seed, tmp_path):
    clang = tool("clang", "clang")
    to_c(random_stream(seed), tmp_path / "c", "net")
    done = run(clang, *WARNINGS, "-O1", "net.c", "golden.c", "main.c", "-o", "golden", cwd=tmp_path / "c")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert run("./golden", cwd=tmp_path / "c").stdout == "golden: pass\n"


@rindle.cell(states=("state", "int"))
def awkward(n, work, state, int):
    """Paths whose names mean something in C, or in the text around them."""
    k, row = n.affine("k row", work, state)
    out = n.path("out", n.mul(n.sigmoid(k), int))
    lane = n.path("net_run_rnn_l0", n.add(out, row))
    return n.path("rindle_sat", n.tanh(lane)), n.path("NULL", n.mul(lane, state))


def test_names_of_any_kind_are_names_in_c(tmp_path):
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = rindle.Recurrent(awkward, 3, 5, 1, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0]

    artifact = rindle.quantize(Net().eval(), "int8", x).artifact
    for name in ("*/ int x; /*", "state", "while", "9 lives", "θ", 'a\n#error "no"', "??/"):
        nodes = tuple(replace(node, name=name) for node in artifact.graph.nodes)
        renamed = replace(artifact, graph=replace(artifact.graph, nodes=nodes, output=name))
        assert len(nodes) == 1
        to_c(renamed, tmp_path / "c", "net", force=True)
        done = run("cc", *WARNINGS, "-O0", "net.c", "golden.c", "main.c", "-o", "golden", cwd=tmp_path / "c")
        assert done.returncode == 0, done.stderr
        assert run("./golden", cwd=tmp_path / "c").stdout == "golden: pass\n"


def test_two_models_in_one_program(tmp_path):
    to_c(quantized("lstm", "int8").artifact, tmp_path, "one")
    (tmp_path / "golden.c").unlink()
    to_c(quantized("gru", "int8").artifact, tmp_path, "two", force=True)
    text = '#include "one.h"\n#include "two.h"\nstatic one_state a;\nstatic two_state b;\n'
    text += "int main(void) { one_reset(&a); two_reset(&b); return 0; }\n"
    (tmp_path / "both.c").write_text(text)
    done = run("cc", *WARNINGS, "both.c", "one.c", "two.c", "-o", "both", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------------ says what it takes


@pytest.mark.parametrize("seed", [*range(3, 18, 5), None])
def test_sizes_are_those_of_the_arrays(seed, tmp_path):
    artifact = quantized("lstm", "w4a8").artifact if seed is None else random_stream(seed)
    made = to_c(artifact, tmp_path, "net")
    text = (tmp_path / "README.md").read_text().replace(",", "")
    flash, ram = (int(re.search(rf"\| {name}.*? \| (\d+) \|", text)[1]) for name in ("all constants", "`net_state`"))
    assert (flash, ram) == (sum(made.flash.values()), made.ram)
    assert run("cc", "-std=c99", "-O0", "-c", "net.c", cwd=tmp_path).returncode == 0
    objects = [line.split() for line in run("nm", "-S", "net.o", cwd=tmp_path).stdout.splitlines()]
    assert flash == sum(int(line[1], 16) for line in objects if len(line) == 4 and line[2] == "r")
    check = f"typedef char same[sizeof(net_state) == {ram} ? 1 : -1];\n"
    (tmp_path / "size.c").write_text('#include "net.h"\n' + check)
    assert run("cc", "-std=c99", "-c", "size.c", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("bits", range(2, 8))
def test_weights_take_their_bits(bits):
    """Each plane of a row ends with a word, and nothing else is lost: 4 bits are half of 8 where rows are whole words."""

    def weights(artifact):
        return ModelWriter(artifact, "net").constants.sizes["weights"]

    assert weights(planes_layer(bits, "int8", 64, 32)) == weights(planes_layer(8, "int8", 64, 32)) * bits / 8
    widths = [width for width in (4, 2, 1) if bits & width]
    words = [sum(math.ceil(columns * width / 32) for width in widths) for columns in (13, 37)]
    assert weights(planes_layer(bits, "int8", 13, 37)) == 4 * 4 * 37 * sum(words)


# ----------------------------------------------------------------------------------------------------- refuses by name


def test_what_cannot_take_one_frame_at_a_time_is_refused_by_name(tmp_path):
    wanted = {"reverse", "mean", "max", "first", "window", "float"}
    reasons = {}
    for seed in range(80):
        if set(reasons) == wanted:
            break
        artifact = random_artifact(seed)
        if artifact is None:
            continue
        wrong = [node for node in artifact.graph.nodes if node.why_whole or isinstance(node, FloatNode)]
        if not wrong:
            continue
        with pytest.raises(RindleError) as error:
            to_c(artifact, tmp_path / "c", "net")
        message = str(error.value)
        assert repr(wrong[0].name) in message and (";" in message)
        kind = "reverse" if isinstance(wrong[0], ProgramNode) else wrong[0].kind
        assert (wrong[0].op.name if kind == "float" else wrong[0].why_whole) in message
        reasons[kind] = message
    assert set(reasons) == wanted
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [kind for kind in GRAPHS if kind not in ("words", "words, last")])
def test_graphs_of_both_directions_and_means_are_refused(kind, tmp_path):
    artifact = quantized_graph(kind, "int8").artifact
    assert not is_float(artifact)
    with pytest.raises(RindleError, match=artifact.graph.whole_sequence):
        to_c(artifact, tmp_path / "c", "net")


@pytest.mark.parametrize("name", ["", "9x", "a-b", "int", "main", "golden", "rindle_x", "_x", "ä", "a b"])
def test_a_name_that_c_does_not_take_is_refused(name, tmp_path):
    with pytest.raises(RindleError, match="name"):
        to_c(quantized("gru", "int8").artifact, tmp_path / "c", name)


@pytest.mark.parametrize("target", TARGETS)
def test_a_folder_is_written_whole_or_not_at_all(target, tmp_path, monkeypatch):
    artifact, folder = quantized("gru", "int8").artifact, tmp_path / "deep" / "c"
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(RindleError, match="No space left"):
            TARGETS[target](artifact, folder, name="net")
    assert not any(folder.parent.iterdir())
    TARGETS[target](artifact, folder, name="net")
    (folder / "mine").write_text("mine")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RindleError, match="not empty"):
        TARGETS[target](artifact, folder, name="net")
    TARGETS[target](artifact, folder, name="net", force=True)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder.parent] and list(folder.parent.iterdir()) == [folder]


def test_the_verb_writes_and_says_what_it_takes(tmp_path, monkeypatch, capsys):
    rindle.save(quantized("gru", "int8"), tmp_path / "9 speakers.rindle")

    def call(*arguments) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["rindle", "export", str(tmp_path / "9 speakers.rindle"), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, "".join(capsys.readouterr())

    code, said = call("--to", "c", "-o", tmp_path / "c", "--json")
    found = json.loads(said)
    assert code == 0 and found["name"] == "model_9_speakers" and found["ram"] > 0
    assert sorted(found["files"]) == sorted(path.name for path in (tmp_path / "c").iterdir())
    assert run("sh", "-c", found["check"], cwd=tmp_path / "c").stdout == "golden: pass\n"
    code, said = call("--to", "cobol", "-o", tmp_path / "d")
    assert code == 2 and "'cobol'; there are c" in said and not (tmp_path / "d").exists()
    code, said = call("--to", "c", "-o", tmp_path / "c")
    assert code == 2 and "not empty" in said
