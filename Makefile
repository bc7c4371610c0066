# Everything is installed into .venv beside this file. Another Python:  make demo PYTHON=python3.13
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
USER_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help demo test acceptance docs clean

help:
	@echo "make demo        install coverslip into .venv (minutes, once), then the tour: simulate, train, report (under 90 s)"
	@echo "make test        install what the checks need (minutes, once), then lint, types, floors, tests (several minutes)"
	@echo "make acceptance  full-length recipes on real images kept apart (about 40 minutes), figures into benchmarks/results"
	@echo "make docs        write docs/config.md anew from the config's schema (seconds)"
	@echo "make clean       remove build outputs and caches of tools; .venv and runs/ stay (seconds)"

demo: $(USER_STAMP)
	$(BIN)/coverslip demo

test: $(DEV_STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --ignore=tests/real --numprocesses=logical --maxprocesses=4 --dist=loadfile

acceptance: $(DEV_STAMP)
	$(BIN)/python benchmarks/acceptance.py

docs: $(USER_STAMP)
	$(BIN)/python docs/make_config_reference.py

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs in a fraction of pip's time; where it cannot be had, pip does the same.
define install
@echo "installing $(1) into $(VENV) ..."
@$(BIN)/python -m uv --version > /dev/null 2>&1 || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv || true
@$(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python -e "$(1)" -c constraints.txt \
	|| $(BIN)/python -m pip install --disable-pip-version-check -e "$(1)" -c constraints.txt
endef

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "coverslip needs Python 3.11 or newer, but $(PYTHON) is: $$($(PYTHON) --version 2>&1). Say:  make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu:  apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }

$(USER_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.)
	@touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.[dev])
	@touch $(USER_STAMP) $@
