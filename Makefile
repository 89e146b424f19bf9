# Every target is safe to repeat, and writes nothing outside this directory (Cargo's own cache aside) on a machine that
# has what is needed. `make test` installs what is missing with apt-get, where it may.

SHELL := bash
CARGO ?= cargo
# Cases of each property test under `make soak`; `make test` has the default, 256.
SOAK_CASES ?= 20000
# Minutes of each world of `make chaos` and of the soak: CI has seconds of the one and a minute and a half of the other.
MINUTES ?= 60
# Worlds that `make sim` plays; each is a seed.
SEEDS ?= 100000
# `small`: worlds of few clients and requests.
SIZE ?=
# For `make run` and the benchmarks: what follows the command.
ARGS ?=
# Where Cargo builds, and what else is installed goes.
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)

.DEFAULT_GOAL := help
.PHONY: help run demo-envoy test bench bench-envoy bench-peers bench-registry bench-shards bench-usage bench-console lint format-check clippy doc licences buf contract soak kustomize dist dist-check test-upgrade soak-load chaos valkey sim

help: ## Lists the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: ## Builds and serves on 127.0.0.1:50051 with the example policy (ARGS="--policy …")
	$(CARGO) run --locked --release -- serve $(ARGS)

# Built for debugging, which is quickest: two minutes on two cores the first time. Then it takes a quarter of a minute.
demo-envoy: ## Shows each kind of answer through the real Envoy before a mock of Groq, and two ledgers that agree
	@.ci/clients $(TARGET)/clients/envoy
	$(CARGO) build --locked --bin tollgate --example mock-groq
	@$(TARGET)/clients/envoy/bin/python -B deploy/envoy/demo $(TARGET)/debug

test: ## Runs all tests, on both stores; installs what they need if it is missing
	@.ci/tools
	$(CARGO) test --locked

bench: ## Builds for speed and measures, aims at the end (ARGS="--only AIM,… --turns N --seconds S")
	$(CARGO) bench --locked --bench load -- $(ARGS)

bench-registry: ## Builds for speed and measures what a change of one key costs with 10,000 keys
	$(CARGO) bench --locked --bench registry

bench-usage: ## Builds for speed and measures a report of a year with 10,000 keys (ARGS="--days N --keys N")
	$(CARGO) bench --locked --bench usage -- $(ARGS)

bench-shards: ## Builds for speed and measures what a cluster carries with 1, 2 and 3 shards (ARGS="--turns N --seconds S")
	$(CARGO) bench --locked --bench shards -- $(ARGS)

bench-console: ## Builds as from source and measures the console's pages with 1,000 teams and 10,000 keys (ARGS="--requests N --turns N")
	$(CARGO) build --locked --release --bin tollgate
	@.ci/console-pages.py $(TARGET)/release/tollgate $(ARGS)

bench-envoy: ## Builds for speed and measures what Envoy's filters add; installs Envoy under target/ if it is missing (ARGS="…")
	$(CARGO) bench --locked --bench envoy -- $(ARGS)

bench-peers: ## Builds for speed and measures other rate limiters beside ours; installs them under target/peers (ARGS="…")
	@.ci/peers $(TARGET)/peers
	$(CARGO) bench --locked --bench load -- --peers $(TARGET)/peers/bin $(ARGS)

lint: format-check clippy doc licences buf ## Runs every check that is no test

format-check: ## Checks the formatting
	$(CARGO) fmt --check

clippy: ## Checks all code, warnings denied
	$(CARGO) clippy --locked --all-targets -- -D warnings

doc: ## Builds the documentation of the code, warnings denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --lib

licences: ## Checks the licences of all dependencies
	python3 .ci/licences.py

BUF := $(if $(shell command -v buf),buf,npx --yes @bufbuild/buf)
# What `buf breaking` compares with, without comments.
LANDED := .ci/contract.binpb
buf contract: export npm_config_cache := $(CURDIR)/target/npm
buf contract: export BUF_CACHE_DIR := $(CURDIR)/target/buf
# A registry that does not answer is found out in time for the check to be skipped, loudly.
buf contract: export npm_config_fetch_retries := 1
buf contract: export npm_config_fetch_timeout := 30000
buf: ## Checks the contract and that it breaks nothing, where buf is installed or npx can get it
	@if $(BUF) --version >/dev/null 2>&1; then $(BUF) lint && $(BUF) breaking --against $(LANDED); \
	else echo "buf is not to be had: the contract was not checked"; fi

contract: ## Records additions to the contract, which later changes then may not break
	$(BUF) lint
	$(BUF) breaking --against $(LANDED)
	$(BUF) build --exclude-source-info -o $(LANDED)

# `dist` optimises the whole program at once, which takes long; DIST_PROFILE=release took 21 minutes on two busy cores.
dist dist-check: export DIST_PROFILE ?= dist
dist: ## Builds a release into target/shipped: binary, packages, image, chart, contract, checksums (DIST_PROFILE=release: sooner)
	@.ci/dist

dist-check: ## Builds the release of the last commit twice, in two directories, and compares the files
	@.ci/dist-check

kustomize: ## Renders the Kustomize base from the chart
	@.ci/helm $(TARGET)/clients/helm
	.ci/kustomize $(TARGET)/clients/helm/bin/helm > $(TARGET)/kustomize.yaml
	mv $(TARGET)/kustomize.yaml deploy/kustomize/base/tollgate.yaml

# Where there is none before this commit, the tests say so and are skipped.
test-upgrade: ## Builds the last release and runs it beside this one, on both stores (LAST=TAG)
	@.ci/tools
	@last=$$(.ci/last-release $(TARGET)/last-release $(LAST)) && \
	TOLLGATE_LAST_RELEASE=$$last $(CARGO) test --locked --test suite -- layouts::adjacent
# Built for speed, apart from all else.
sim: ## Plays SEEDS worlds of the simulator over the plain model (SEEDS=100000 SIZE=small; TOLLGATE_SIM_SEED=7 plays one)
	TOLLGATE_SIM_SEEDS=$(SEEDS) $(CARGO) test --locked --profile sim --lib sim::tests::every_$(if $(SIZE),$(SIZE)_)world_over_the_model -- --nocapture

soak: ## Runs all tests for long: many more cases, and those that are too slow for every day
soak: soak-load ## Runs all tests for long: many more cases, and those that are too slow for every day; before them, soak-load
	@.ci/tools
	PROPTEST_CASES=$(SOAK_CASES) $(CARGO) test --locked -- --include-ignored

soak-load: ## An hour of a steady load: memory stays flat, and answers do not become slower (MINUTES=N)
	@.ci/tools
	TOLLGATE_SOAK_SECONDS=$$((60 * $(MINUTES))) $(CARGO) test --locked --test suite -- soak:: --nocapture

valkey: ## Runs the tests on Redis with Debian's Valkey, which it puts under target/ (without root)
	@.ci/valkey $(TARGET)/valkey
	PATH="$(TARGET)/valkey/bin:$$PATH" $(CARGO) test --locked --lib -- store::redis
	PATH="$(TARGET)/valkey/bin:$$PATH" $(CARGO) test --locked --test suite -- conformance differential topology redis_access outages

chaos: ## Faults of real processes one after another, an hour for each kind of Redis (MINUTES=N; TOLLGATE_CHAOS_SEED=N again)
	@.ci/tools
	TOLLGATE_CHAOS_SECONDS=$$((60 * $(MINUTES))) $(CARGO) test --locked --test suite -- chaos:: --nocapture --test-threads=1
