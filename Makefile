# What people and `.ci/run` type; everything but `make demo` is a line you could type yourself.
PYTHON ?= python3
BIN := .venv/bin
# Two workers, each with one thread (tests/conftest.py); one that has nothing left takes over from the other.
TWO_WORKERS := -n 2 --dist worksteal
STANHOP := $(CURDIR)/$(BIN)/stanhop

.PHONY: setup check test test-slow reliability soak demo

setup: .venv/.ready

# torch comes first and alone: where the package index at hand offers a CPU build, the exact version takes that one,
# and the second step finds it in place.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/pip install -c constraints.txt -e '.[dev]'
	touch $@

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: setup
	$(BIN)/pytest $(TWO_WORKERS)

test-slow: setup
	$(BIN)/pytest $(TWO_WORKERS) -m slow

# The promises of docs/reliability.md in CI's sizes, one test at a time: the page is made anew from what they measure.
reliability: setup
	STANHOP_FIGURES=$(CURDIR)/docs/reliability.json $(BIN)/pytest -m "slow or not slow" tests/reliability
	$(BIN)/python docs/render_reliability.py

# The same at length: hours, for a night before a release; `make soak NIGHT=0.02` takes a fiftieth of it.
NIGHT ?= 1
soak: setup
	STANHOP_SOAK=$(NIGHT) $(BIN)/pytest -m slow tests/reliability
	STANHOP_SOAK=$(NIGHT) $(BIN)/python -m tests.reliability.fuzz_reader

# Offline: built-in data, a model that trains in half a minute, and what follows two tables.
demo: setup
	mkdir -p demo
	rm -rf demo/runs demo/new demo/forecasts
	cd demo && $(STANHOP) data export synthetic new/until-july.csv --first 5000
	cd demo && $(STANHOP) data export synthetic new/until-september.csv
	cd demo && $(STANHOP) train --data synthetic --experiment demo
	cd demo && $(STANHOP) evaluate --model runs/synthetic-1/model
	cd demo && $(STANHOP) forecast --model runs/synthetic-1/model --input new --output forecasts --plot
	@echo
	@echo "demo/forecasts  what follows each table in demo/new, as a table and as a plot"
	@echo "demo/runs       the model directory, its metrics and the plots of its training"
	@echo "demo/mlflow.db  the run in MLflow: cd demo && ../.venv/bin/mlflow ui"
