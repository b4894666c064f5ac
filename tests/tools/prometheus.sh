#!/usr/bin/env bash
# Unpacks the distribution's Prometheus into .test-tools/prometheus/: `prometheus`, which scrapes in the tests, and
# `promtool`, which checks metrics and alerts. The package is not installed, so that no service is started.
# Does nothing, quickly, when both are there.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=$(cd "$here/../.." && pwd)/.test-tools/prometheus
oldest=2.42

scratch=""
trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT

fail() {
    echo "prometheus.sh: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Says whether <binary> starts and is new enough.
good() {
    local version
    version=$("$1" --version 2>&1 | sed -n 's/^prom[a-z]*, version \([0-9.]*\).*/\1/p')
    [ -n "$version" ] && [ "$(printf '%s\n' "$oldest" "$version" | sort -V | head -1)" = "$oldest" ]
}

present() {
    [ -x "$target/prometheus" ] && [ -x "$target/promtool" ] && good "$target/prometheus" && good "$target/promtool"
}

if present; then exit 0; fi
command -v apt-get >/dev/null 2>&1 || fail "no apt-get: put prometheus and promtool, $oldest or later, into $target"

scratch=$(mktemp -d)
# The user that apt-get fetches as must be able to write here.
chmod 777 "$scratch"
if ! (cd "$scratch" && apt-get download -qq prometheus 2>/dev/null); then
    as_root apt-get update -qq
    (cd "$scratch" && apt-get download -qq prometheus) || fail "apt-get download prometheus failed"
fi
dpkg-deb -x "$scratch"/prometheus_*.deb "$scratch/tree"
mkdir -p "$target"
for name in prometheus promtool; do
    good "$scratch/tree/usr/bin/$name" || fail "the distribution's $name is older than $oldest"
    mv -f "$scratch/tree/usr/bin/$name" "$target/$name"
done
present || fail "$target has no prometheus that starts"
echo "prometheus.sh: unpacked into $target"
