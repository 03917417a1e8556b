# `make demo` and `make test` set everything up by themselves; they need python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUTPUT ?= $(CURDIR)/runs
MLFLOW_URI ?= sqlite:///$(OUTPUT)/mlflow.db
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo ui test test-slow check format constraints clean

help: ## what can be made here
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.core ## tune three factor pairs on synthetic rain, minutes on two cores
	$(BIN)/python jobs/tune_factors.py --pairs 4x1,1x3,4x2 --trials 4 --output $(OUTPUT)

ui: $(VENV)/.core ## look at the recorded runs on http://127.0.0.1:5000
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --host 127.0.0.1 --port 5000 --workers 1 \
		--backend-store-uri $(MLFLOW_URI) --default-artifact-root $(OUTPUT)/mlartifacts

test: $(VENV)/.dev ## all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-slow: $(VENV)/.dev ## the slow tests: a submitted Ray job, kills at random moments, an MLflow outage
	$(BIN)/python -m pytest -m slow --timeout 1200 $(PYTEST_ARGS)

check: $(VENV)/.dev ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## put the code in its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(VENV)/.dev ## write constraints.txt from what is installed
	$(BIN)/python -m pip freeze --exclude-editable --disable-pip-version-check | sed 's/+cpu//' > constraints.txt

clean: ## remove the virtual environment and caches; results under runs/ stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info

# One stamp per set of dependencies; the demo needs no test tools.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; name a newer one, as in: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (a minute or two) ..."
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (a minute or two) ..."
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.core
