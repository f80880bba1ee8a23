# Everything starts here; `make help` explains. Needs Python 3.12 or newer, make and a package index.
# uv is fetched into .tools/ if the machine has none; nothing is installed outside this folder.

SHELL := /bin/sh
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
PYTEST := $(BIN)/python -m pytest
TESTS ?= tests
# tests wait more than they compute; two at a time halve the waiting
JOBS ?= 2
KEEP ?=

# compiled once, not by every process anew
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench soak lock docs clean

help:  ## say what each target does
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo KEEP=1            leave the engine of the demo running"
	@echo "  make test TESTS=tests/unit  only some tests; JOBS=1 one at a time"

setup: .venv/.complete  ## make .venv with exactly what requirements.lock pins

# the kernels are compiled when Augury is installed: their sources count, too
NATIVE := $(wildcard src/augury/models/*/native/*) scripts/build_native.py

.venv/.complete: requirements.lock pyproject.toml $(NATIVE) | $(UV)
	@echo "setting up .venv (once)"
	@$(UV) venv --quiet --allow-existing --no-python-downloads .venv 2>/dev/null \
		|| $(UV) venv --quiet --allow-existing --no-python-downloads --python '>=3.12' .venv
	@$(UV) pip install --quiet --python .venv --compile-bytecode -r requirements.lock
	@$(UV) pip install --quiet --python .venv --no-deps --editable .
	@touch $@

.tools/bin/uv:
	@echo "fetching uv into .tools/ (once)"
	@python3 -m venv .tools
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check uv

demo: setup  ## the main job on real data: half a year of flights, scored as they land
	@$(BIN)/python examples/demo/demo.py $(if $(KEEP),--keep)

test: setup  ## run every test (unit, contract, integration, acceptance, house)
	@$(PYTEST) -n $(JOBS) --dist worksteal $(TESTS)

check: setup  ## format, lint, types, layers, spelling, generated pages
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	@$(BIN)/codespell src workers models benchmarks examples docs scripts *.md
	@$(BIN)/python scripts/generate_docs.py --check

format: setup  ## format the code and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet .

bench: setup  ## measure; results go to benchmarks/out/ (see benchmarks/README.md)
	@$(BIN)/python benchmarks/run_all.py

soak: setup  ## long runs under load and kill -9 (tens of minutes; not part of make test)
	@$(PYTEST) -m soak tests

lock: | $(UV)  ## resolve the newest versions into requirements.lock
	@$(UV) pip compile --quiet --universal --no-emit-index-url --no-header --upgrade \
		--python-version 3.12 --all-extras --group dev pyproject.toml -o requirements.lock

docs: setup  ## write the generated pages (docs/settings.md, docs/events.md, docs/errors.md)
	@$(BIN)/python scripts/generate_docs.py

clean:  ## remove everything that make has made
	@rm -rf .venv .tools .demo .augury .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache build dist benchmarks/out
