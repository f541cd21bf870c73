# Two commands: `make demo` and `make test`. Each sets itself up in .venv from pinned constraints.
PYTHON ?= python3.11
VENV := .venv
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check
CORE := CMakeLists.txt pyproject.toml constraints.txt $(wildcard core/*/*.cc core/*/*.h)

.PHONY: demo test lint core-test clean

demo: $(VENV)/demo
	$(VENV)/bin/rindle demo

test: $(VENV)/test lint core-test
	$(VENV)/bin/python -m pytest -q -rs -n 2

lint: $(VENV)/test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# The core alone: built without Python, under the sanitizers, with its own tests and its replay program.
core-test: $(VENV)/test
	$(VENV)/bin/python tests/core.py

$(VENV)/python:
	$(PYTHON) -m venv $(VENV)
	touch $@

# torch first and alone: with the pinned CPU build in place, nothing draws another one.
$(VENV)/torch: constraints.txt | $(VENV)/python
	$(PIP) install -c constraints.txt torch numpy
	touch $@

$(VENV)/demo: $(CORE) | $(VENV)/torch
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(PIP) install -e ".[torch,cli,demo]"
	touch $@

$(VENV)/test: $(CORE) | $(VENV)/torch
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(PIP) install -e ".[torch,cli,demo,test]"
	touch $@

clean:
	rm -rf $(VENV) build
