# run: a farmer, with nothing to set.  test: every test.  check: what every commit should pass, in
# less than five minutes.  lint, types: what the style asks.  bench: our figures.  bench-peers: ours
# beside nginx, Tahoe-LAFS, Swift and rclone, which it fetches (docs/performance.md).
# simulate, crash, sweep, fuzz, rot, load, mutate: the long proofs, docs/durability.md; root for crash.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
SORRY := printf 'Installing failed. Is there a network? The reason is shown by:\n  %s\n'
ARGS ?=
TOGETHER = $(BIN)/python -m pytest -n 3 --no-loadscope-reorder
ALONE = $(BIN)/python -m pytest -n 0 $(if $(findstring --cov,$(ARGS)),--cov-append)
AGAIN = { code=$$?; [ $$code -eq 5 ] || { [ $$code -eq 1 ] && echo "$(UNSTEADY)" && \
	$(ALONE) -v --last-failed --last-failed-no-failures none $(ARGS); }; }
UNSTEADY = == unsteady, or broken: what failed runs once more, alone
SEEDS ?= 1000
OPS ?= 400
SIMULATED = --seeds $(SEEDS) --ops $(OPS) $(if $(SEED),--seed $(SEED))
EXECUTIONS ?= 2000000

# Hundreds of processes are begun here: each would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test check lint types bench bench-peers simulate crash sweep fuzz rot load mutate clean

run: $(VENV)/.installed
	@exec $(BIN)/farmer run $(ARGS)

# A file's tests run in one process, several files at once: many of them wait more than they work.
# Those that judge by time run after them, alone.  What failed runs once more, alone and named: real
# processes on a busy machine may come too late once.  1: a test failed.  5: none of those asked for
# are here.
test: $(VENV)/.developed
	$(TOGETHER) --cache-clear -m "not alone" $(ARGS) || $(AGAIN)
	$(ALONE) -m alone $(ARGS) || $(AGAIN)

check: lint types
	$(TOGETHER) --cache-clear -m "not slow and not alone" $(ARGS) || $(AGAIN)
	$(ALONE) -m "alone and not slow" $(ARGS) || $(AGAIN)

lint: $(VENV)/.developed
	$(BIN)/ruff check farmer tests benchmarks
	$(BIN)/ruff format --check farmer tests benchmarks

types: $(VENV)/.developed
	$(BIN)/mypy

simulate: $(VENV)/.developed
	$(BIN)/python -m tests.simulation $(SIMULATED) $(ARGS)

crash: $(VENV)/.developed
	$(BIN)/python -m tests.crash engine --kills 500
	$(BIN)/python -m tests.crash daemon --kills 100
	$(BIN)/python -m tests.crash moving
	$(BIN)/python -m tests.crash repairing --kills 30
	$(BIN)/python -m tests.crash power --cuts 20
	$(BIN)/python -m tests.crash states --ext4 1000 --xfs 100 --btrfs 100
	$(BIN)/python -m tests.crash strace --every 30

sweep: $(VENV)/.developed
	$(BIN)/python -m tests.nthcall $(ARGS)

fuzz: $(VENV)/.developed
	$(BIN)/python -m tests.fuzz --executions $(EXECUTIONS) $(ARGS)

rot: $(VENV)/.developed
	$(BIN)/python -m tests.scrubbing $(ARGS)

# Five minutes of the soak; the hour of docs/measurements.md is `-m tests.load soak` by itself.
load: $(VENV)/.developed
	$(BIN)/python -m tests.load idle
	$(BIN)/python -m tests.load hostile
	$(BIN)/python -m tests.load soak --minutes 5

mutate: $(VENV)/.developed
	$(BIN)/python -m tests.mutation $(ARGS)

bench: $(VENV)/.developed
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(VENV)/.developed
	$(BIN)/python -m benchmarks.peers $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find farmer tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "farmer needs Python 3.11 or newer; try: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@$(PIP) --quiet --editable . || { $(SORRY) "$(PIP) --editable ."; exit 1; }
	@touch $@

$(VENV)/.developed: pyproject.toml | $(VENV)/bin/python
	@$(PIP) --quiet --editable '.[dev]' || { $(SORRY) "$(PIP) --editable '.[dev]'"; exit 1; }
	@touch $@ $(VENV)/.installed
