#!/usr/bin/env bash
# Makes sure that Node.js is there, and installs what tests/js/package-lock.json pins by hash. Quick when all is there.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
js=$here/../js

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if ! command -v npm >/dev/null 2>&1; then
    command -v apt-get >/dev/null 2>&1 || {
        echo "node.sh: npm is missing and there is no apt-get: install nodejs and npm, 18 or later" >&2
        exit 1
    }
    echo "node.sh: installing nodejs and npm" >&2
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm
fi

node -e 'const [major, minor] = process.versions.node.split(".").map(Number); process.exit(major > 18 || (major === 18 && minor >= 17) ? 0 : 1)' || {
    echo "node.sh: Node.js 18.17 or later is needed, here is $(node --version): install a newer nodejs" >&2
    exit 1
}

# The marker is younger than the lock file when that is what is installed.
if [ ! "$js/node_modules/.package-lock.json" -nt "$js/package-lock.json" ]; then
    npm ci --prefix "$js" --no-audit --no-fund --loglevel=error
    touch "$js/node_modules/.package-lock.json"
fi
