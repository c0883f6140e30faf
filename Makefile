# make demo   set up and answer questions about real photos and videos, in a sandbox, with a page to look at
# make test   set up and run lint, types and all tests this machine can run
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PYTEST_ARGS ?=
DEMO_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint format types bench clean

help:
	@echo "make demo    answer questions about real photos and videos with an agent that writes Python"
	@echo "make test    lint, types and tests (those that need Docker or Chromium where they are there)"
	@echo "make lint    ruff and the type checker        make format   ruff's formatter"
	@echo "make bench   the speed figures of benchmarks/RESULTS.md"
	@echo "make clean   remove what these targets made in this folder"

demo: $(VENV)/.demo
	$(BIN)/pyvision-env demo $(DEMO_ARGS)

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/env_speed.py
	$(BIN)/python benchmarks/figures.py

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@echo "==> making $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "Python 3.11 or newer is needed, $(PYTHON) is %d.%d: make PYTHON=python3.11 ..." % v[:2])'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "The venv module is missing: apt-get install python3-venv (Debian, Ubuntu)"; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=24"

$(VENV)/.demo: pyproject.toml $(VENV)/bin/python
	@echo "==> installing pyvision-rl and the demo's media (about 350 MB, some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --editable ".[demo]"
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/bin/python
	@echo "==> installing pyvision-rl with everything its tests need (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@ $(VENV)/.demo
