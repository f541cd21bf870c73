import os
import re
from pathlib import Path

import profiles  # noqa: F401  how many examples hypothesis tries
import pytest
import torch
from support import CASES, ENGINES, EVERY_CELL, TorchModel, quantized

from rindle import SCHEMES

# Data sets come from RINDLE_DATA_MIRROR, else from a folder shared/data beside the checkout; tests that want some are skipped
# where there is neither. They are unpacked into build/, not into the user's cache.
ROOT = Path(__file__).parent.parent
if "RINDLE_DATA_MIRROR" not in os.environ and (ROOT.parent / "shared/data").is_dir():
    os.environ["RINDLE_DATA_MIRROR"] = str(ROOT.parent / "shared/data")
os.environ.setdefault("RINDLE_DATA_CACHE", str(ROOT / "build/data"))
torch.set_num_threads(int(os.environ.get("RINDLE_TEST_THREADS", "1")))  # of torch: `make everything` tries two, too


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks as ``slow``, which `make check` leaves out, all cases of a test but as many as its ``fast`` mark says, spread over
    them: ``@pytest.mark.fast(2)``. A module's ``pytestmark = pytest.mark.fast(0)`` holds for its tests that have none.
    """
    tests = {}
    for item in items:
        if mark := item.get_closest_marker("fast"):
            tests.setdefault((item.path, item.originalname), (mark.args[0], []))[1].append(item)
    for kept, cases in tests.values():
        fast = {k * len(cases) // kept for k in range(kept)}
        for number, item in enumerate(cases):
            if number not in fast:
                item.add_marker("slow")


def pytest_generate_tests(metafunc):
    """A test that takes ``cell`` runs for every cell, one that takes ``scheme`` for every scheme; of both, and of both and
    ``head``, for what CASES has.
    """
    marks = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    given = {name for names in marks for name in (re.split(", *", names) if isinstance(names, str) else names)}
    names = [name for name in ("cell", "scheme", "head") if name in metafunc.fixturenames and name not in given]
    tables = {("cell",): list(EVERY_CELL), ("scheme",): list(SCHEMES), ("cell", "scheme", "head"): CASES}
    tables["cell", "scheme"] = list(dict.fromkeys(case[:2] for case in CASES))
    if names:
        metafunc.parametrize(names if len(names) > 1 else names[0], tables[tuple(names)])


@pytest.fixture(params=ENGINES)
def engine(request):
    return ENGINES[request.param]


@pytest.fixture
def artifact(cell, scheme):
    """Two layers of the cell between two Linears, with random weights, quantized through the public face."""
    return quantized(cell, scheme).artifact


@pytest.fixture
def model(cell):
    return quantized(cell, "int8")


@pytest.fixture
def torch_model():
    torch.manual_seed(1)
    return TorchModel("gru").eval()
