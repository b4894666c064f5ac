#!/usr/bin/env bash
# Makes sure that nginx is there, for the tests that put it in front of gateways. Says nothing when it is.
#
# Debian's package would start a service; a policy that forbids it stands while it is installed, unless there is one.
set -euo pipefail

present() {
    [ -x /usr/sbin/nginx ]
}

fail() {
    echo "nginx.sh: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if present; then exit 0; fi
command -v apt-get >/dev/null 2>&1 || fail "nginx is missing and there is no apt-get: install nginx, 1.18 or later"

policy=/usr/sbin/policy-rc.d
forbids=""
trap '[ -z "$forbids" ] || as_root rm -f "$policy"' EXIT
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    forbids=yes
    as_root chmod +x "$policy"
fi

echo "nginx.sh: installing nginx-light" >&2
as_root apt-get update -qq
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light >&2
present || fail "nginx-light is installed, but there is no /usr/sbin/nginx"
