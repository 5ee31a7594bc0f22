# Each target needs only make and Python >= 3.11, and installs the rest into .venv.

PYTHON ?= python3
BIN := .venv/bin
# pip does not compile: Python compiles what is imported, a small part of it.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--no-compile --constraint constraints.txt --editable

.PHONY: help demo antmaze test test-slow test-gpu faults lint docs clean

help:
	@echo "make demo       train the quickstart, print its table and draw its picture"
	@echo "make antmaze    collect antmaze-umaze-demo, train on it and evaluate"
	@echo "make test       run the fast tests"
	@echo "make test-slow  run the tests that take minutes each"
	@echo "make test-gpu   run the tests that need an NVIDIA GPU"
	@echo "make faults     run the fault-injection tests (half an hour)"
	@echo "make lint       check format, style and types"
	@echo "make docs       build the site of docs/ in site/"
	@echo "make clean      delete .venv and all caches"
	@echo "PYTHON=python3.12 after any of these chooses the interpreter of a new .venv"

demo: .venv/installed
	$(BIN)/python launch.py

antmaze: .venv/installed
	$(BIN)/python launch.py --config=configs/antmaze.py:umaze-demo

test: .venv/installed-dev
	$(BIN)/python -m pytest -q -n auto --dist loadfile

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -q -m "slow and not gpu"

test-gpu: .venv/installed-dev
	$(INSTALL) ".[dev,cuda]"
	$(BIN)/python -m pytest -q -m gpu

faults: .venv/installed-dev
	$(BIN)/python -m pytest -q -m faults -n auto tests/faults

lint: .venv/installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

docs: .venv/installed-dev
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .*_cache .hypothesis build dist site *.egg-info

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing dt_jax and its dependencies into .venv (a minute or two)"
	@$(INSTALL) .
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing dt_jax, its dependencies and its test tools into .venv (a minute or two)"
	@$(INSTALL) ".[dev]"
	@touch .venv/installed $@

.venv/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || { \
		echo "$(PYTHON) is not Python 3.11 or newer: name one, as in make" \
			"PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv || { rm -rf .venv; exit 1; }
