"""``rindle.data``: the documented name of :mod:`rindle.tasks.data`, whose loaders it stands for."""

import sys

from .tasks import data

sys.modules[__name__] = data
