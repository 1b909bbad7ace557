# run: a farmer, with nothing to set.  test: every test.  check: what every commit should pass, in
# less than five minutes.  lint, types: what the style asks.  bench: our figures.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
SORRY := printf 'Installing failed. Is there a network? The reason is shown by:\n  %s\n'
ARGS ?=

.PHONY: run test check lint types bench clean

run: $(VENV)/.installed
	@exec $(BIN)/farmer run $(ARGS)

test: $(VENV)/.developed
	$(BIN)/python -m pytest $(ARGS)

check: lint types
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

lint: $(VENV)/.developed
	$(BIN)/ruff check farmer tests benchmarks
	$(BIN)/ruff format --check farmer tests benchmarks

types: $(VENV)/.developed
	$(BIN)/mypy

bench: $(VENV)/.developed
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find farmer tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "farmer needs Python 3.11 or newer; try: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@$(PIP) --quiet --editable . || { $(SORRY) "$(PIP) --editable ."; exit 1; }
	@touch $@

$(VENV)/.developed: pyproject.toml | $(VENV)/bin/python
	@$(PIP) --quiet --editable '.[dev]' || { $(SORRY) "$(PIP) --editable '.[dev]'"; exit 1; }
	@touch $@ $(VENV)/.installed
