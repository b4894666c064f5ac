# `make run` to try it, `make test` before every commit. What a target needs and the machine lacks is installed.

CARGO ?= cargo

.PHONY: run test check tools build static image bench chaos sim clean

# The gateway with the embedded broker, on this machine only, and a page to try it on.
run:
	$(CARGO) run --package carillon-cli -- dev

# Everything that must hold, on a clean machine with only the Rust toolchain.
test: tools check static
	$(CARGO) build --package carillon-cli --package carillon-benches
	$(CARGO) test --workspace

# Style, lints and documentation.
check:
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

# What the tests drive: nats-server in three versions, PHP, a JavaScript runtime, a browser. Pinned; quick when present.
tools:
	bash tests/tools/system.sh
	bash tests/tools/nats.sh
	bash tests/tools/php.sh
	bash tests/tools/laravel.sh
	bash tests/tools/node.sh
	bash tests/tools/chromium.sh
	bash tests/tools/nginx.sh
	bash tests/tools/prometheus.sh
	bash tests/tools/wheels.sh

# The program as it is shipped.
build:
	$(CARGO) build --release --package carillon-cli

# What goes into the image: the program as a static binary, and the machine's roots of trust. Function names are kept
# for backtraces; lines of code, three quarters of the file, are not.
REVISION = $(shell git rev-parse --short=12 HEAD)
DIRTY = $(shell git diff --quiet HEAD || echo -dirty)
static:
	bash tests/tools/system.sh
	bash tests/tools/buildah.sh
	target=$$(bash tests/tools/musl.sh) && \
	CARILLON_REVISION=$(REVISION)$(DIRTY) $(CARGO) build --release --package carillon-cli --target $$target && \
	mkdir -p target/image && \
	strip --strip-debug -o target/image/carillon target/$$target/release/carillon
	install -m 644 /etc/ssl/certs/ca-certificates.crt target/image/

# The image: with docker where its engine runs, else with buildah.
IMAGE ?= carillon:dev
BUILD ?= $(shell docker info >/dev/null 2>&1 && echo docker build || echo buildah build --format docker --isolation chroot)
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
image: static
	$(BUILD) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --tag $(IMAGE) --file deploy/Dockerfile target/image

# CPU per delivery and per publish, and memory per connection, as ratios to what the machine can do at best; then the
# rosters of presence channels while users come and go. About twelve minutes. ROUNDS and SECONDS change how long.
ROUNDS ?= 5
SECONDS ?= 2
bench: build
	bash tests/tools/nats.sh
	$(CARGO) build --release --package carillon-benches
	target/release/compare --rounds $(ROUNDS) --seconds $(SECONDS) --at-most 1500
	target/release/churn

# Real processes under faults, and what came of it: `make chaos SEED=7 SECONDS=180 CLIENTS=1000 SCENARIO=rage`. Scenarios
# are rage, roll, kill, storm and away. MODE=--release builds what is shipped, MORE='rate=300 transports=ws,poll' says
# more. Ledgers are kept in target/chaos.
SCENARIO ?= rage
SEED ?= 1
CLIENTS ?= 500
MODE ?=
chaos: SECONDS = 90
chaos: tools
	$(CARGO) build $(MODE) --package carillon-cli
	$(CARGO) run $(MODE) --package carillon-tests --bin chaos -- $(SCENARIO) seed=$(SEED) seconds=$(SECONDS) clients=$(CLIENTS) $(MORE)

# The rules in virtual time, by as many seeds as asked: `make sim SEEDS=1000000 FROM=500000`. `make sim TRACE=7` shows what
# happens in the schedule of one.
SEEDS ?= 100000
FROM ?= 0
sim:
	$(CARGO) run --release --package carillon-tests --bin sim -- $(if $(TRACE),--trace $(TRACE),$(SEEDS) $(FROM))

clean:
	$(CARGO) clean
	rm -rf .test-tools
