# `make help` lists what there is. Each sets itself up in .venv from pinned constraints.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
CORE := CMakeLists.txt pyproject.toml constraints.txt $(wildcard core/*/*.cc core/*/*.h)
PYTEST := $(BIN)/python -m pytest -q -rs -n 2 --dist worksteal

.PHONY: help demo check test everything lint types core-check core-test clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/demo ## train, quantize and run a small network on recorded vowels
	$(BIN)/rindle demo

check: lint types core-check ## the loop of a developer, two minutes: style, types, the core, one case of every kind
	HYPOTHESIS_PROFILE=quick $(PYTEST) -m "not slow"

test: lint types core-test ## everything that continuous integration runs: the core under sanitizers, every test
	$(PYTEST)

everything: $(VENV)/test ## the matrices, for hours: kernels, threads, long fuzzing, every Python (docs/testing.md)
	$(BIN)/python tests/everything.py

lint: $(VENV)/test ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test ## the type checker that pyproject.toml configures
	@if grep -q '^\[tool\.mypy\]' pyproject.toml; then $(BIN)/python -m mypy; \
	elif grep -q '^\[tool\.pyright\]' pyproject.toml; then $(BIN)/pyright; \
	else echo "types: pyproject.toml configures no checker"; fi

core-check: $(VENV)/test ## the C++ core alone, on the released files
	$(BIN)/python tests/core.py --quick

core-test: $(VENV)/test ## the C++ core alone, under the sanitizers, on hostile files too
	$(BIN)/python tests/core.py

clean: ## remove .venv and build
	rm -rf $(VENV) build

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
