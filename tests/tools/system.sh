#!/usr/bin/env bash
# Makes sure that what the build and the tests take for granted is there: a C compiler for the crates that carry C,
# git for the tidy test, python3 for the other scripts here, curl for the README, openssl for certificates, prlimit for
# running out of descriptors, systemd-analyze for the unit. Says nothing when they are.
set -euo pipefail

missing=()
command -v cc >/dev/null 2>&1 || missing+=(build-essential)
command -v git >/dev/null 2>&1 || missing+=(git)
command -v python3 >/dev/null 2>&1 || missing+=(python3)
command -v openssl >/dev/null 2>&1 || missing+=(openssl)
command -v curl >/dev/null 2>&1 || missing+=(curl)
command -v prlimit >/dev/null 2>&1 || missing+=(util-linux)
command -v systemd-analyze >/dev/null 2>&1 || missing+=(systemd)
[ "${#missing[@]}" -gt 0 ] || exit 0

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

command -v apt-get >/dev/null 2>&1 || {
    echo "system.sh: install these by hand: ${missing[*]}" >&2
    exit 1
}
echo "system.sh: installing ${missing[*]}" >&2
as_root apt-get update -qq
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
