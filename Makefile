# Two commands: `make run` and `make test`. Each makes .venv and installs by itself.
# Without a GPU, name an index with CPU builds of torch: make run PIP_ARGS="--index-url ..."

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
CONFIG ?= configs/training/first_run.yaml
RUN_ARGS ?=
BIN = $(VENV)/bin

.PHONY: run test check bench docs clean

run: $(VENV)/.installed
	$(BIN)/havoc run --config $(CONFIG) $(RUN_ARGS)

# Bytecode is kept even where a container forbids it: the tests start a hundred processes, and each would compile the sources.
test: $(VENV)/.installed-dev
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/train_throughput.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/near_duplicates.py
	$(BIN)/python benchmarks/data_build.py

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/settings_page.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "HAVOC needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[docs-corpus,fast,serve]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@# The generation before, in a folder of its own: exports are loaded with both.
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --no-deps --upgrade --target $(VENV)/transformers-4 \
		transformers==4.57.6 huggingface_hub==0.36.2 tokenizers==0.22.2
	touch $@ $(VENV)/.installed
