# Two commands: `make demo` sets up and tunes MedGAN; `make test` sets up and checks everything.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that test, each with one Ray; a file's tests, which share what is slow to make, are one process's.
PROCESSES ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --durations=10

# Else each of the many processes that tests start compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test lint docs bench clean

# A CPU build of PyTorch is enough; where pip finds none, the usual one does as well.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[optuna]'
	touch $@

$(VENV)/.ready-to-test: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

setup: $(VENV)/.ready

demo: setup
	$(BIN)/python -m dgm_ray.tune search_spaces/medgan.yaml --overwrite

lint: $(VENV)/.ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy dgm_ray benchmarks

test: lint
	$(PYTEST) -m 'not slow'
	$(PYTEST) -m slow

docs: $(VENV)/.ready
	$(BIN)/python -m dgm_ray.documentation

bench: $(VENV)/.ready-to-test
	$(BIN)/python -m benchmarks.epoch
	$(BIN)/python -m benchmarks.tasks
	$(BIN)/python -m benchmarks.overhead

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
