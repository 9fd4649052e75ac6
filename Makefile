# Everything runs through .venv, which the first target that needs it makes.
# make PYTHON=/path/to/python3.12 chooses the interpreter; make JOBS=4 the test processes; make REQUIRE=data,iverilog
# turns tests that would be skipped for want of these into failures (tests/requirements.py).

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

JOBS ?= 2
REQUIRE ?=
VERSIONS := 3.11, 3.12 or 3.13
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c '$(SUPPORTED)' >/dev/null 2>&1 && { echo "$$p"; break; }; done; true)
BIN := .venv/bin
STAMP := .venv/.installed
DEEP := .venv/deep
SOURCES := codesign rtl_templates sim boards tests examples benchmarks docs

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help venv demo report docs test quick test-deep prove deep stale bench lint format build clean

help: ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1|\2/' | column -t -s '|'

venv: $(STAMP) ## make .venv with the pinned packages and codesign, editable

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" -o -x $(BIN)/python || { echo "make: no Python $(VERSIONS) found; install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@p="$(PYTHON)"; test ! -x $(BIN)/python || p=$(BIN)/python; "$$p" -c '$(SUPPORTED)' 2>/dev/null || \
		{ echo "make: $$p is $$("$$p" -c 'import platform; print("Python", platform.python_version())' 2>/dev/null | grep . || echo not a Python); codesign needs Python $(VERSIONS) (.venv is made anew after rm -r .venv)" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@# Bytecode is written here once, on all cores: where PYTHONDONTWRITEBYTECODE is set or the environment is read-only,
	@# each command would compile torch anew. Some packages hold templates that are no Python; they do not matter.
	$(BIN)/python -m compileall -q -j 0 "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" >/dev/null 2>&1 || true
	touch $(STAMP)

demo: $(STAMP) ## from handwritten digits to verified Verilog: runs/demo
	$(BIN)/codesign demo -o runs/demo

docs: $(STAMP) ## the documentation as pages: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

report: $(STAMP) ## write the demo's report again
	$(BIN)/codesign report runs/demo

# Test processes share the cores already; threads of their own would only wait for each other.
test quick test-deep prove deep: export OMP_NUM_THREADS = 1
REQUIRED = $(if $(REQUIRE),--require $(REQUIRE))

test: $(STAMP) ## the default tests
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not deep" $(REQUIRED)

quick: $(STAMP) ## a selection of the tests, for in between
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not deep" --quick --durations 15 $(REQUIRED)

# Beside the environment: torch would look for a GPU's compiler wherever it finds one.
test-deep: $(STAMP) $(DEEP) ## the slow tests
	PYTHONPATH="$(CURDIR)/$(DEEP)" $(BIN)/python -m pytest -n $(JOBS) -m deep --require triton $(REQUIRED)

$(DEEP): requirements-deep.lock
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --upgrade --target $@ -r requirements-deep.lock
	touch $@

prove: $(STAMP) ## prove the components with SymbiYosys, about half an hour
	$(BIN)/python -m tests.proofs --jobs $(JOBS)

# Parts of both, those first that ran longest ago; tests/deep.json says on which sources each has run.
deep: $(STAMP) $(DEEP) ## deep tests and proofs that have not run on the present sources; make deep MINUTES=30
	PYTHONPATH="$(CURDIR)/$(DEEP)" $(BIN)/python -m tests.deep $(if $(MINUTES),--minutes $(MINUTES))

stale: $(STAMP) ## list them
	$(BIN)/python -m tests.deep --stale

bench: $(STAMP) ## measure the accelerator: benchmarks/releases keeps the figures
	$(BIN)/python -m benchmarks

lint: $(STAMP) ## style, types and import directions
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(STAMP) ## format, and repair what can be repaired
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

build: $(STAMP) ## a wheel in dist/
	rm -rf build
	$(BIN)/python -m build --wheel

clean: ## remove what tests and builds leave; runs/ and .venv stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
