"""experiments/rezk-2022: the published quantizers and method by their definitions, and the study on tiny models."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent
for name in ("lightning_fabric", "rapidfuzz", "altair", "vl_convert"):
    pytest.importorskip(name, reason=f"the extras `tasks` and `report` are not installed: there is no {name}")
sys.path[:0] = [str(ROOT), str(ROOT / "experiments/rezk-2022")]

import combinations  # noqa: E402
import findings  # noqa: E402
import log as logs  # noqa: E402
import models  # noqa: E402
import products  # noqa: E402
import published  # noqa: E402
import quantizers  # noqa: E402
import rows as grid  # noqa: E402
import run  # noqa: E402
import study  # noqa: E402
import table  # noqa: E402

import rindle  # noqa: E402
from rindle import RindleError  # noqa: E402
from rindle.file.document import to_document  # noqa: E402
from rindle.measure.rezk import executed_by_rules, size_by_rules  # noqa: E402
from rindle.nn.capture.source import run_graph, source_of  # noqa: E402

pytestmark = pytest.mark.fast(0)  # experiments

KINDS = run.KINDS


def captured(kind: str):
    """A tiny model whose batch norms have seen data, its graph, and two sequences of unequal length."""
    network = run.tiny(kind)
    torch.manual_seed(1)
    for layer in network.layers:
        if getattr(layer, "norm", None) is not None:
            layer.norm.running_mean.normal_()
            layer.norm.running_var.uniform_(0.5, 2)
            layer.norm.weight.data.uniform_(0.5, 2)
    graph, _ = source_of(network).capture(np.zeros((12, 1, 40), np.float32))
    return network, graph, [torch.randn(12, 40), torch.randn(7, 40)]


def test_mmse_is_the_best_of_99_thresholds_over_201_bins():
    torch.manual_seed(0)
    values = torch.cat([torch.randn(500), torch.tensor([6.0])])
    mass, edges = np.histogram(values.numpy().astype(np.float64), 201)
    centres = (edges[:-1] + edges[1:]) / 2
    for bits in (2, 4, 8):
        lo, hi = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

        def cost(alpha, lo=lo, hi=hi):
            step = alpha / hi
            q = np.clip(np.round(centres / step), lo, hi) * step
            inside = np.abs(centres) <= alpha
            return (mass * np.where(inside, (centres - q) ** 2, (np.abs(centres) - alpha) ** 2)).sum()

        alphas = [k / 100 * float(values.abs().max()) for k in range(1, 100)]
        found = float(quantizers.mmse(values[None], bits))
        assert cost(found) <= min(map(cost, alphas)) * 1.02
        assert bits == 8 or found < 0.9 * float(values.max())  # the outlier is clipped


def test_codes_use_the_extra_negative_one():
    codes, _ = quantizers.weight_codes(torch.tensor([-1.0, -0.5, 0.0, 0.5, 0.4]), 2)
    assert set(codes.tolist()) <= {-2.0, -1.0, 0.0, 1.0} and codes.min() == -2
    scale = quantizers.scale_of(1.0, 8)
    found = quantizers.vector_codes(torch.tensor([-9.0, -0.5, 0.0, 0.49, 9.0]), scale, 8)
    assert found.tolist() == [-128, -63, 0, 62, 127]  # floor(63.5 - 127 + 0.5) = -63: halves go up


def test_fixed_point_is_of_four_three_or_two_decimals():
    for largest, weights, decimals in ((1.9, True, 4), (1.9, False, 3), (31.0, True, 3), (40.0, False, 2)):
        assert quantizers.decimals_of(largest, weights) == decimals


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_precision_the_simulation_is_the_float_model_and_rows_do_not_touch(kind):
    network, graph, rows = captured(kind)
    gains = study.batch_norms(network, graph)
    assert bool(gains) == (kind != "sru")
    scores, _ = published.Simulation(graph, None, gains=gains).run(rows)
    for one, x in zip(scores, rows):
        torch.testing.assert_close(one, run_graph(graph, x[None])[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_simulation_knows_only_codes_and_comes_nearer_with_bits(kind):
    network, graph, rows = captured(kind)
    exact, _ = published.Simulation(graph, None).run(rows)
    distance = {}
    for row in ("rezk-uniform8", "rezk-uniform4"):
        rules = grid.rules_of(row, "none", graph)
        one = published.Simulation(graph, rules, "clean", study.batch_norms(network, graph))
        one.calibrate(rows)
        for layer in one.layers.values():
            for (gate, source), weight in layer.weights.items():
                top = 2 ** (8 if row == "rezk-uniform8" else 4) / 2
                assert torch.equal(weight, weight.round()) and weight.min() >= -top and weight.max() < top, (
                    gate,
                    source,
                )
        for (
            key,
            largest,
        ) in one.known.largest.items():  # h of the fifth frame, which T is chosen by, is still small here
            one.known.t[key] = max(one.known.t[key], largest)
        scores, densities = one.run(rows)
        distance[row] = max(float((a - b).abs().max()) for a, b in zip(scores, exact))
        assert set(densities) == set(one.held())
    assert distance["rezk-uniform8"] < 0.5 * distance["rezk-uniform4"]


@pytest.mark.parametrize("gate, place", [("i", 0), ("f", 1), ("g", 2), ("o", 3)])
def test_every_gate_has_a_scale_of_its_own_without_the_batch_norm(gate, place):
    """In W, too, whose gates are one matrix here and several in the authors' code."""
    network, graph, rows = captured("lstm")
    with torch.no_grad():
        network.layers[0].input.weight[place * 8 : place * 8 + 8] *= 3.0
    graph, _ = source_of(network).capture(np.zeros((12, 1, 40), np.float32))
    rules = grid.rules_of("rezk-uniform4", "none", graph)
    one = published.Simulation(graph, rules, "max", gains=study.batch_norms(network, graph))
    layer = one.layers["layers.0.l0"]
    raw = network.layers[0].input.weight.detach()[place * 8 : place * 8 + 8]
    codes, scale = quantizers.weight_codes(raw, 4)
    assert layer.scales[gate, "x"] == pytest.approx(scale, rel=1e-4)
    assert (layer.weights[gate, "x"][0] != codes).float().mean() < 0.05  # ties of rounding
    one.calibrate(rows)
    found = {name: one.known.d["layers.0.l0", f"{name}.x"] for name in "ifgo"}
    assert all(found[gate] > 1.5 * value for name, value in found.items() if name != gate)


