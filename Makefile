# make train       learn handwritten digits
# make test        check everything once: the first tier of the tests, about 6 minutes on two cores
# make test-all    all tests: more backends, examples and architectures, and the sanitizers
# make test-rest   what is left of them after make test; .ci/run does both
# make lint        ruff and mypy
# make catalogue   docs/catalogue.md, from the docstrings
# make pictures    the PNG files of docs/pictures.md and docs/course
# make docs        the documentation as a site, in build/docs
# make bench       a training step against PyTorch
# make clean       remove what these made
#
# On an NVIDIA GPU:
# make test-gpu    the tests that need a GPU; without one they fail
# make bench-gpu   a training step against PyTorch, and the kernels
# make gpu-check   test-gpu, compute-sanitizer, then bench-gpu
#
# make test ARGS="tests/layers -x"               arguments for pytest, here a folder and an option
# make test JOBS=4                               how many processes run the tests
# make test PYTHON=python3.13                    the interpreter (3.11 or newer) of a new environment
# make test-gpu CUDA=cuda12 VENV=.venv-cuda12    CUDA 12, in an environment of its own: only one of
#                                                CuPy's two builds can be installed
# make gpu-check OUT=logs                        where the logs and the rows of the benchmarks go

PYTHON ?= python3
VENV ?= .venv
CUDA ?= cuda13
BIN := $(VENV)/bin
OUT ?= build/gpu-check
JOBS ?= 2

# Each process takes whole files, in the order of tests/conftest.py: those that take longest first.
TESTS = $(BIN)/python -m pytest -rs -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Tests start hundreds of processes. If this were set, each would compile the whole package.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: train test test-all test-rest lint catalogue pictures docs test-gpu bench bench-gpu \
    bench-gpu-tables gpu-check clean

train: $(VENV)/installed-data
	$(BIN)/python -m xpnet train --data digits --model bilici --save digits.safetensors

test: $(VENV)/installed-dev
	XPNET_TESTS=first $(TESTS)

test-all: $(VENV)/installed-dev
	XPNET_TESTS=all $(TESTS)

test-rest: $(VENV)/installed-dev
	XPNET_TESTS=rest $(TESTS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

test-gpu: $(VENV)/installed-test $(VENV)/installed-$(CUDA)
	XPNET_REQUIRE_GPU=1 $(BIN)/python -m pytest -rs -m gpu -n $(JOBS) $(ARGS)

bench: $(VENV)/installed-bench $(VENV)/installed-fast
	$(BIN)/python -m benchmarks cpu $(ARGS)

catalogue: $(VENV)/installed-viz
	$(BIN)/python -m xpnet.catalogue.page docs

pictures: $(VENV)/installed-viz $(VENV)/installed-data
	$(BIN)/python docs/draw_pictures.py docs/pictures.md docs/course/*.md
	$(BIN)/python docs/draw_course_networks.py

# Warnings are errors, links to pages and headings that do not exist among them.
docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx -EWnq --keep-going -j $(JOBS) -b html -d build/doctrees docs build/docs
	@echo 'the site: build/docs/index.html'

bench-gpu: $(VENV)/installed-bench $(VENV)/installed-$(CUDA)
	$(BIN)/python -m benchmarks gpu $(ARGS)

# The tables of docs/performance.md, from the files in benchmarks/results.
bench-gpu-tables: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks gpu --tables-only --markdown docs/performance.md $(ARGS)

gpu-check: $(VENV)/installed-test $(VENV)/installed-bench $(VENV)/installed-$(CUDA)
	$(BIN)/python -m benchmarks.gpu.check $(OUT) $(ARGS)

# All targets share one environment. Each installs the extras that it needs, once, and again when
# pyproject.toml changes.
$(VENV)/installed-%: pyproject.toml | $(BIN)/python
	@echo 'installing xpnet[$*] and what it needs into $(VENV); the first time, minutes on a slow network'
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[$*]'
	@touch $@

# Checked first: with an older Python, pip would search for minutes before it failed.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "xpnet needs Python 3.11 or newer; PYTHON=python3.13 would choose one. Received: " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -rf docs/reference docs/theory
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
