# make demo, make test: from a bare clone to the result, on a machine with git, Python and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo docs test test-all test-versions check lint types mass mutate catalog-folds setup clean

demo: $(VENV)/.runtime
	$(BIN)/verse-data demo

# The documentation site, in docs/_build/html. A warning is an error; so is a link to nowhere.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -b html -q -n -W --keep-going -d docs/_build/doctrees docs docs/_build/html
	@echo "The site is in docs/_build/html/index.html"

test: $(VENV)/.dev
	$(BIN)/python -m pytest

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow or not slow" --hypothesis-profile new

# The core of the suite with the oldest dependencies allowed, and with the newest Python at hand.
test-versions:
	.ci/core lowest
	.ci/core newest

check: lint types test

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# How much code there is, and how many of its files one sample needs.
mass: $(VENV)/.runtime
	$(BIN)/python tests/house/mass.py
	$(BIN)/python tests/house/files_touched.py

# Break the code on purpose, patch by patch, and show that a test notices each.
mutate: $(VENV)/.dev
	$(BIN)/python tests/mutations/run.py

# The folds in catalog/folds: make catalog-folds WORKBOOK=ryai190138_AppendixE1.xlsx
catalog-folds: $(VENV)/.runtime
	$(BIN)/python -m tests.house.catalog_folds "$(WORKBOOK)"

setup: $(VENV)/.dev

# A stamp is newer than what it was made from, so a second run installs nothing.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (torch is large; the first time takes some minutes)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) dist docs/_build docs/reference/generated .mypy_cache .pytest_cache .ruff_cache
