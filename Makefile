# make run           see it work: a song streams in, comes out of SQL, and plays again
# make check         format, lint, types, floors; changes nothing
# make fmt           format and mend what can be mended
# make test          the tests (ARGS="-k floors" for some of them); matrices are sampled by a printed seed
# make test-fast     the quick tests, for between two edits
# make test-all      the tests, with every cell of every matrix, and those that need the network
# make test-pythons  the tests on every supported Python that is installed
# make test-lowest   the tests on the lowest versions that pyproject.toml allows
# make test-latest   the tests on the newest versions there are
# make bench         the table of measurements
# make docs          the pages of docs/ and a reference of every public name as a site, build/docs/index.html
# make faults        kills, cuts and broken networks on databases of its own, judged (ARGS="--seconds 60 --url ...")
# make screenshot    make docs/images/page.png anew (needs Debian's chromium)
# make lock          write the lists of packages in .ci/lock anew, with today's versions
# make migrate       bring the database at RECORDER_URL to the newest schema
# make clean         remove what these made
# make help          print this list
#
# Needs only Python 3.11 or newer and a network; the rest goes into .venv by itself. PYTHON=/path/to/python chooses a
# Python: it has an environment of its own, .venv-3.13 for a Python 3.13. WORKERS=1 runs the tests in one process.

.DELETE_ON_ERROR:
.PHONY: run help check fmt test test-fast test-all test-pythons test-lowest test-latest newest bench docs faults screenshot lock migrate clean
ARGS ?=
WORKERS ?= logical
SITE ?= build/docs
PYTHONS := 3.11 3.12 3.13

# An environment for each Python that is chosen by name, and .venv for the one that is found.
ifneq ($(PYTHON),)
VERSION := $(shell "$(PYTHON)" -c 'import sys; print("-%d.%d" % sys.version_info[:2])' 2>/dev/null)
$(if $(VERSION),,$(error PYTHON=$(PYTHON) does not run; name a Python 3.11 or newer))
endif
VENV := .venv$(VERSION)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Only wheels: no package may run code of its own while it is installed.
INSTALL := $(PIP) install --require-hashes --only-binary :all: --requirement
PROJECT := $(PIP) install --no-deps --no-build-isolation --editable .
LOCK := .ci/lock
# The list that the tools for development come from.
DEV := dev
TESTS := $(BIN)/python -m pytest -q --numprocesses $(WORKERS) --maxprocesses 8

run: $(VENV)/.base
	@$(BIN)/recorder demo $(ARGS)

help:
	@sed -n 's/^# \(make [a-z]\)/\1/p' $(firstword $(MAKEFILE_LIST))

check: $(VENV)/.dev
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -q tests/test_floors.py

fmt: $(VENV)/.dev
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

test: $(VENV)/.dev
	$(TESTS) $(ARGS)

test-fast: $(VENV)/.dev
	$(TESTS) --fast $(ARGS)

test-all: $(VENV)/.dev
	$(TESTS) --all $(ARGS)