@pytest.mark.parametrize("kind", KINDS)
def test_what_shares_a_scale(kind):
    """A gate, W's and U's apart; of SRU and of the read-out all of a matrix."""
    _, graph, _ = captured(kind)
    units = {}
    for one in products.products_of(graph):
        units.setdefault((one.node, one.unit), []).append((one.gate, one.source))
    many = {key for key, pairs in units.items() if len(pairs) > 1}
    recurrent = {node.name for node in graph.recurrent}
    assert many == ({(name, "x") for name in recurrent} if kind == "sru" else set())
    roles = {(one.node, one.role) for one in products.products_of(graph)}
    assert ("output", "fc") in roles
    if kind == "sru":
        assert ("layers.1.project", "h") in roles
    else:
        assert all((name, role) in roles for name in recurrent for role in "xh")


def test_theta_zero_changes_nothing_and_larger_thresholds_eliminate_more():
    _, graph, rows = captured("gru")
    rules = grid.rules_of("rezk-uniform8", "all", graph)
    one = published.Simulation(graph, rules, "clean")
    one.calibrate(rows)
    dense, densities = one.run(rows)
    zero, _ = one.run(rows, dict.fromkeys(one.held(), 0))
    held, fewer = one.run(rows, dict.fromkeys(one.held(), 60))
    assert all(torch.equal(a, b) for a, b in zip(dense, zero))
    assert any(not torch.equal(a, b) for a, b in zip(dense, held))
    assert all(fewer[key] < densities[key] for key in fewer)
    less, more = (executed_by_rules(graph, rules, one.by_node(found)) for found in (fewer, densities))
    assert less < more
    with pytest.raises(RindleError, match=r"no vector .*'rh'.* can be held"):
        one.run(rows, {("layers.0.l0", "rh"): 1})  # its only product is skipped


