import json

import pytest
import torch
from support import HIDDEN, Only, TorchModel, quantized, sequences

import rindle
from rindle import SCHEMES, RindleError
from rindle.scheme.quantizers import QUANTIZERS
from rindle.scheme.rules import Rule, load_overrides, parse_rule, resolve

KEYS = {
    "rnn.l0": ["x", "h", "i", "i.sigmoid", "weight.i.x", "weight.g.h", "code.i.x", "code.g.h"],
    "fc": ["y", "weight.y.x", "code.y.x"],
}


@pytest.mark.parametrize(
    "text, rule",
    [
        ("int8 max", Rule("int", 8)),
        ("int8", Rule("int", 8)),
        ("  int4   mmse ", Rule("int", 4, None, "mmse")),
        ("int8 percentile(99.9)", Rule("int", 8, None, "percentile", 99.9)),
        ("fixed16 max(1.25)", Rule("fixed", 16, None, "max", 1.25)),
        ("fixed(16,11)", Rule("fixed", 16, 11)),
        ("fixed( 8 , -3 )", Rule("fixed", 8, -3)),
        ("fixed2", Rule("fixed", 2)),
    ],
)
def test_rules(text, rule):
    assert parse_rule(text) == rule
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    "text, words",
    [
        ("float16", 'write for example "int8 max"'),
        ("", "write for example"),
        ("int8 max max", "unknown word"),
        ("int8 max(1.2.3)", "write for example"),
        ("int8 max(-1)", "write for example"),
        ("int8 max(.)", "write for example"),
        (8, "is 8; write for example"),
        (None, "is None; write for example"),
        ("int1 max", "2..16 bits"),
        ("int17 max", "2..16 bits"),
        ("fixed(17,3)", "2..16 bits"),
        ("int(8,3)", "only a fixed format has given fraction bits"),
        ("fixed(8,3) max", "then no calibration"),
        ("fixed(8,65)", "-64..64 fraction bits"),
        ("int8 maximum", "unknown calibration 'maximum'; did you mean 'max'"),
        ("int8 sawb", "unknown calibration 'sawb'; there are max, percentile, mmse"),
        ("int8 max(0)", "above 0"),
        ("int8 percentile(0)", "above 0 and up to 100"),
        ("int8 percentile(100.1)", "above 0 and up to 100"),
        ("int8 mmse(4)", "mmse takes no number"),
    ],
)
def test_what_is_not_a_rule(text, words):
    with pytest.raises(RindleError, match=words):
        parse_rule(text, "the rule for 'x'")


@pytest.mark.parametrize("method", QUANTIZERS)
def test_every_quantizer_can_be_named(method):
    assert parse_rule(f"int8 {method}").method == method


def test_every_scheme_covers_every_path(scheme):
    rules = resolve(scheme, None, KEYS)
    assert set(rules) == {(layer, path) for layer, paths in KEYS.items() for path in paths}
    for (_, path), rule in rules.items():
        assert rule.kind == "fixed" or path.startswith(("weight.", "code."))


def test_schemes_are_what_they_are_called():
    """(weight, code) of each preset."""
    found = {}
    for name in SCHEMES:
        rules = resolve(name, None, KEYS)
        weight, code, element = (rules["rnn.l0", path] for path in ("weight.i.x", "code.i.x", "i"))
        assert (element.kind, element.bits) == ("fixed", 16)
        found[name] = f"{weight.kind}{weight.bits} {code.kind}{code.bits}"
    assert (
        found
        | {  # others may come
            "int8": "int8 int8",
            "w4a8": "int4 int8",
            "fixed16": "fixed16 fixed16",
            "fixed8": "fixed8 fixed8",
        }
        == found
    )


def test_a_later_rule_wins_and_patterns_choose_layer_gate_and_matrix():
    overrides = {
        "weight.*": "int4 mmse",
        "weight.g.h": "fixed16",
        "fc/*.y.x": "fixed(8,3)",
        "rnn.l0/code.*.h": "int6 max",
    }
    rules = resolve("int8", overrides, KEYS)
    assert rules["rnn.l0", "weight.i.x"] == Rule("int", 4, None, "mmse")
    assert rules["rnn.l0", "weight.g.h"] == Rule("fixed", 16)
    assert rules["fc", "weight.y.x"] == rules["fc", "code.y.x"] == Rule("fixed", 8, 3)
    assert rules["rnn.l0", "code.g.h"] == Rule("int", 6)
    assert rules["rnn.l0", "code.i.x"] == Rule("int", 8, None, "mmse", modifiers=frozenset({"wide"}))


