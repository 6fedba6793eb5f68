# Tutti's commands. Each makes what it needs: a virtual environment in .venv, from Python 3.11 or newer, without root.
# `make PYTHON=/path/to/python3.12 …` chooses the interpreter. A second run finds everything in place and starts at once.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_BENCH := $(VENV)/.installed-bench
TEST_PROCESSES := 2
SOURCES := platform/tutti jobs serve cluster benchmarks tests
# These take as long as they are told to: python -m benchmarks.chaos --minutes 10.
BENCHMARKS := $(filter-out __init__ harness mutants chaos chaos_catalogue,$(basename $(notdir $(wildcard benchmarks/*.py))))

# What pip must build obeys the pins too: older versions of pip read the first name for that, newer ones the second.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench pins clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo    the whole river on real scores: train, register, make a catalogue, say how to serve it'
	@echo 'make test    style, types, imports and all tests'
	@echo 'make lint    style, types and imports alone'
	@echo 'make bench   the benchmarks, beside their peers'
	@echo 'make pins    resolve pyproject.toml afresh into constraints.txt'
	@echo 'make clean   remove the environment and the caches; results stay'

demo: $(INSTALLED)
	@$(BIN)/tutti demo

# Two processes share the tests. Those that start clusters and servers, and often wait for them, come after those that
# only compute, and in the order that tests/integration/conftest.py gives them. Both run, whatever the first finds.
test: lint
	@failed=0; \
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --ignore tests/integration || failed=1; \
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder tests/integration || failed=1; \
	exit $$failed

lint: $(INSTALLED)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED_BENCH)
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Prints the first interpreter that can make a virtual environment, or says what is wrong.
FIND_PYTHON = \
	for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python); do \
		"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
			&& { echo "$$python"; exit 0; }; \
	done; \
	{ \
		echo 'error: no Python 3.11 or newer with the modules venv and ensurepip was found in: $(or $(PYTHON),$$PATH)'; \
		echo '  Install it (Debian and Ubuntu: packages python3 and python3-venv), or name one:'; \
		echo '  make PYTHON=/path/to/python3.11 $(or $(MAKECMDGOALS),demo)'; \
	} >&2; \
	exit 1

# Runs a command while no other does so: two commands that start together must not install into one environment at once.
IN_TURN = -c 'import fcntl, subprocess, sys; \
	lock = open(sys.argv[1], "w"); fcntl.flock(lock, fcntl.LOCK_EX); sys.exit(subprocess.call(sys.argv[2:]))' $(VENV)/.lock

define install
	@python=$$($(FIND_PYTHON)) && mkdir -p $(VENV) && "$$python" $(IN_TURN) /bin/sh -ec ' \
		"$$0" -m venv $(VENV); \
		$(BIN)/python -m pip install -c constraints.txt -e ".[$(1)]"' "$$python"
	@printf '%s\n' "$$PWD" > $@
endef

# The environment holds absolute paths, so a stamp counts only where it was made and while its interpreter runs.
ifneq ($(shell $(BIN)/python -c '' 2>/dev/null && cat $(INSTALLED) 2>/dev/null),$(CURDIR))
.PHONY: $(INSTALLED) $(INSTALLED_BENCH)
endif

$(INSTALLED): pyproject.toml constraints.txt
	$(call install,dev)

$(INSTALLED_BENCH): $(INSTALLED)
	$(call install,dev$(comma)bench)

comma := ,

# Torch's CUDA packages and other platforms' packages are not resolved here; constraints.txt says so at its top.
PINS := $(VENV)/pins
pins: $(INSTALLED)
	rm -rf $(PINS) && $(BIN)/python -m venv $(PINS)
	PIP_CONSTRAINT= PIP_BUILD_CONSTRAINT= $(PINS)/bin/python -m pip install -e '.[dev,bench]' setuptools wheel \
		$$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])')
	{ sed -n '/^#/p' constraints.txt; $(PINS)/bin/python -m pip freeze --all --exclude-editable \
		| sed -e 's/+.*//' -e '/^pip==/d' | LC_ALL=C sort -f; } > $(PINS)/constraints.txt
	mv $(PINS)/constraints.txt constraints.txt && rm -rf $(PINS)
