#!/usr/bin/env bash
# Makes sure that Laravel is there, and Guzzle, which its broadcaster sends with: Debian's packages. Says nothing when
# they are. They start no service.
set -euo pipefail

present() {
    command -v php >/dev/null 2>&1 &&
        php -r 'exit((@include "Illuminate/autoload.php") && (@include "GuzzleHttp/autoload.php") && extension_loaded("mbstring") ? 0 : 1);'
}

fail() {
    echo "laravel.sh: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if present; then exit 0; fi
command -v apt-get >/dev/null 2>&1 || fail "Laravel is missing and there is no apt-get: put Illuminate/ and GuzzleHttp/ on php's include_path"

echo "laravel.sh: installing php-laravel-framework and php-guzzlehttp-guzzle" >&2
as_root apt-get update -qq >&2
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    php-laravel-framework php-guzzlehttp-guzzle php-cli php-curl >&2
present || fail "the packages are installed, but php does not load them: see 'php --ini'"
