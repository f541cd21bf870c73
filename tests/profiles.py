"""How many examples a law is tried on: HYPOTHESIS_PROFILE is `quick` (`make check`), `usual` (`make test`; the default) or
`everything` (`make everything`). The first two try the same examples every time, the last one draws new ones.
"""

import os

from hypothesis import HealthCheck, settings

PROFILES = {"quick": 0.1, "usual": 1, "everything": 20}  # times the number that a law asks for
NAME = os.environ.get("HYPOTHESIS_PROFILE", "usual")
if NAME not in PROFILES:
    raise SystemExit(f"HYPOTHESIS_PROFILE is {NAME!r}; there are {', '.join(PROFILES)}")

AT_LEAST = 5


def count(usual: int) -> int:
    """The number of examples under this profile, given the usual one."""
    return max(AT_LEAST, round(usual * PROFILES[NAME]))


def examples(usual: int):
    """Decorates a law that usually wants so many examples."""
    return settings(max_examples=count(usual))


# Laws that ask for no number have hypothesis's own 100.
anew = {} if NAME == "everything" else {"derandomize": True, "database": None}
calm = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(NAME, max_examples=count(100), deadline=None, suppress_health_check=calm, **anew)
settings.load_profile(NAME)
