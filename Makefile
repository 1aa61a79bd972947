# Everything one does with a checkout. Needs Python 3.11+ with venv, git and make.

VENV := .venv
READY := $(VENV)/.ready
TESTS ?= tests/unit tests/integration tests/contracts tests/acceptance tests/faults
FAULTS ?= tests/faults
PYTHON ?= python3
RUN := mkdir -p .baton/tmp &&
COMPILE := uv --quiet --no-cache --system-certs pip compile --universal --python-version 3.11 \
    --extra dev --generate-hashes --no-emit-index-url --no-emit-find-links \
    --custom-compile-command "make lock" pyproject.toml -o requirements.lock

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Nothing is left outside the checkout, and git below .baton does not find the checkout's own.
export TMPDIR := $(CURDIR)/.baton/tmp
export GIT_CEILING_DIRECTORIES := $(CURDIR)/.baton

.DEFAULT_GOAL := help
.PHONY: help demo test up check faults bench lock sdk clean

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## Build a small site, update it and ask about it, each job resuming the last
	@$(RUN) exec baton demo

test: $(READY) ## Run the tests (some of them: make test TESTS=tests/unit)
	@$(RUN) exec pytest -n 3 --dist loadscope -o tmp_path_retention_policy=failed \
	    -o tmp_path_retention_count=1 $(TESTS)

up: $(READY) ## Run every process of the Procfile, with a database and a broker, until Ctrl-C
	@$(RUN) exec baton up

check: $(READY) ## Check style, types and layers
	@ruff check
	@ruff format --check
	@pyright
	@lint-imports

faults: $(READY) ## Kill, stop and cut off every part, many times, and print what held and how long it took
	@$(RUN) exec pytest -n 3 --dist loadscope --no-loadscope-reorder --long --timeout 900 -o tmp_path_retention_policy=failed \
	    -o tmp_path_retention_count=1 $(FAULTS)

bench: $(READY) ## Measure throughput and latency
	@$(RUN) exec baton bench

lock: $(READY) ## Choose the versions of all packages anew and write them down with their hashes
	@$(COMPILE) --upgrade >/dev/null

sdk: $(READY) ## Move the agent SDK and its CLI: make sdk TO=0.2.190 (docs/agent-sdk.md)
	@test -n "$(TO)" || { echo "Say to which version: make sdk TO=0.2.190" >&2; exit 2; }
	@sed 's/"claude-agent-sdk==[^"]*"/"claude-agent-sdk==$(TO)"/' pyproject.toml > pyproject.toml.new
	@mv pyproject.toml.new pyproject.toml
	@$(COMPILE) --upgrade-package claude-agent-sdk >/dev/null
	@$(MAKE) --no-print-directory $(READY)
	@python -c 'from claude_agent_sdk._cli_version import __cli_version__ as v; print("CLI", v)'

clean: ## Remove what make made; the data in .baton stays
	@rm -rf $(VENV) .baton/tmp .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -path ./.baton -prune -o -type d -name __pycache__ -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml
	@for name in $(PYTHON) python3.14 python3.13 python3.12 python3.11; do \
	    $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	    name=; \
	done; \
	if [ -z "$$name" ]; then \
	    echo "Baton needs Python 3.11 or newer on PATH (or: make PYTHON=/path/to/python3)." >&2; \
	    exit 1; \
	fi; \
	if ! $$name -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "Python's venv is missing: install it (on Debian: apt install python3-venv)." >&2; \
	    exit 1; \
	fi; \
	echo "Setting up $(VENV) from requirements.lock, once; this takes about a minute." && \
	mkdir -p .baton/tmp && chmod 700 .baton && \
	export RUSTUP_HOME=$(TMPDIR) && : "pip asks rustc for its version, and rustup writes to HOME" && \
	$$name -m venv $(VENV) && \
	export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 && \
	python -m pip install --quiet --require-hashes -r requirements.lock && \
	python -m pip install --quiet --no-deps --no-build-isolation -e . && \
	touch $@
