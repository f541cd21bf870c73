"""What Rindle raises and warns of, and the one text that says how to install what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution

DISTRIBUTION = "rindle-rnn"  # the package index has another project under the name of our import


class RindleError(ValueError):
    """What Rindle raises about its input: one message that names the thing, the value and the remedy."""


class RindleWarning(UserWarning):
    """Something legal that the user will want to know: a constant path, an all-zero weight row."""


def install_hint(extra: str) -> str:
    """How to install Rindle with an extra, or several ("torch,demo"). It is not on a package index yet."""
    return f"""pip install -e ".[{extra}]" in a checkout of Rindle, or "rindle_rnn-….whl[{extra}]" from a wheel"""


def missing(what: str, package: str | None, extra: str) -> RindleError:
    """The error where ``what`` needs a package that is not installed and comes with an extra."""
    return RindleError(f"{what} needs {package}: {install_hint(extra)}")


@contextmanager
def needs(what: str, extra: str) -> Iterator[None]:
    """Makes an import inside that finds no package one RindleError, which says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "rindle").split(".")[0] == "rindle":  # a fault of ours
            raise
        raise missing(what, error.name, extra) from None


def other_project() -> str | None:
    """A sentence to warn with where the other project that is imported as ``rindle`` is installed as well."""
    try:
        found = distribution("rindle")
    except PackageNotFoundError:
        return None
    return (
        f"the distribution 'rindle' {found.version} is installed too: it is another project with the same import name, and the "
        f"two overwrite each other. Uninstall both, then install {DISTRIBUTION} again (pip uninstall rindle {DISTRIBUTION})"
    )
