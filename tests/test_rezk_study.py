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
import grid  # noqa: E402
import published  # noqa: E402
import quantizers  # noqa: E402
import run  # noqa: E402
import study  # noqa: E402
import table  # noqa: E402

from rindle import RindleError  # noqa: E402
from rindle.nn.source import run_graph, source_of  # noqa: E402

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
    found = quantizers.vector_codes(torch.tensor([-9.0, -0.5, 0.0, 0.49, 9.0]), 1.0, 8)
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
    for row in ("uniform8", "uniform4"):
        one = published.Simulation(graph, grid.Precision(row), "clean", study.batch_norms(network, graph))
        one.calibrate(rows)
        for layer in one.layers.values():
            for (gate, source), weight in layer.weights.items():
                top = 2 ** (8 if row == "uniform8" else 4) / 2
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
    assert distance["uniform8"] < 0.5 * distance["uniform4"]


def test_a_batch_norm_is_taken_out_of_the_weights_that_are_quantized():
    network, graph, _ = captured("lstm")
    one = published.Simulation(graph, grid.Precision("uniform8"), gains=study.batch_norms(network, graph))
    layer = one.layers["layers.0.l0"]
    raw = network.layers[0].input.weight.detach().split(8)[2]  # gate g
    torch.testing.assert_close(layer.weights["g", "x"][0], quantizers.weight_codes(raw, 8)[0], rtol=0, atol=1.0)
    assert (layer.weights["g", "x"][0] != quantizers.weight_codes(raw, 8)[0]).float().mean() < 0.05  # ties of rounding


def test_theta_zero_changes_nothing_and_larger_thresholds_eliminate_more():
    _, graph, rows = captured("gru")
    precision = grid.Precision("uniform8", "all")
    one = published.Simulation(graph, precision, "clean")
    one.calibrate(rows)
    dense, densities = one.run(rows)
    zero, _ = one.run(rows, dict.fromkeys(one.held(), 0))
    held, fewer = one.run(rows, dict.fromkeys(one.held(), 60))
    assert all(torch.equal(a, b) for a, b in zip(dense, zero))
    assert any(not torch.equal(a, b) for a, b in zip(dense, held))
    assert all(fewer[key] < densities[key] for key in fewer)
    assert grid.eliminated(graph, precision, fewer) > grid.eliminated(graph, precision, densities)
    with pytest.raises(RindleError, match=r"no vector .*'rh'.* can be held"):
        one.run(rows, {("layers.0.l0", "rh"): 1})  # its only product is skipped


def test_maxima_are_matched_to_the_float_model():
    """Of W·x over a sequence: the largest product of every gate is D, the median of the float model's."""
    _, graph, rows = captured("lstm")
    one = published.Simulation(graph, grid.Precision("uniform4"), "max")
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
    for row, count in (("uniform8", 22), ("uniform4", 15)):
        held = published.Simulation(graph, grid.Precision(row)).held()
        found = combinations.combinations(graph, held)
        assert len(found) == count and not any(found[0].values())
        assert not any(layer == "layers.0.l0" for thetas in found for layer, _ in thetas)


@pytest.mark.parametrize("kind, skipped", [("lstm", 1 / 4), ("gru", 1 / 3), ("ligru", 1 / 2), ("sru", 0)])
def test_a_skipped_path_is_this_share_of_the_recurrent_weights(kind, skipped):
    _, graph, _ = captured(kind)
    counted = grid.counts(graph, grid.Precision("M8", "all"))
    recurrent = [one for one in counted if one.product.role == "h"]
    assert sum(one.weights for one in recurrent if one.skipped) == skipped * sum(one.weights for one in recurrent)
    assert all(one.bits == 16 for one in counted if one.skipped)
    weights = sum(p.numel() for name, p in run.tiny(kind).named_parameters() if p.ndim > 1 and "bias" not in name)
    peep = sum(layer.peep.numel() for layer in run.tiny(kind).layers if hasattr(layer, "peep"))
    assert sum(one.weights for one in counted) == weights - peep  # shared directions once


def test_a_front_has_no_point_that_another_beats():
    points = [{"error": e, "eliminated": x} for e, x in ((3, 0.5), (1, 0.2), (2, 0.6), (2, 0.1), (4, 0.6))]
    assert [(p["error"], p["eliminated"]) for p in combinations.pareto(points)] == [(1, 0.2), (2, 0.6)]


@pytest.mark.filterwarnings(
    "ignore:.*its steps grow:rindle.formats.RindleWarning"
)  # of skipped paths beside 2-bit weights
def test_the_quick_study_runs_and_a_finished_cell_is_not_made_again(tmp_path, monkeypatch):
    page, output = tmp_path / "report.html", tmp_path / "results.json"
    results = run.main(["--quick", "--models", "gru", "sru", "--output", str(output), "--report", str(page)])
    assert json.loads(output.read_text()) == json.loads(json.dumps(results))
    for kind in ("gru", "sru"):
        methods = {cell["key"]["method"] for cell in results["models"][kind]["cells"]}
        assert methods == {"float", "published", "rindle"}
        assert set(results["models"][kind]["chosen"]) == {"published", "rindle"}
    text = "\n".join(table.markdown(results))
    assert text.count("| GRU |") > 10 and "chosen" in text
    assert "<svg" in page.read_text()
    log = study.Log(tmp_path / "log")
    log.cell({"a": 1}, lambda: {"error": 0.5})
    with (tmp_path / "log").open("a") as file:
        file.write('{"key": {"a": 2}, "err')  # killed while it was written
    again = study.Log(tmp_path / "log")
    assert again.cell({"a": 1}, lambda: pytest.fail("made again"))["error"] == 0.5
    assert again.cell({"a": 2}, lambda: {"error": 0.25})["error"] == 0.25
    assert len((tmp_path / "log").read_text().splitlines()) == 2
