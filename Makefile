# Every target makes its own environment in .venv first; PYTHON chooses the interpreter for it.
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-long test-slurm test-lowest check bench lock clean

demo: $(INSTALLED)
	$(BIN)/fasttrain train configs/demo.yaml
	@echo "first: source $(BIN)/activate"
	@echo "then, on the real CIFAR-10: fasttrain train configs/baseline.yaml"

# Each worker has a core for itself: with more threads than cores, most of them wait for the others.
SHARED_OUT := --numprocesses=auto --maxprocesses=4 --dist=worksteal
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SHARED_OUT)

test-long: $(INSTALLED)
	$(BIN)/python -m pytest -m long

# Needs root and Debian's slurm-wlm and munge; says so where they are missing.
test-slurm: $(INSTALLED)
	$(BIN)/python -m pytest -m slurm

# The same tests with the lowest versions that pyproject.toml admits.
test-lowest: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
		--editable '.[dev]'
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest $(SHARED_OUT)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks loaders --quick

$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# Compile requirements.txt anew from pyproject.toml, for every platform and Python it admits.
lock: $(INSTALLED)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --no-header --quiet --upgrade -o requirements.txt

clean:
	rm -rf $(VENV) $(LOWEST) build dist .mypy_cache .ruff_cache .pytest_cache
