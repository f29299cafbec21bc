# `make help` lists what there is. Every target makes the environment it needs, once.
#
#   PYTHON=python3.12   the Python to use (3.11, 3.12 or 3.13); found by itself otherwise
#   CPU=1               PyTorch's CPU wheels: a smaller download on Linux, no GPU

.DEFAULT_GOAL := help
.PHONY: help book test style lab serve notebooks bench bench-here runtimes runtimes-here clean

VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PY := $(BIN)/python
INSTALLED := $(VENV)/installed
PAGE := _build/html/index.html
CPU_WHEELS := https://download.pytorch.org/whl/cpu
PORT ?= 8000

IS_SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in python3 python python3.13 python3.12 python3.11; do \
	if $$name -c "$(IS_SUPPORTED)" 2>/dev/null; then echo $$name; exit; fi; done; echo python3)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo "  CPU=1 installs PyTorch's CPU wheels, PYTHON=python3.12 names the Python to use"

# Installed once, and again when the requirements or the package's metadata change.
$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c "$(IS_SUPPORTED)" || { \
		echo "The course needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)"; \
		echo "Name another one: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(if $(filter 1,$(CPU)),$(PY) -m pip install --index-url $(CPU_WHEELS) $$(grep -E '^torch(vision)?==' requirements.txt))
	$(PY) -m pip install -r requirements.txt
	$(PY) -m pip install -e .
	@echo done > $@

book: $(INSTALLED) ## run the chapters, build the book, say where it is
	$(BIN)/jupyter-book build . -n -W --keep-going
	@$(PY) -c "from pathlib import Path; print('\nThe book:', Path('$(PAGE)').resolve().as_uri())"

test: $(INSTALLED) ## all tests: style, package, chapters, book, browser
	$(PY) -m tools.suites

style: $(INSTALLED) ## ruff and clean notebooks alone
	$(PY) -m tools.suites style

lab: $(INSTALLED) ## open the chapters in JupyterLab
	$(BIN)/jupyter lab chapters

serve: $(INSTALLED) ## show the built book at http://127.0.0.1:8000 (PORT=...)
	@test -f $(PAGE) || { echo "No book yet: run 'make book' first."; exit 1; }
	$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

notebooks: $(INSTALLED) ## run all chapters anew and keep only their text outputs
	$(PY) -m tools.notebooks --execute

# The peers live in an environment of their own: their needs cannot break the book's.
bench: ## RandAugment and its peers, images a second (ROOT=folder of images, OUT=record.json)
	@$(MAKE) --no-print-directory VENV=.venv-bench bench-here

OUT ?= _build/throughput.json
bench-here: $(VENV)/peers
	$(PY) -m experiments.throughput $(if $(ROOT),--data folder --root "$(ROOT)") --out "$(OUT)" $(OPTIONS)

$(VENV)/peers: $(INSTALLED) requirements-bench.txt
	$(PY) -m pip install -r requirements-bench.txt -c requirements.txt
	@echo done > $@

# So do the other runtimes.
runtimes: ## one network in many runtimes, floats and int8, milliseconds (OUT=record.json)
	@$(MAKE) --no-print-directory VENV=.venv-runtimes runtimes-here

runtimes-here: OUT = _build/quantization_latency.json
runtimes-here: $(VENV)/runtimes
	$(PY) -m experiments.quantization_latency --out "$(OUT)" $(OPTIONS)

$(VENV)/runtimes: $(INSTALLED) requirements-runtimes.txt
	$(PY) -m pip install -r requirements-runtimes.txt -c requirements.txt
	@echo done > $@

clean: ## remove all that was built; the environments stay
	rm -rf _build .reports .coverage .coverage.* .pytest_cache .hypothesis .ruff_cache