def test_maxima_are_matched_to_the_float_model():
    """Of W·x over a sequence: the largest product of every gate is D, the median of the float model's."""
    _, graph, rows = captured("lstm")
    one = published.Simulation(graph, grid.rules_of("rezk-uniform4", "none", graph), "max")
    one.calibrate(rows[:1])
    found, layer = [], one.layers["layers.0.l0"]
    original = layer._matched
    layer._matched = lambda pairs, y: found.append((pairs, original(pairs, y))) or found[-1][1]
    one.run(rows[1:])
    pairs, y = found[0]
    wanted = [one.known.d["layers.0.l0", layer.products[p].unit] for p in pairs]
    assert y.abs().amax((0, 1, 2, 4)).tolist() == pytest.approx(wanted, rel=1e-5)


def test_the_published_combinations_are_22_of_8_bits_and_15_of_4():
    _, graph, _ = captured("lstm")
    for row, count in (("rezk-uniform8", 22), ("rezk-uniform4", 15)):
        held = published.Simulation(graph, grid.rules_of(row, "none", graph)).held()
        found = combinations.combinations(graph, held)
        assert len(found) == count and not any(found[0].values())
        assert not any(layer == "layers.0.l0" for thetas in found for layer, _ in thetas)


@pytest.mark.parametrize("kind, skipped", [("lstm", 1 / 4), ("gru", 1 / 3), ("ligru", 1 / 2), ("sru", 0)])
def test_a_skipped_path_is_this_share_of_the_recurrent_weights(kind, skipped):
    _, graph, _ = captured(kind)
    rules = grid.rules_of("rezk-m8", "all", graph)
    recurrent = [one for one in products.products_of(graph) if one.role == "h"]

    def weights(chosen):
        return sum(graph.node(p.node).layer.blocks[f"{p.gate}.{p.source}"].numel() for p in chosen)

    wide = [p for p in recurrent if rules[p.node, f"weight.{p.gate}.{p.source}"].bits == 16]
    assert weights(wide) == skipped * weights(recurrent)
    one = published.Simulation(graph, rules)
    assert sum(map(len, (layer.skipped for layer in one.layers.values()))) == len(wide) / 2  # directions side by side


# By the formula that the experiment had of its own before the package's: row M1 and uniform8, skip none and all.
COMPRESSION = {
    "lstm": (74.8, 72.5, 92.6, 88.4),
    "gru": (74.9, 71.8, 92.7, 87.4),
    "ligru": (74.9, 70.3, 92.6, 84.6),
    "sru": (74.0, 74.0, 89.5, 89.5),
}


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_of_the_small_models_by_the_published_formula(kind):
    torch.manual_seed(0)
    network = models.network(kind, "small").eval()
    graph, _ = source_of(network).capture(np.zeros((12, 1, 40), np.float32))
    found = [
        100 * size_by_rules(graph, grid.rules_of(row, skip, graph)).compression
        for row in ("rezk-uniform8", "rezk-m1")
        for skip in ("none", "all")
    ]
    assert found == pytest.approx(COMPRESSION[kind], abs=0.051)


@pytest.mark.parametrize("row", ["w3-fc4", "w5", "rezk-m1"])
def test_own_rows_are_rules_that_quantize_takes_with_a_scale_for_every_row_of_a_matrix(row):
    network, graph, rows = captured("gru")
    scheme, words = grid.scheme_of(row, "none", graph), grid.overrides_of(row, "none", graph, "rindle gptq")
    assert bool(words) == (row != "w5") and all(rule.endswith(" gptq") for rule in words.values())
    deployed, few = models.deploy(network), {"w3-fc4": 3, "w5": 5, "rezk-m1": 2}[row]
    made = rindle.quantize(deployed, scheme, [x[:, None] for x in rows], words or None).artifact
    bits = {}
    for node in made.graph.programs:
        for op in node.layer.program.affines:
            for term, product in zip(op.terms, node.layer.constants[op.out[0]].products):
                bits.setdefault((node.name, term.source), set()).add(product.format.bits)
    assert bits["layers.0.l0", "x"] == {8} and bits["layers.0.l0", "h"] == bits["layers.1.l0", "x"] == {few}
    assert bits["output", "x"] == ({4} if "fc4" in row else {8})
    _, tensors = to_document(made)
    weights = [name for name in tensors if name.rpartition("/")[2].startswith("weight.")]
    matrices = [name for name in weights if not name.endswith((".multiplier", ".scales"))]
    assert matrices and all(len(tensors[f"{name}.scales"]) == len(tensors[name]) > 1 for name in matrices)


