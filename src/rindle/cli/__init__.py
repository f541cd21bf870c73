"""The command line. It knows both sides, and loads torch only inside the verbs that need it. One file per verb."""

from __future__ import annotations

import sys

from ..errors import RindleError, missing

try:
    from . import (  # noqa: F401  each adds its verb; to add one: its file, and its name here
        bench,
        delta,
        demo,
        eval,
        export,
        inspect,
        quantize,
        report,
        run,
        search,
        sensitivity,
        sweep,
        verify,
    )
    from .app import app
except ModuleNotFoundError as error:  # the library itself runs without typer and rich
    if (error.name or "rindle").split(".")[0] == "rindle":  # a fault of ours, and no missing package
        raise
    sys.exit(str(missing("the rindle command", error.name, "cli")))


def main() -> None:
    """Console entry point: one line for what the user can mend, exit code 2."""
    try:
        app()
    except RindleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
