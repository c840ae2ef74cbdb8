# Two commands from nothing: `make demo` and `make test`. Each sets up .venv on its first call.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test test-slow lint types docs clean
setup: $(READY)

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"mobilezoo needs Python 3.11 to 3.13, found {v[0]}.{v[1]}: run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --progress-bar off --constraint requirements.lock --editable '.[all]'
	@touch $@

demo: $(READY)
	$(BIN)/mobilezoo demo

test: $(READY)
	$(BIN)/pytest -n auto -m 'not slow'

test-slow: $(READY)
	$(BIN)/pytest -n auto -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m mobilezoo.models.table

clean:
	rm -rf $(VENV) runs dist build