def test_a_front_has_no_point_that_another_beats():
    points = [{"error": e, "eliminated": x} for e, x in ((3, 0.5), (1, 0.2), (2, 0.6), (2, 0.1), (4, 0.6))]
    assert [(p["error"], p["eliminated"]) for p in combinations.pareto(points)] == [(1, 0.2), (2, 0.6)]


# ----------------------------------------------------------------------------------------------------- findings


def cell(method, row, part, errors, size=100.0, eliminated=0.1, weights="w", **more):
    """Of 40 utterances with 25 phones each. errors: of each utterance, the same everywhere."""
    key = {"model": "gru", "weights": weights, "method": method, "part": part, "utterances": [4, 40]}
    key |= ({} if method == "float" else {"row": row, "skip": "none"}) | more
    found = {"key": key, "errors": [errors] * 40, "lengths": [25] * 40, "error": errors / 25, "frame error": 0.3}
    if method != "float":
        found |= {"bytes": size, "compression": 1 - size / 400, "eliminated": eliminated}
    return found


CELLS = [
    cell("float", "", "search", 10),
    cell("published", "a", "search", 10, 100),
    cell("published", "b", "search", 10.5, 50),  # 2 points above float
    cell("published", "a", "search", 9, 10, rescale="max"),  # matched maxima do not count
    cell("rindle", "a", "search", 10, 100),
    cell("rindle gptq", "c", "search", 10.25, 40),
    cell("rindle", "b", "search", 14, 20),
    cell("float", "", "test", 10),
    cell("published", "a", "test", 10, 100, 0.2),
    cell("published", "b", "test", 11, 50, 0.2),
    cell("rindle gptq", "c", "test", 10, 40, 0.3),
    cell("rindle", "a", "test", 10, 100, 0.3),
    cell("published", "a", "test", 11, 100, 0.6, thetas={"x": 8}),
    cell("rindle", "a", "test", 10.5, 100, 0.7, thetas={"x": 4}),
    cell("rindle", "a", "test", 12, 100, 0.9, thetas={"x": 8}),
]


@pytest.mark.parametrize("budget, theirs, ours", [(0.0, 100, 100), (0.99, 100, 100), (1.0, 100, 40), (2.0, 50, 40)])
def test_the_smallest_within_a_budget_and_its_margin(budget, theirs, ours):
    (entry,) = findings.sizes(CELLS, (budget,))
    assert (entry["published"]["bytes"], entry["rindle"]["bytes"]) == (theirs, ours)
    assert entry["smaller, %"] == pytest.approx(100 * (1 - ours / theirs))
    assert entry["compression, points"] == pytest.approx(100 * (theirs - ours) / 400)
    assert entry["error against published"]["mean"] == {50: -4.0, 100: 0.0}[theirs]


def test_nothing_within_the_budget_is_no_margin():
    cells = [one for one in CELLS if one["key"]["method"] != "published"] + [cell("published", "a", "search", 20)]
    (entry,) = findings.sizes(cells, (1.0,))
    assert entry["published"] is None and "smaller, %" not in entry


