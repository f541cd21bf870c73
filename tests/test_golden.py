"""Files of every released format version load and compute what they did when they were written."""

from pathlib import Path

import numpy as np
import pytest
from support import CELLS, KERNELS, assert_agree, assert_equal

import rindle
from rindle.program.nodes import NODES, ProgramNode

FILES = sorted((Path(__file__).parent / "golden").glob("*.rindle"))


SAVED = 5  # frames of the golden vector's first row after which NAME.state was saved


def models_of(path):
    """The file's model, or those that are its parts."""
    model = rindle.load(path)
    return list(model.parts.values()) or [model]


def test_there_is_one_of_every_cell_and_of_every_kind_of_graph():
    names = {path.name for path in FILES}
    cells = {name.removesuffix(".rindle").partition("-")[2] for name in names}
    assert set(CELLS) <= cells
    assert {f"v1-{name}.rindle" for name in ("lstm", "gru", "sru")} <= names
    assert {f"v2-{name}.rindle" for name in ("bidirectional", "mixed", "words")} <= names
    assert "v4-parts.rindle" in names
    nodes = [node for path in FILES for model in models_of(path) for node in model.artifact.graph.nodes]
    assert {node.kind for node in nodes} == set(NODES)
    assert any(isinstance(node, ProgramNode) and node.reverse for node in nodes)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_released_file_computes_what_it_did(path):
    for model in models_of(path):
        golden = model.artifact.golden
        found = assert_agree(model.artifact, golden.inputs, golden.lengths)
        assert_equal(model.artifact, found.output, golden.outputs)


def test_the_parts_of_a_file_are_what_they_are_alone():
    model = rindle.load(FILES[0].parent / "v4-parts.rindle")
    files = {"encoder": "v2-bidirectional", "predictor": "v2-words", "joiner": "v3-every_kind"}
    alone = {name: rindle.load(FILES[0].parent / f"{file}.rindle") for name, file in files.items()}
    assert {name: (part.id, part.data) for name, part in model.parts.items()} == {
        name: (one.id, one.data) for name, one in alone.items()
    }
    assert model.id == "f1eb737501808aa4a2ab250a7cf92c0ec53b7cb4d2649db3e0567dc7df466139"


def test_there_is_a_state_of_every_file_that_streams():
    streaming = [
        path.stem
        for path in FILES
        if len(models_of(path)) == 1 and rindle.load(path).artifact.graph.whole_sequence is None
    ]
    assert {path.stem for path in FILES[0].parent.glob("*.state")} == set(streaming) and len(streaming) > 15


@pytest.mark.parametrize("path", sorted(FILES[0].parent.glob("*.state")), ids=lambda path: path.stem)
def test_a_released_state_is_what_a_stream_saves_now_and_goes_on_as_it_did(path):
    for kernel in KERNELS:
        model = rindle.load(path.with_suffix(".rindle"), kernel=kernel)
        golden, state = model.artifact.golden, path.read_bytes()
        before, after = model.stream(), model.stream()
        for frame in golden.inputs[0, :SAVED]:
            before.step_codes(frame)
        assert before.save() == state
        after.restore(state)
        found = [after.step_codes(frame) for frame in golden.inputs[0, SAVED : golden.lengths[0]]]
        wanted = golden.outputs[0, SAVED : golden.lengths[0]] if model.is_sequence else golden.outputs[:1]
        np.testing.assert_array_equal(found[-len(wanted) :], wanted)
