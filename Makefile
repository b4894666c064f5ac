# `make run` to try it, `make test` before every commit. What a target needs and the machine lacks is installed.

CARGO ?= cargo

.PHONY: run test check tools build bench clean

# The gateway with the embedded broker, on this machine only, and a page to try it on.
run:
	$(CARGO) run --package carillon-cli -- dev

# Everything that must hold, on a clean machine with only the Rust toolchain.
test: tools check
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
	bash tests/tools/node.sh
	bash tests/tools/chromium.sh
	bash tests/tools/kubernetes.sh

# The program as it is shipped.
build:
	$(CARGO) build --release --package carillon-cli

# CPU per delivery and per publish, and memory per connection, as ratios to what the machine can do at best.
# About ten minutes. ROUNDS and SECONDS change how long.
ROUNDS ?= 5
SECONDS ?= 2
bench: build
	$(CARGO) build --release --package carillon-benches
	target/release/compare --rounds $(ROUNDS) --seconds $(SECONDS) --at-most 1500

clean:
	$(CARGO) clean
	rm -rf .test-tools
