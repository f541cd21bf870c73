import os
import re

import pytest
import torch
from hypothesis import HealthCheck, settings
from support import CASES, ENGINES, EVERY_CELL, TorchModel, quantized

from rindle import SCHEMES

# `everything` is the default, and what CI runs: the same examples every time. HYPOTHESIS_PROFILE=search draws new ones.
common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("everything", derandomize=True, database=None, **common)
settings.register_profile("search", **common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "everything"))
torch.set_num_threads(1)


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
