"""Memory of long rows: a model that streams takes none for them; another takes its nodes' values, and gives them back."""

import json
import subprocess
import sys

import pytest
from support import ROOT

FRAMES = 300_000
RUN = """
import json, re, sys
import numpy as np
import rindle

def memory(what):  # not of getrusage, which begins with the parent's
    return int(re.search(what + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

model = rindle.load(sys.argv[1])
frames = int(sys.argv[2])
graph = model.artifact.graph
x = np.full((1, frames, model.input_size), 0.1, np.float32)
model.run(x[:, :50])
room = np.full((1, frames, model.output_size), 0.1, np.float32)  # what the output takes, whether or not it is a sequence
before = memory("VmHWM")
del room
y = model.run(x)
print(json.dumps({
    "grown": memory("VmHWM") - before,
    "kept": memory("VmRSS") - before,
    "values": frames * sum(graph.size_of(node.name) for node in graph.nodes),
}))
"""


def measured(name: str) -> dict:
    """Bytes by which the peak grew in the run of one long row, in a process of its own, and values of all nodes in it."""
    words = [sys.executable, "-c", RUN, ROOT / f"tests/golden/{name}.rindle", str(FRAMES)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("name", ["v1-lstm_cifg", "v1-sru", "v3-convlstm"])
def test_a_model_that_streams_takes_no_memory_for_a_longer_row(name):
    assert measured(name)["grown"] < 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("name", ["v2-bidirectional", "v2-mixed"])
def test_a_model_of_whole_rows_takes_at_most_four_bytes_a_value_and_gives_them_back(name):
    found = measured(name)
    assert found["values"] / 2 < found["grown"] < 4 * found["values"]
    assert found["kept"] < 2**20
