# Everything a user or a developer needs, by name. Each target installs what it needs, into ignored folders.

CARGO ?= cargo
ARGS ?=
FUZZ_SECONDS ?= 600

.PHONY: help run build test check unit clients dashboard bench fuzz compare torture isolation crash clean

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

run: ## Build the server and start it on port 4222; ARGS="-p 5222 -D" passes flags
	$(CARGO) run --release --bin ringmain -- $(ARGS)

build: ## Build the server and the load tool
	$(CARGO) build --release

test: ## Every test: unit, property, wire dialogues, black box, official clients, a short fuzz
	./scripts/test.sh

check: ## Formatting and lints, warnings denied
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

unit: ## The tests that need nothing but Rust
	$(CARGO) test

clients: ## The applications on the official clients, against Ringmain and the real nats-server
	tests/clients/run.sh

dashboard: ## Build the dashboard's page anew from src/monitor/dashboard (needs Node; the result is committed)
	npm ci --prefix src/monitor/dashboard
	src/monitor/dashboard/node_modules/.bin/tsc --project src/monitor/dashboard
	node src/monitor/dashboard/build.mjs

bench: ## The criterion benches
	$(CARGO) bench

fuzz: ## Ten minutes of each fuzz target (FUZZ_SECONDS=600)
	fuzz/run.sh $(FUZZ_SECONDS)

isolation: ## Ten thousand random topologies of accounts against a naive model
	ISOLATION_TOPOLOGIES=10000 $(CARGO) test --lib isolation

torture: ## A million malformed frames beside an undisturbed pair
	MALFORMED_FRAMES=1000000 $(CARGO) test --test blackbox malformed -- --nocapture

crash: ## A hundred rounds of kill -9 under load: what was acknowledged is there (CRASH_ROUNDS=100)
	CRASH_ROUNDS=$${CRASH_ROUNDS:-100} $(CARGO) test --release --test crash -- --nocapture

compare: ## Measure against the real nats-server and write docs/numbers.md; ARGS="--quick" or ARGS="--only publish"
	scripts/compare.sh $(ARGS)

clean: ## Remove what was built and installed
	$(CARGO) clean
	rm -rf .deps fuzz/target src/monitor/dashboard/node_modules tests/dashboard/node_modules