# pyenv's and uv's folders are looked into as well, because a Python that lies there need not be on the PATH.
test-pythons:
	@failed=; for version in $(PYTHONS); do \
	  found=; \
	  for python in python$$version "$$HOME"/.pyenv/versions/$$version.*/bin/python \
	      "$$HOME"/.local/share/uv/python/*-$$version.*/bin/python3; do \
	    [ "$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = $$version ] || continue; \
	    found="$$python"; break; \
	  done; \
	  if [ -z "$$found" ]; then echo "== Python $$version is not installed: not tested"; continue; fi; \
	  echo "== Python $$version: $$found"; \
	  $(MAKE) --no-print-directory test PYTHON="$$found" || failed="$$failed $$version"; \
	done; \
	[ -z "$$failed" ] || { echo "Tests failed on Python$$failed" >&2; exit 1; }

test-lowest:
	@$(MAKE) --no-print-directory test VENV=.venv-lowest$(VERSION) DEV=lowest

test-latest:
	@$(MAKE) --no-print-directory newest VENV=.venv-latest$(VERSION)

newest: $(VENV)/.made
	$(PIP) install --upgrade --upgrade-strategy eager pip --editable '.[dev]'
	@$(PIP) list --format freeze --exclude-editable
	$(TESTS) --network $(ARGS)

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

# From the beginning each time, because a page of the reference follows from many modules.
docs: $(VENV)/.docs
	@$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going --conf-dir docs --doctree-dir $(SITE)/.doctrees . $(SITE)
	@echo "The site is in $(SITE)/index.html"

faults: $(VENV)/.dev
	@$(BIN)/python -m tests.faults $(ARGS)

screenshot: $(VENV)/.dev
	@$(BIN)/python -m tests.server.screenshot

# The largest list first; the others are parts of it, so that one environment serves all. The lowest versions of what
# users install are found without their needs, and the tools for development are fitted to them.
COMPILE := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --no-header
LOCKED := $(COMPILE) --upgrade --generate-hashes --no-emit-index-url

lock: $(VENV)/.lock
	$(LOCKED) pyproject.toml --extra bench --group build --output-file $(LOCK)/bench.txt
	$(LOCKED) pyproject.toml --extra dev --extra frameworks --group build --constraint $(LOCK)/bench.txt --output-file $(LOCK)/dev.txt
	$(LOCKED) pyproject.toml --extra all --group build --constraint $(LOCK)/bench.txt --output-file $(LOCK)/base.txt
	$(COMPILE) --upgrade pyproject.toml --extra all --resolution lowest-direct --no-deps --output-file $(VENV)/lowest.in
	$(LOCKED) pyproject.toml --extra dev --group build --constraint $(VENV)/lowest.in --constraint $(LOCK)/lowest.in --output-file $(LOCK)/lowest.txt
	$(LOCKED) --group docs --constraint $(LOCK)/bench.txt --output-file $(LOCK)/docs.txt
	$(LOCKED) --group lock --output-file $(LOCK)/lock.txt

migrate: $(VENV)/.base
	@test -n "$$RECORDER_URL" || { echo "Say which database: make migrate RECORDER_URL=sqlite:///chat_history.db" >&2; exit 2; }
	$(BIN)/python -m alembic upgrade head

clean:
	rm -rf .venv .venv-* dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each list of packages: installed once, and again when the list or pyproject.toml is newer.
$(VENV)/.base: $(LOCK)/base.txt pyproject.toml $(VENV)/.made
	@echo "Installing into $(VENV) (once) ..."
	@$(INSTALL) $<
	@$(PROJECT)
	@touch $@

$(VENV)/.dev: $(LOCK)/$(DEV).txt pyproject.toml $(VENV)/.made
	@echo "Installing into $(VENV) with the tools for development (once) ..."
	@$(INSTALL) $<
	@$(PROJECT)
	@touch $(VENV)/.base $@

$(VENV)/.bench: $(LOCK)/bench.txt pyproject.toml $(VENV)/.made
	@echo "Installing into $(VENV) with what the benchmarks compare against (once) ..."
	@$(INSTALL) $<
	@$(PROJECT)
	@touch $(VENV)/.base $(VENV)/.dev $@

$(VENV)/.docs: $(LOCK)/docs.txt $(VENV)/.base
	@echo "Installing into $(VENV) what builds the documentation (once) ..."
	@$(INSTALL) $<
	@touch $@

$(VENV)/.lock: $(LOCK)/lock.txt $(VENV)/.made
	@$(INSTALL) $<
	@touch $@

# Each candidate is run and not only looked up: a pyenv shim may exist without its Python.
CANDIDATES := $(or $(PYTHON),python3.13 python3.12 python3.11 python3.14 python3 python)
SUITABLE := import sys; sys.exit(sys.version_info < (3, 11))

$(VENV)/.made:
	@rm -rf $(VENV); \
	for python in $(CANDIDATES); do \
	  "$$python" -c '$(SUITABLE)' >/dev/null 2>&1 || continue; \
	  found="$$python"; \
	  "$$python" -c 'import venv, ensurepip' >/dev/null 2>&1 || continue; \
	  "$$python" -m venv $(VENV) && touch $@ && exit 0; \
	  exit 1; \
	done; \
	if [ -n "$$found" ]; then \
	  echo "$$found has no venv module with pip. On Debian and Ubuntu: apt-get install python3-venv." >&2; \
	else \
	  echo "No Python 3.11 or newer was found (tried: $(CANDIDATES))." >&2; \
	fi; \
	echo "Install one, or choose another: make PYTHON=/path/to/python3" >&2; \
	exit 1