@pytest.mark.parametrize(
    "scheme, overrides, words",
    [
        ("int9", None, "unknown scheme 'int9'; did you mean 'int8'"),
        ("ternary", None, "unknown scheme 'ternary'; there are int8, "),
        (None, None, "the scheme is None; give one of int8"),
        (8, None, "the scheme is 8"),
        ({"*": 8}, None, "is 8; write for example"),
        ({"weight.*": "int8"}, None, 'the scheme has no rule for rnn.l0/x; add one for "\\*"'),
        ({"*": "fixed16", "wieght.*": "int8"}, None, "no path fits 'wieght"),
        ("int8", {"weight.g.k": "int4"}, r"no path fits 'weight.g.k'; did you mean .*weight.g.h"),
        ("int8", {"rnn.l1/x": "fixed16"}, "no path fits 'rnn.l1/x'; did you mean 'rnn.l0/x'"),
        ("int8", {"h": "int8 max"}, "rnn.l0/h is element-wise, and so it must be fixed, not int8 max"),
        ("int8", {"h": "int8 mex"}, "override of 'h': unknown calibration 'mex'; did you mean 'max'"),
    ],
)
def test_what_is_not_a_scheme(scheme, overrides, words):
    with pytest.raises(RindleError, match=words):
        resolve(scheme, overrides, KEYS)


def test_an_override_may_be_a_file(tmp_path):
    overrides = {"weight.g.h": "int4 mmse", "fc/y": "fixed(16,9)"}
    (tmp_path / "o.json").write_text(json.dumps(overrides))
    (tmp_path / "o.toml").write_text('"weight.g.h" = "int4 mmse"\n"fc/y" = "fixed(16,9)"\n')
    assert load_overrides(None) == {}
    for source in (overrides, tmp_path / "o.json", str(tmp_path / "o.toml")):
        assert load_overrides(source) == overrides


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("o.json", "[1]", "must map paths to rules"),
        ("o.json", "{", "not valid json"),
        ("o.toml", "= 1", "not valid toml"),
        ("o.toml", 'weight.g.h = "int4 max"', "quote a key that has dots"),
        ("o.toml", '"h" = 3', "'h' is 3"),
        ("o.json", '{"h": null}', "'h' is None"),
    ],
)
def test_override_files_that_are_wrong(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(RindleError, match=words):
        load_overrides(tmp_path / name)


def test_a_missing_override_file_is_named(tmp_path):
    with pytest.raises(RindleError, match=r"the override file .*nothing\.toml cannot be read: No such file"):
        load_overrides(tmp_path / "nothing.toml")


# ------------------------------------------------------------------------------------- through the whole conversion


def layer_of(overrides, name="lstm", scheme="int8"):
    torch.manual_seed(0)
    model = rindle.quantize(TorchModel(name).eval(), scheme, sequences(), overrides)
    assert model.run(sequences()).shape == (8, 20, 3)
    return model.artifact.graph.node("rnn.l0").layer


def test_a_gate_can_skip_quantization_of_one_matrix():
    """ "skip" in the papers' sense is fixed(16), of the weights and of the code that they multiply."""
    layer = layer_of({"weight.g.h": "fixed16", "code.g.h": "fixed16"})
    codes = {code: fmt.bits for code, fmt in layer.formats.items() if code in layer.program.codes}
    assert codes == {"x.code": 8, "h.code.i+f+o": 8, "h.code.g": 16}
    (op,) = layer.program.affines
    terms = {term.gates: product.format.bits for term, product in zip(op.terms, layer.constants["i"].products)}
    assert terms == {("i", "f", "g", "o"): 8, ("i", "f"): 8, ("g",): 16, ("o",): 8}
    assert layer.formats["h.code.g"].is_fixed


def test_formats_per_layer_gate_and_matrix():
    layer = layer_of({"rnn.l0/weight.i.x": "int3 max", "rnn.l0/f.sigmoid": "fixed(12,11)", "c": "fixed(16,10)"})
    assert layer.formats["f.sigmoid"].bits == 12
    assert layer.formats["c"].frac == layer.formats["c.next"].frac == 10
    (op,) = layer.program.affines
    bits = [product.format.bits for product in layer.constants["i"].products]
    assert dict(zip([str(term.key) for term in op.terms], bits))["i.x"] == 3
    usual = quantized("lstm", "int8").artifact.graph.node("rnn.l1").layer
    assert [p.format.bits for p in usual.constants["i"].products] == [8, 8]


def test_a_scheme_may_be_plain_data():
    layer = layer_of(None, scheme={"*": "fixed16 max", "weight.*": "int5 max", "code.*": "int7 percentile(99)"})
    assert {p.format.bits for p in layer.constants["i"].products} == {5}
    assert {layer.formats[code].bits for code in layer.program.codes} == {7}


def test_the_input_has_the_narrow_format_only_if_all_its_readers_share_it():
    """Numerics, section 1."""
    assert str(quantized("lstm", "int8").artifact.input_format).startswith("int(8")
    torch.manual_seed(0)
    sru, lstm = Only(rindle.SRU(5, 5, batch_first=True)), Only(torch.nn.LSTM(5, HIDDEN, batch_first=True))
    wide = rindle.quantize(sru, "int8", sequences()).artifact.input_format
    assert wide.is_fixed and wide.bits == 16 and not wide.product
    narrow = rindle.quantize(lstm, "fixed8", sequences()).artifact.input_format
    assert (narrow.is_fixed, narrow.bits) == (True, 8)
    model = rindle.quantize(lstm, "int8", sequences(), {"code.i.x": "int6 max"})
    assert model.artifact.input_format.bits == 16
