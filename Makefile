# `make demo` gazes at the sample video, without weights and with the bundled gaze model; `make test` runs everything.
# Both build .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Where `make train-default` finds its clips, how long it may take, and the Python it and `make cuda` run with: an
# environment of their own, or one that is there already on a machine without a network. FRAMES of 4K are gazed at.
VIDEOS ?= videos/train
VAL ?= videos/val
IMAGES ?= images
MINUTES ?= 25
TRAIN_PYTHON ?= $(BIN)/python
FRAMES ?= 1024

.PHONY: demo test lint format clean train-default cuda

demo: $(VENV)/.installed-core
	$(BIN)/autogaze gaze examples/sample.mp4 --out gaze-demo --overwrite
	$(BIN)/autogaze gaze examples/sample.mp4 --model bundled --resize --out gaze-demo/bundled --overwrite
	@echo "Open sample.overlay.mp4 and sample.sheet.png in gaze-demo (replenish) and in gaze-demo/bundled (a first, weaker gaze model)"

# A process for each processor, each of one thread: more would fight for them.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

# Trains the bundled pair with its logs into runs/default; goes on where it was stopped. INSTALL=--install replaces the
# bundled files.
train-default: $(if $(filter $(BIN)/python,$(TRAIN_PYTHON)),$(VENV)/.installed-dev)
	$(TRAIN_PYTHON) scripts/train_default.py --videos $(VIDEOS) --val $(VAL) --images $(IMAGES) \
		--minutes $(MINUTES) --out runs/default $(INSTALL)

# Tests and benchmarks of a machine with a CUDA device; figures go to runs/cuda.
cuda: $(if $(filter $(BIN)/python,$(TRAIN_PYTHON)),$(VENV)/.installed-dev)
	mkdir -p runs/cuda
	-PYTHONPATH=src $(TRAIN_PYTHON) -m pytest -q tests/test_static_engine.py tests/test_engine.py tests/test_sparse_attention.py \
		tests/test_replenish_device.py
	for precision in fp32 bf16; do \
		PYTHONPATH=src $(TRAIN_PYTHON) benchmarks/gaze_speed.py --device cuda --precision $$precision --repeats 10 \
			--batches 16 64 --out runs/cuda/gaze_speed_$$precision.json && \
		PYTHONPATH=src $(TRAIN_PYTHON) benchmarks/many_frames.py --device cuda --precision $$precision --frames $(FRAMES) \
			--out runs/cuda/many_frames_$$precision.json || exit 1; \
	done
	PYTHONPATH=src $(TRAIN_PYTHON) benchmarks/many_frames.py replenish --device cuda --frames 64 --out runs/cuda/replenish.json
	PYTHONPATH=src $(TRAIN_PYTHON) benchmarks/sparse_encoders.py --device cuda --quick --out runs/cuda/sparse_encoders.json

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-core: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.installed-core

clean:
	rm -rf $(VENV) gaze-demo dist .mypy_cache .ruff_cache .pytest_cache
