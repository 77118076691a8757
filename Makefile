# make run     see it work: a song streams in, comes out of SQL, and plays again
# make test    the tests (ARGS="-k floors" for some of them)
# make check   format, lint, types, floors; changes nothing
# make fmt     format and mend what can be mended
# make bench   the table of measurements
# make faults  kills, cuts and broken networks on databases of its own, judged (ARGS="--seconds 60 --url ...")
# make migrate bring the database at RECORDER_URL to the newest schema
# make clean   remove what these made
#
# Needs only Python 3.11 or newer; PYTHON=/path/to/python chooses one. The rest goes into .venv by itself.

.DELETE_ON_ERROR:
.PHONY: run test check fmt bench faults migrate clean
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

run: $(VENV)/.base
	@$(BIN)/recorder demo $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q $(ARGS)

check: $(VENV)/.dev
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -q tests/test_floors.py

fmt: $(VENV)/.dev
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

faults: $(VENV)/.dev
	@$(BIN)/python -m tests.faults $(ARGS)

migrate: $(VENV)/.base
	@test -n "$$RECORDER_URL" || { echo "Say which database: make migrate RECORDER_URL=sqlite:///chat_history.db" >&2; exit 2; }
	$(BIN)/python -m alembic upgrade head

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each set of packages: installed once, and again when pyproject.toml is newer.
$(VENV)/.base: pyproject.toml $(VENV)/.made
	@echo "Installing into $(VENV) (once) ..."
	@$(PIP) install -e .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.made
	@echo "Installing into $(VENV) with the tools for development (once) ..."
	@$(PIP) install -e '.[dev]'
	@touch $(VENV)/.base $@

$(VENV)/.bench: pyproject.toml $(VENV)/.made
	@echo "Installing into $(VENV) with what the benchmarks compare against (once) ..."
	@$(PIP) install -e '.[bench]'
	@touch $(VENV)/.base $@

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
