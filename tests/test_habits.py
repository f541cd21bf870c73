"""What a release needs stands in several files, and they say the same; the tools that measure the tests work."""

import re
import subprocess
import tomllib

import counts
import everything
import profiles
from support import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_version_is_one():
    assert re.search(r"(?m)^version: (.*)$", (ROOT / "CITATION.cff").read_text())[1] == VERSION
    assert (
        f"({VERSION})" in (ROOT / "CHANGELOG.md").read_text() or f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()
    )


def test_the_changelog_has_the_sections_of_keep_a_changelog():
    headings = re.findall(r"(?m)^#+ .*$", (ROOT / "CHANGELOG.md").read_text())
    assert headings[:2] == ["# Changelog", f"## Unreleased ({VERSION})"]
    for heading in headings[2:]:
        assert re.fullmatch(
            r"### (Added|Changed|Deprecated|Removed|Fixed|Security)|## \d+\.\d+\.\d+ – \d{4}-\d\d-\d\d", heading
        )


def test_help_lists_every_target():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (targets,) = re.findall(r"(?m)^\.PHONY: (.*)$", (ROOT / "Makefile").read_text())
    assert re.findall(r"make ([\w-]+) ", listed) == targets.split()


def test_the_list_of_everything_has_the_matrices():
    steps = everything.steps()
    names = [step.name for step in steps]
    assert len(set(names)) == len(names) and all(step.why and step.words for step in steps)
    environments = {key for step in steps for key in step.environment}
    assert {"RINDLE_KERNEL", "ATEN_CPU_CAPABILITY", "RINDLE_TEST_THREADS", "HYPOTHESIS_PROFILE"} <= environments


def test_the_page_has_the_blocks_that_are_written():
    page = counts.PAGE.read_text()
    for mark in (counts.BEGIN, counts.END, everything.BEGIN, everything.END):
        assert page.count(mark) == 1
    tried = counts.examples()
    assert tried["quick"] < tried["usual"] < tried["everything"] and tried["laws"] > 30


def test_a_profile_scales_the_examples_of_a_law():
    assert profiles.count(100) == max(profiles.AT_LEAST, 100 * profiles.PROFILES[profiles.NAME])
    assert profiles.count(1) >= profiles.AT_LEAST
