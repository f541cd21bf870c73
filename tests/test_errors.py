"""The hint that says how to install what is missing, and the warning of the other project of our import name."""

import subprocess
import sys

import pytest

from rindle.errors import RindleError, install_hint, needs

METADATA = "Metadata-Version: 2.1\nName: rindle\nVersion: 9.9\n"


def test_a_missing_package_is_one_line_with_the_extra_that_brings_it():
    with pytest.raises(
        RindleError, match=r"the page needs no_such_package: pip install -e \"\.\[report\]\" in a checkout"
    ):
        with needs("the page", "report"):
            import no_such_package  # noqa: F401


def test_a_module_of_ours_that_is_missing_is_no_hint():
    with pytest.raises(ModuleNotFoundError):
        with needs("the page", "report"):
            import rindle.no_such_module  # noqa: F401


def test_no_hint_names_the_other_project_of_the_package_index():
    assert "pip install rindle" not in install_hint("torch").replace("'", "").replace('"', "")


def test_importing_warns_where_the_other_project_is_installed(tmp_path):
    (tmp_path / "rindle-9.9.dist-info").mkdir()
    (tmp_path / "rindle-9.9.dist-info/METADATA").write_text(METADATA)
    code = f"import sys, warnings; sys.path.append({str(tmp_path)!r}); warnings.simplefilter('error'); import rindle"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "pip uninstall rindle rindle-rnn" in done.stderr, done.stderr
    silent = subprocess.run([sys.executable, "-W", "error", "-c", "import rindle"], capture_output=True, text=True)
    assert silent.returncode == 0, silent.stderr
