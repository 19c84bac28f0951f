# irstkit: two commands for a newcomer, 'make demo' and 'make test'. Both set themselves up in .venv.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format clean

VENV := .venv
BIN := $(VENV)/bin
# The first Python of 3.11 to 3.13 that is there; 'make PYTHON=/path/to/python3.12 ...' chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
OUT ?= demo
DATA ?=
ROOMS := irstkit annotate datasets synth train

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10
	@echo
	@echo "make demo DATA=PATH    the demo on a real data set (NUAA-SIRST, NUDT-SIRST, IRSTD-1k, images/ + masks/)"

setup: $(VENV)/.installed ## a virtual environment in .venv with irstkit and all extras (about 7 GB)

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "irstkit needs Python 3.11, 3.12 or 3.13; none was found (make PYTHON=/path/to/python3.12)"; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV) with $(PYTHON) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing irstkit and all it needs into $(VENV): a few minutes, about 7 GB ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@$(BIN)/irstkit doctor --install-database >/dev/null || echo "FiftyOne has no database (see 'irstkit doctor'): its tests are skipped"
	@touch $@

demo: setup ## the whole chain on synthetic data, or on yours with DATA=PATH: leaves demo/report.html
	@$(BIN)/irstkit demo --out "$(OUT)" --overwrite $(if $(DATA),--data "$(DATA)")

test: setup ## the test suite
	@$(BIN)/pytest $(ARGS)

lint: setup ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@mkdir -p .types/irstkit && find .types/irstkit -type l -delete
	@for r in annotate datasets synth train; do ln -s ../../$$r .types/irstkit/$$r; done
	@for f in irstkit/*.py irstkit/py.typed; do ln -s ../../$$f .types/irstkit/; done
	@MYPYPATH=.types $(BIN)/mypy -p irstkit

format: setup ## ruff's formatter and its safe fixes
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

clean: ## remove what the other targets made, but for .venv
	rm -rf .types .pytest_cache .mypy_cache .ruff_cache build *.egg-info