def test_eliminated_at_equal_error():
    found = findings.eliminations(CELLS, "a", "none", budgets=(0.0, 2.0, 4.0, 100.0))
    dense, held = found["beside"]
    assert dense["more, points"] == pytest.approx(10) and held["more, points"] == pytest.approx(10)
    assert held["error against published"]["mean"] == -2.0  # ours with 10.5 errors beside 11
    ours = [entry["rindle"] for entry in found["at"]]
    assert ours == pytest.approx([0.3, 0.7, 0.7 + 0.2 / 3, 0.9])  # on the lines between the points
    assert [entry["published"] for entry in found["at"]] == pytest.approx([0.2, 0.4, 0.6, 0.6])
    worse = [one | {"error": one["error"] + 1} if one["key"]["method"] == "rindle" else one for one in CELLS]
    entry = findings.eliminations(worse, "a", "none")["beside"][0]
    assert entry["rindle"] is None and "more, points" not in entry


def test_a_method_beside_itself_has_no_margin():
    renamed = [one | {"key": one["key"] | {"method": "rindle"}} for one in CELLS if findings.of_side(one, "published")]
    cells = [one for one in CELLS if not findings.of_side(one, "rindle")] + renamed
    assert all(entry["smaller, %"] == 0 for entry in findings.sizes(cells))
    assert all(entry["more, points"] == 0 for entry in findings.eliminations(cells, "a", "none")["beside"])


def test_the_choice_within_a_budget_eliminates_most():
    walk = {"points": [{"lost": a, "eliminated": b} for a, b in ((-0.1, 0.1), (0.3, 0.5), (0.9, 0.7), (1.9, 0.8))]}
    assert [findings.at_budget(walk, one)["eliminated"] for one in (0.0, 0.5, 1.0, 2.0)] == [0.1, 0.5, 0.7, 0.8]


def test_cells_of_other_weights_and_other_utterances_are_left_out():
    old, few = cell("float", "", "search", 1, weights="old"), cell("float", "", "test", 2)
    few["key"] = few["key"] | {"utterances": [4, 7]}
    assert findings.current([old, few, *CELLS]) == CELLS and findings.current([]) == []


# --------------------------------------------------------------------------------------------------- the study


def test_a_log_makes_no_cell_twice_and_survives_a_torn_line(tmp_path):
    log = logs.Log(tmp_path / "log")
    log.cell({"a": 1}, lambda: {"error": 0.5})
    with (tmp_path / "log").open("a") as file:
        file.write('{"key": {"a": 2}, "err')  # killed while it was written
    again = logs.Log(tmp_path / "log")
    assert again.cell({"a": 1}, lambda: pytest.fail("made again"))["error"] == 0.5
    assert again.cell({"a": 2}, lambda: {"error": 0.25})["error"] == 0.25
    assert len((tmp_path / "log").read_text().splitlines()) == 2
    (tmp_path / "log").write_text("{}\n")
    with pytest.raises(RindleError, match=r"line 1 of .* is no finished cell"):
        logs.Log(tmp_path / "log")


@pytest.mark.filterwarnings(
    "ignore:.*its steps grow:rindle.errors.RindleWarning"
)  # of skipped paths beside 2-bit weights
def test_the_quick_study_runs(tmp_path):
    page, output = tmp_path / "report.html", tmp_path / "results.json"
    results = run.main(["--quick", "--models", "gru", "sru", "--output", str(output), "--report", str(page)])
    assert json.loads(output.read_text()) == results
    for kind in ("gru", "sru"):
        one = results["models"][kind]
        assert {cell["key"]["method"] for cell in one["cells"]} == {"float", *grid.METHODS[:3]}
        for found in one["cells"]:
            if "compression" in found:
                assert 0 < found["compression"] < 1 and -1e-9 <= found["eliminated"] <= 1
        walked = [c for c in one["cells"] if "thetas" in c["key"] and c["key"]["method"] == "rindle"]
        assert {c["key"]["part"] for c in walked} == {"search", "test"}
        dense = [c for c in one["cells"] if c["key"].get("row") == "rezk-uniform8" and "thetas" not in c["key"]]
        assert all(c["eliminated"] > dense[0]["eliminated"] for c in walked)
        assert one["eliminated at equal error"]["beside"] and len(one["size at equal error"]) == 3
    text = "\n".join(table.markdown(results))
    assert text.count("| GRU |") > 20 and "chosen" in text
    assert page.read_text().count("<table>") == page.read_text().count("</table>") == text.count("\n|---|") > 8
    assert "<svg" in page.read_text()
