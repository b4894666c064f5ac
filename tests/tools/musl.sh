#!/usr/bin/env bash
# Makes sure that a static binary can be built: Rust's musl target, and musl-gcc for the crates that carry C.
# Prints the target's name and nothing else.
set -euo pipefail

fail() {
    echo "musl.sh: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

case $(uname -m) in
x86_64 | aarch64) target=$(uname -m)-unknown-linux-musl ;;
*) fail "no static binary is made for $(uname -m)" ;;
esac

if ! command -v musl-gcc >/dev/null 2>&1; then
    command -v apt-get >/dev/null 2>&1 || fail "musl-gcc is missing and there is no apt-get: install musl-tools"
    echo "musl.sh: installing musl-tools" >&2
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends musl-tools >&2
fi

# Asked of the compiler that will build: rustup may have several, and a distribution's has no rustup.
library=$(rustc --print target-libdir --target "$target")
if ! compgen -G "$library/libstd-*.rlib" >/dev/null; then
    command -v rustup >/dev/null 2>&1 || fail "Rust's $target is missing and there is no rustup: install it"
    echo "musl.sh: installing Rust's $target" >&2
    rustup target add "$target" >&2
    compgen -G "$library/libstd-*.rlib" >/dev/null || fail "rustup has no $target for $(rustc --version)"
fi

echo "$target"
