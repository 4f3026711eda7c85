# `make demo` and `make test` set up whatever they need; a second call skips that.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLDEST := $(VENV)-oldest
DOCS_READY := $(VENV)/.docs-ready
SITE := docs/_build/html

.PHONY: demo bench test test-slow test-newest test-oldest lint format docs linkcheck clean

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "twinscore needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH_INDEX) torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/twinscore transition --spec demo --out runs/demo

# The quick form of every benchmark, into docs/benchmarks.md; ARGS="--published PATH" compares.
bench: $(READY)
	$(BIN)/python benchmarks/quick.py $(ARGS)

test: $(READY) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal -m "not slow"

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal -m slow

# The command line with the newest releases of what it is built on.
test-newest: $(READY)
	$(BIN)/python -m pip install --quiet --upgrade --target $(VENV)/newest pydantic tyro
	OMP_NUM_THREADS=1 PYTHONPATH=$(VENV)/newest $(BIN)/python -m pytest -q -n auto tests/test_options.py

# Everything with the lowest versions that pyproject.toml allows, for which Python 3.11 has wheels.
# They may warn of what newer releases of their own dependencies deprecate.
test-oldest:
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python tests/oldest.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt $(TORCH_INDEX) torch
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt --editable '.[test]'
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -q -n auto --dist worksteal -m "not slow" \
		-W ignore::DeprecationWarning -W ignore::FutureWarning

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

# The site, with its gallery run (scripts that did not change are not run again); warnings are errors.
docs: $(DOCS_READY)
	$(BIN)/sphinx-build -W --keep-going -q -b html docs $(SITE)
	$(BIN)/python docs/check_links.py $(SITE)
	@echo "site: $(SITE)/index.html"

# Links to other sites, which have to be reachable.
linkcheck: $(DOCS_READY)
	$(BIN)/sphinx-build -q -b linkcheck -D plot_gallery=0 docs docs/_build/links

clean:
	rm -rf $(VENV) $(OLDEST) docs/_build docs/api docs/auto_gallery
