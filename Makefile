# What a contributor types. `make demo` needs nothing but Python 3.11 or newer; so does `make test`.

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
ACCEPTANCE ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help venv install demo test torture bench bench-peers lint docs acceptance clean

help:
	@echo 'make install     create $(VENV) and install Seeknal in it, editable, with the tools for tests and linting'
	@echo 'make demo        run the tutorial project in ./demo (made anew each time)'
	@echo 'make test        run the tests on all cores; PYTEST_ARGS="-k init" narrows them'
	@echo 'make torture     every fault at every step: kills, full disks, bit rot, races (docs/reliability.md)'
	@echo 'make bench       measure everything beside its target, in some ten minutes; BENCH_ARGS=--write fills docs/performance.md'
	@echo 'make bench-peers measure the same project with SQLMesh, in an environment of its own below .benchmarks'
	@echo 'make lint        ruff and mypy'
	@echo 'make docs        fill the tables of fields in docs/ from the code'
	@echo 'make acceptance  run the acceptance script ACCEPTANCE=path against the installed command'
	@echo 'make clean       remove $(VENV), ./demo and all caches'
	@echo 'PYTHON=python3.12 chooses the interpreter that $(VENV) is made from.'

venv: $(BIN)/python

install: $(STAMP)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Seeknal needs Python 3.11 or newer; name one: make PYTHON=python3.12'; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The interpreter is an order-only prerequisite: its time says nothing about what is installed.
$(STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	touch $(STAMP)

demo: install
	rm -rf demo
	$(BIN)/seeknal init --path demo --name demo --example environment-management
	cd demo && ../$(BIN)/seeknal run --parallel
	@printf '\n%s\n' 'The tutorial project is in ./demo. Go on with:'
	@printf '  %s\n' \
	  'cd demo && export PATH="$$PWD/../$(BIN):$$PATH"' \
	  'seeknal run                                     # nothing changed: everything is cached' \
	  '$$EDITOR seeknal/04_transform_clean_orders.yml   # add a column' \
	  'seeknal plan dev                                # what the change means, before it runs' \
	  'seeknal run --env dev --parallel                # run it beside production' \
	  'seeknal promote dev                             # make it production'

test: install
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

torture: install
	$(BIN)/python -m pytest -n auto tests/reliability --torture $(PYTEST_ARGS)

bench: install
	$(BIN)/python bench/suite.py --seeknal $(BIN)/seeknal $(BENCH_ARGS)

bench-peers: install
	$(BIN)/python bench/peers.py --install --seeknal $(BIN)/seeknal --out .benchmarks $(BENCH_ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: install
	$(BIN)/python docs/generate.py

# The script drives the command from other folders, so the command's path is absolute.
acceptance: install
	@if [ -n "$(ACCEPTANCE)" ] && [ -f "$(ACCEPTANCE)" ]; then \
	  echo '$(BIN)/python $(ACCEPTANCE)'; \
	  $(BIN)/python "$(ACCEPTANCE)" --seeknal "$(CURDIR)/$(BIN)/seeknal"; \
	else \
	  echo "No acceptance script '$(ACCEPTANCE)'; name one with ACCEPTANCE=path"; \
	fi

clean:
	rm -rf $(VENV) demo dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find engine store cli tests -name __pycache__ -type d -prune -exec rm -rf {} +
