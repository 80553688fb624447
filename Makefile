# `make demo` gazes at the sample video, without weights and with the bundled gaze model; `make test` runs everything.
# Both build .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint format clean

demo: $(VENV)/.installed-core
	$(BIN)/autogaze gaze examples/sample.mp4 --out gaze-demo --overwrite
	$(BIN)/autogaze gaze examples/sample.mp4 --model bundled --resize --out gaze-demo/bundled --overwrite
	@echo "Open sample.overlay.mp4 and sample.sheet.png in gaze-demo (replenish) and in gaze-demo/bundled (the gaze model)"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

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
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.installed-core

clean:
	rm -rf $(VENV) gaze-demo dist .mypy_cache .ruff_cache .pytest_cache
