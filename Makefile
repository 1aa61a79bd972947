# Everything one does with a checkout. Needs Python 3.11+ with venv, git and make.

# `make test PYTHON=python3.13` makes the environment anew with that Python, if it is of another
# one; add VENV=.venv-3.13 to keep both.
VENV ?= .venv
PYTHON ?= python3
READY := $(VENV)/.ready
TESTS ?= tests/unit tests/integration tests/contracts tests/acceptance tests/live tests/faults
# The long run: all of the last folder, and of the others what the short one leaves.
FAULTS ?= $(TESTS)
CANDIDATES = $(PYTHON) $(if $(filter file,$(origin PYTHON)),python3.14 python3.13 python3.12 python3.11)
RUN := mkdir -p .baton/tmp &&
LOCK := uv --quiet --no-cache --system-certs pip compile --universal --python-version 3.11 \
    --generate-hashes --no-emit-index-url --no-emit-find-links \
    --custom-compile-command "make lock" pyproject.toml
# The versions of production are those of development.
PRODUCTION = cp requirements-dev.lock requirements.lock && $(LOCK) -o requirements.lock >/dev/null
# What `make audit` asks with has an environment of its own: nothing of it is in ours.
AUDIT := .baton/audit

OUTSIDE := $(PATH)
export PATH := $(if $(filter /%,$(VENV)),$(VENV),$(CURDIR)/$(VENV))/bin:$(PATH)
# Hundreds of processes are started: each module is compiled for the first of them.
export PYTHONDONTWRITEBYTECODE :=
# Nothing is left outside the checkout, and git below .baton does not find the checkout's own.
export TMPDIR := $(CURDIR)/.baton/tmp
export GIT_CEILING_DIRECTORIES := $(CURDIR)/.baton
# A Python that is asked for by name is the one that is used.
ifneq ($(origin PYTHON),file)
ifneq ($(shell PATH='$(OUTSIDE)' '$(PYTHON)' -VV 2>&1),$(shell cat '$(READY)' 2>/dev/null))
.PHONY: $(READY)
endif
endif

.DEFAULT_GOAL := help
.PHONY: node help demo test up check audit faults bench study install-check schema lock sdk clean

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## Build a small site, update it and ask about it, each job resuming the last
	@$(RUN) exec baton demo

test: $(READY) ## Run the tests (some of them: make test TESTS=tests/unit; another Python: PYTHON=python3.13)
	@$(RUN) exec pytest -n 5 --dist loadscope -o tmp_path_retention_policy=failed \
	    -o tmp_path_retention_count=1 $(TESTS)

up: $(READY) ## Run every process of the Procfile, with a database and a broker, until Ctrl-C
	@$(RUN) exec baton up

check: $(READY) ## Check style, types and layers
	@ruff check
	@ruff format --check
	@python -m dev.rules config db worker tasks gateway egress dev clients/python
	@bandit --quiet --recursive --configfile pyproject.toml config db worker tasks gateway egress dev clients/python
	@pyright
	@lint-imports

audit: $(READY) $(AUDIT)/.ready ## Ask for known vulnerabilities, look at licences, write .baton/audit/sbom.json
	@$(RUN) exec python -m dev.audit $(AUDIT)

$(AUDIT)/.ready: requirements-audit.lock
	@python -m venv --clear $(AUDIT) && export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 && \
	$(AUDIT)/bin/python -m pip install --quiet --require-hashes -r requirements-audit.lock && touch $@

faults: $(READY) ## Kill, stop and cut off every part, many times, and print what held and how long it took
	@$(RUN) exec pytest -n 3 --dist loadscope --no-loadscope-reorder --long --timeout 900 -o tmp_path_retention_policy=failed \
	    -o tmp_path_retention_count=1 $(FAULTS)

bench: $(READY) ## Measure throughput and latency
	@$(RUN) exec baton bench

study: $(READY) ## Compare what updates cost: fresh sessions, resumed ones, compacted ones, our policy
	@$(RUN) exec baton bench study

install-check: $(READY) ## Install the wheel and the production lock from the registry, and run a job with them
	@$(RUN) python -m venv --clear .baton/tmp/installed && \
	export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 && \
	.baton/tmp/installed/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements.lock && \
	INSTALLED="$$TMPDIR/installed" pytest --long tests/acceptance/test_install.py && \
	rm -rf .baton/tmp/installed

node: ## What the tests of the page need of npm
	@mkdir -p .baton/node && cp tests/live/package.json .baton/node/ && \
	npm install --silent --no-audit --no-fund --prefix .baton/node

schema: $(READY) ## Write db/schema.sql, the schema of today, after a new migration
	@$(RUN) python -m dev.stack.schema

lock: $(READY) ## Choose the versions of all packages anew and write them down with their hashes
	@$(LOCK) --extra dev --upgrade -o requirements-dev.lock >/dev/null
	@$(PRODUCTION)
	@$(subst pyproject.toml,,$(LOCK)) --group audit --upgrade -o requirements-audit.lock >/dev/null

sdk: $(READY) ## Move the agent SDK and its CLI: make sdk TO=0.2.190 (docs/agent-sdk.md)
	@test -n "$(TO)" || { echo "Say to which version: make sdk TO=0.2.190" >&2; exit 2; }
	@sed 's/"claude-agent-sdk==[^"]*"/"claude-agent-sdk==$(TO)"/' pyproject.toml > pyproject.toml.new
	@mv pyproject.toml.new pyproject.toml
	@$(LOCK) --extra dev --upgrade-package claude-agent-sdk -o requirements-dev.lock >/dev/null
	@$(PRODUCTION)
	@$(MAKE) --no-print-directory $(READY)
	@python -c 'from claude_agent_sdk._cli_version import __cli_version__ as v; print("CLI", v)'

clean: ## Remove what make made; the data in .baton stays
	@rm -rf $(VENV) .baton/tmp .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -path ./.baton -prune -o -type d -name __pycache__ -exec rm -rf {} +

$(READY): requirements-dev.lock pyproject.toml
	@for name in $(CANDIDATES); do \
	    python=$$(PATH='$(OUTSIDE)' command -v "$$name") && \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	    python=; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "Baton needs Python 3.11 or newer, and $(firstword $(CANDIDATES)) is not: make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "Python's venv is missing: install it (on Debian: apt install python3-venv)." >&2; \
	    exit 1; \
	fi; \
	echo "Setting up $(VENV) from requirements-dev.lock, once; this takes about a minute." && \
	mkdir -p .baton/tmp && chmod 700 .baton && \
	export RUSTUP_HOME=$(TMPDIR) && : "pip asks rustc for its version, and rustup writes to HOME" && \
	"$$python" -m venv --clear $(VENV) && \
	export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 && \
	python -m pip install --quiet --require-hashes -r requirements-dev.lock && \
	python -m pip install --quiet --no-deps --no-build-isolation -e . && \
	python -VV > $@
