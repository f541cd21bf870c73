"""Files of every released format version load and compute what they did when they were written."""

from pathlib import Path

import pytest
from support import CELLS, assert_agree, assert_equal

import rindle
from rindle.program.nodes import NODES, ProgramNode

FILES = sorted((Path(__file__).parent / "golden").glob("*.rindle"))


def test_there_is_one_of_every_cell_and_of_every_kind_of_graph():
    names = {path.name for path in FILES}
    cells = {name.removesuffix(".rindle").partition("-")[2] for name in names}
    assert set(CELLS) <= cells
    assert {f"v1-{name}.rindle" for name in ("lstm", "gru", "sru")} <= names
    assert {f"v2-{name}.rindle" for name in ("bidirectional", "mixed", "words")} <= names
    nodes = [node for path in FILES for node in rindle.load(path).artifact.graph.nodes]
    assert {node.kind for node in nodes} == set(NODES)
    assert any(isinstance(node, ProgramNode) and node.reverse for node in nodes)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_released_file_computes_what_it_did(path):
    model = rindle.load(path)
    golden = model.artifact.golden
    found = assert_agree(model.artifact, golden.inputs, golden.lengths)
    assert_equal(model.artifact, found.output, golden.outputs)
