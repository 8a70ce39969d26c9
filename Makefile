# make train   learn handwritten digits          make test      run the whole suite
# make lint    ruff and mypy                     make test-gpu  the parity tests, on a GPU that must be there
# make bench   a training step against PyTorch   make clean     remove what these made
# make catalogue   docs/catalogue.md, from the docstrings
# make bench-gpu   the same on a GPU, and more   make gpu-check the GPU's tests, compute-sanitizer, then its benchmarks
#
# make test PYTHON=python3.13        another interpreter (3.11 or newer) for a new environment
# make test-gpu CUDA=cuda12 VENV=.venv-cuda12    CUDA 12; its own environment, for CuPy's two builds exclude each other
# make gpu-check OUT=logs                        where the logs and the rows of the benchmarks go

PYTHON ?= python3
VENV ?= .venv
CUDA ?= cuda13
BIN := $(VENV)/bin
OUT ?= build/gpu-check

.DELETE_ON_ERROR:
.PHONY: train test lint catalogue test-gpu bench bench-gpu bench-gpu-tables gpu-check clean

train: $(VENV)/installed-data
	$(BIN)/python -m xpnet train --data digits --model bilici --save digits.safetensors

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -rs $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

test-gpu: $(VENV)/installed-test $(VENV)/installed-$(CUDA)
	XPNET_REQUIRE_GPU=1 $(BIN)/python -m pytest -rs -m gpu $(ARGS)

bench: $(VENV)/installed-bench $(VENV)/installed-fast
	$(BIN)/python -m benchmarks cpu $(ARGS)

# The catalogue of all layers, losses and optimizers, made of their docstrings, and its pictures.
catalogue: $(VENV)/installed-viz
	$(BIN)/python -m xpnet.catalogue.page docs

bench-gpu: $(VENV)/installed-bench $(VENV)/installed-$(CUDA)
	$(BIN)/python -m benchmarks gpu $(ARGS)

# The tables on the page, made of the files in benchmarks/results.
bench-gpu-tables: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks gpu --tables-only --markdown docs/performance.md $(ARGS)

gpu-check: $(VENV)/installed-test $(VENV)/installed-bench $(VENV)/installed-$(CUDA)
	$(BIN)/python -m benchmarks.gpu.check $(OUT) $(ARGS)

# One environment for all of them: each target adds the extras that it needs, once, and again when pyproject.toml changes.
$(VENV)/installed-%: pyproject.toml | $(BIN)/python
	@echo 'installing xpnet[$*] and what it needs into $(VENV); the first time, minutes on a slow network'
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[$*]'
	@touch $@

# The version first: with an older Python, pip would search for minutes before it said so.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "xpnet needs Python 3.11 or newer; PYTHON=python3.13 would choose one. Received: " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
