"""experiments/rapuano-2022: its methods are schemes that convert, and its page says what was measured."""

import importlib.util
import json
from pathlib import Path

import pytest
from support import TorchModel, sequences

import rindle

pytestmark = pytest.mark.fast(1)  # experiments

HOME = Path(__file__).parents[1] / "experiments" / "rapuano-2022"


def module(name: str):
    """By its path: other experiments have files of the same names."""
    spec = importlib.util.spec_from_file_location(f"rapuano_{name}", HOME / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


methods, table = module("methods"), module("table")


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_has_the_bits_that_it_says(name, cell):
    scheme, overrides = methods.METHODS[name](4, 6)
    model = rindle.quantize(TorchModel(cell).eval(), scheme, sequences(), overrides)
    assert model.disagreements(model.replay()) == 0
    for node in model.artifact.graph.recurrent:
        for op in node.layer.program.affines:
            for term, product in zip(op.terms, node.layer.constants[op.out[0]].products):
                assert product.format.bits == (8 if name == "recurrent" and term.source != "h" else 4)
                assert node.layer.formats[term.code].bits == 6


def test_the_tables_are_those_of_the_results():
    text = (HOME / "README.md").read_text()
    assert table.BEGIN + table.tables() + table.END in text
    measured = {
        (row["subject"], row["method"], row["w"], row["a"]) for row in json.loads((HOME / "results.json").read_text())
    }
    for subject, rows in methods.ROWS.items():
        assert {(subject, *row) for row in rows} <= measured
