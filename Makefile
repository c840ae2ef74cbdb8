# Two commands from nothing: `make demo` and `make test`. Each sets up .venv on its first call.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup devices demo test test-slow test-nightly lint types schemas models zoo docs clean
setup: $(READY)

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"mobilezoo needs Python 3.11 to 3.13, found {v[0]}.{v[1]}: run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --progress-bar off --constraint requirements.lock --editable '.[all,dev]'
	@touch $@

# What some tests measure on. Where it cannot be had (no apt, no network), they skip and the last lines say so.
devices: $(READY)
	@for what in emulator browser gpu; do \
		$(BIN)/mobilezoo device setup $$what || echo "tests that need it skip: see the line above, then $(BIN)/mobilezoo device setup $$what"; \
	done
	@$(BIN)/pip install --quiet --progress-bar off --constraint requirements.lock --editable '.[coreai]' || echo "tests of coreai skip"

demo: $(READY)
	$(BIN)/mobilezoo demo

test: devices
	$(BIN)/pytest -n auto -m 'not slow and not nightly'

test-slow: devices
	$(BIN)/pytest -n auto -m 'slow and not nightly'

test-nightly: devices
	$(BIN)/pytest -n auto -m nightly

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

KINDS := model train export profile search device

schemas: $(READY)
	for kind in $(KINDS); do $(BIN)/mobilezoo schema $$kind > configs/schemas/$$kind.json || exit 1; done

models: $(READY)
	$(BIN)/python -m mobilezoo.models.table

zoo: $(READY)
	$(BIN)/python -m mobilezoo.report.zoo_page

$(VENV)/.docs: $(READY)
	$(BIN)/pip install --quiet --progress-bar off --constraint requirements.lock --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) runs dist build
