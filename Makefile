# Needs Python 3.11 to 3.14 and make. Everything else is installed into .venv from requirements.lock.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
LOCKED := .venv/.locked
READY := .venv/.ready
LOG := .venv/setup.log
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps

PYTHONS := $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3
IN_RANGE := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))

CLIENT := clients/python
TYPED := $(patsubst %/,%,$(wildcard domain/ application/ projections/ interfaces/ tests/ bench/ demo/ \
	$(CLIENT)/tests/))
TEST_PROCESSES ?= 2

# A .venv whose Python has gone, or that came from another folder, is made again.
ifneq ($(shell test -x $(BIN)/python && cat $(LOCKED) 2>/dev/null),$(CURDIR))
.PHONY: $(LOCKED)
endif

.PHONY: help run test lint demo bench crash-test lin-test abuse lock setup

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  \1|/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

run: setup ## start the service on this machine, with its own Postgres unless DATABASE_URL is set
	@$(BIN)/holdfast-server serve

test: lint ## lint, then all tests; ARGS="-k name" is passed on to pytest
	@echo "test"
	@$(BIN)/python -m pytest -q -n $(TEST_PROCESSES) $(ARGS)

lint: setup ## ruff, mypy --strict, import rules
	@echo "lint"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { $(BIN)/ruff format --diff --quiet .; exit 1; }
	@$(BIN)/mypy --no-error-summary $(TYPED)
	@cd $(CLIENT) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --python-version 3.10 --no-error-summary holdfast
	@out=$$($(BIN)/lint-imports 2>&1) || { echo "$$out"; exit 1; }

demo: setup ## a tour against a service of its own
	@$(BIN)/python -m demo.run $(ARGS)

bench: setup ## measure
	@$(BIN)/python -m bench $(ARGS)

crash-test: setup ## kill the service and Postgres under load, then look for losses
	@$(BIN)/python -m tests.crash.run $(ARGS)

lin-test: setup ## many quarrel over few items while the service dies and stalls; then check that claims are linearizable
	@$(BIN)/python -m tests.lin.run $(ARGS)

abuse: setup ## attack a running service in many ways, with and without a key, while a normal client works; figures
	@$(BIN)/python -m tests.abuse.run $(ARGS)

# Where packages come from stays out of the lock: the machine that installs decides.
lock: setup ## choose versions again, for all platforms and Pythons, with hashes; ARGS="--upgrade" for the newest
	@echo "lock"
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command "make lock" --all-extras $(ARGS) \
		--output-file requirements.lock pyproject.toml $(CLIENT)/pyproject.toml

setup: $(READY)

$(READY): $(LOCKED) pyproject.toml $(CLIENT)/pyproject.toml
	@echo "setup: installing holdfast-server and holdfast"
	@$(PIP) --no-build-isolation --editable . --editable $(CLIENT) >>$(LOG) 2>&1 || { tail -n 30 $(LOG); exit 1; }
	@touch $@

# The stamp is written last and removed first, so that an interrupted setup starts over.
$(LOCKED): requirements.lock
	@rm -f $(LOCKED) $(READY); found=; python=; \
	for candidate in $(PYTHONS); do \
		"$$candidate" -c '$(IN_RANGE)' >/dev/null 2>&1 || continue; found=$$candidate; \
		"$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1 || continue; python=$$candidate; break; \
	done; \
	if [ -z "$$found" ]; then echo "setup: no Python 3.11 to 3.14 found; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; fi; \
	if [ -z "$$python" ]; then echo "setup: $$found cannot make a virtual environment; install its venv package (Debian, Ubuntu: $${found##*/}-venv)" >&2; exit 1; fi; \
	echo "setup: making .venv with $$python"; \
	"$$python" -m venv --clear .venv || exit 1; \
	echo "setup: installing the locked packages"; \
	$(PIP) --require-hashes --only-binary :all: --requirement requirements.lock >$(LOG) 2>&1 || { tail -n 30 $(LOG) >&2; exit 1; }
	@echo "$(CURDIR)" >$@
