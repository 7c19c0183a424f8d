# `make demo` on a fresh machine does all set-up in .venv and runs the demo; `make test` likewise and runs the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test quick exhaustive lint bench-kernels setup clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: setup
	$(BIN)/neurotile demo --out demo

test: setup
	$(BIN)/pytest

quick: setup
	$(BIN)/pytest -m "not slow and not exhaustive"

# Thousands of random cases for every claim of exactness: an hour or so, before a change of an algorithm is merged.
exhaustive: setup
	$(BIN)/pytest -m exhaustive

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Every kernel beside its peers; the real crop needs the data folder (DATA=FOLDER), and is left out without it.
DATA ?= ../shared/data
bench-kernels: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/python -m benchmarks.kernels --data $(DATA)

clean:
	rm -rf .venv demo runs build dist
