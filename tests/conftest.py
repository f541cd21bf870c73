import os

import pytest
import torch
from hypothesis import HealthCheck, settings
from support import ENGINES, TorchModel, quantized

from rindle import CELLS, SCHEMES

# `everything` is the default, and what CI runs: the same examples every time. HYPOTHESIS_PROFILE=search draws new ones.
common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("everything", derandomize=True, database=None, **common)
settings.register_profile("search", **common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "everything"))
torch.set_num_threads(1)


@pytest.fixture(params=CELLS)
def cell(request):
    """The name of every cell."""
    return request.param


@pytest.fixture(params=SCHEMES)
def scheme(request):
    """The name of every scheme."""
    return request.param


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
