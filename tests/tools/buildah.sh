#!/usr/bin/env bash
# Makes sure that the image can be built, looked at and run without a daemon: buildah, and the roots of trust that go in.
# Says nothing when all is there. Debian's packages start no service.
set -euo pipefail

missing=()
command -v buildah >/dev/null 2>&1 || missing+=(buildah)
command -v ip >/dev/null 2>&1 || missing+=(iproute2)
command -v file >/dev/null 2>&1 || missing+=(file)
[ -s /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
[ "${#missing[@]}" -gt 0 ] || exit 0

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

command -v apt-get >/dev/null 2>&1 || {
    echo "buildah.sh: install these by hand: ${missing[*]}" >&2
    exit 1
}
echo "buildah.sh: installing ${missing[*]}" >&2
as_root apt-get update -qq >&2
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
