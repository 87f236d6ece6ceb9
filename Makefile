# The only commands one must know. Each sets itself up: the first call takes some minutes, later ones nothing.
VENV ?= .venv
PYTHON ?=
ARGS ?=
THREADS := $(or $(OMP_NUM_THREADS),2)

python := $(VENV)/bin/python
set_up := $(or $(PYTHON),python3) -m tools.setup_env --venv $(VENV) $(if $(PYTHON),--exact-python)

.DEFAULT_GOAL := help
.PHONY: help setup ensure serve test browser espeak demo-voice lint bench clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  ARGS=...                     passed on, for example: make test ARGS=\"-m golden\""
	@echo "  PYTHON=/path/to/python3      build the environment on this interpreter (3.11 to 3.13)"
	@echo "  COSYVOICE_DEVICE=cpu|gpu     overrides what set-up finds out about the machine"

setup:  ## Make .venv, install everything, repair and check it (FORCE=1: even if nothing changed)
	@$(set_up) $(if $(FORCE),--force)

ensure:
	@$(set_up) --quiet

serve: ensure  ## Start the service on this machine and stay in the foreground
	@$(python) -m deployments serve $(ARGS)

test: ensure  ## Run all tests
	OMP_NUM_THREADS=$(THREADS) $(python) -m pytest $(ARGS)

browser:  ## Install Chromium for the tests of the page, which are skipped without (Debian, as root)
	@$(or $(PYTHON),python3) -m tools.setup_browser

espeak:  ## Install the library of espeak-ng, which teaches the demo voice (Debian, as root)
	@$(or $(PYTHON),python3) -m tools.setup_espeak

demo-voice: ensure espeak  ## Train the demo voice in WORK (build/demo-voice); SCALE=toy, cpu or gpu; goes on if interrupted
	$(python) -m tools.demo_voice all --work $(or $(WORK),build/demo-voice) --scale $(or $(SCALE),cpu) $(ARGS)

lint: ensure  ## Check format, style and types
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	$(python) -m mypy

bench: ensure  ## Measure this machine: a full-size sentence, flow and vocoder, the language model, the service under load
	@$(python) -m cosyvoice_core.bench full $(ARGS)
	@$(python) -m cosyvoice_core.bench acoustic
	@$(python) -m deployments.bench lm
	@$(python) -m loadtest bench --page docs/performance.md

clean:  ## Remove caches and build leftovers (.venv stays; delete it to start anew)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
