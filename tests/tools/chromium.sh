#!/usr/bin/env bash
# Makes sure that Chromium is there, for the tests of the page. Says nothing when it is.
set -euo pipefail

# The same names in the same order as in tests/src/browser.rs.
present() {
    local name
    for name in chromium chromium-browser google-chrome; do
        # Ubuntu's package is a script that asks for a snap: what counts is that it starts.
        if "$name" --version >/dev/null 2>&1; then return 0; fi
    done
    return 1
}

fail() {
    echo "chromium.sh: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if present; then exit 0; fi
command -v apt-get >/dev/null 2>&1 || fail "Chromium is missing and there is no apt-get: install it"

echo "chromium.sh: installing chromium" >&2
as_root apt-get update -qq
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >&2
present || fail "chromium is installed, but does not start (Ubuntu's needs snapd): install Chromium or Google Chrome"
