#!/bin/sh
# Makes sure that `php` is there with curl and tokenizer, for clients/php/tests. Says nothing when it is.
# Installs Debian's packages as root or through sudo; fails loudly when it cannot.
set -eu

present() {
  command -v php >/dev/null 2>&1 && php -r 'exit(extension_loaded("curl") && extension_loaded("tokenizer") ? 0 : 1);'
}

fail() {
  echo "php.sh: $1" >&2
  exit 1
}

present && exit 0

command -v apt-get >/dev/null 2>&1 || fail "php with curl is missing and there is no apt-get: install php-cli and php-curl"
if [ "$(id -u)" -eq 0 ]; then
  sudo=
elif command -v sudo >/dev/null 2>&1; then
  sudo=sudo
else
  fail "php with curl is missing: install php-cli and php-curl as root"
fi

echo "php.sh: installing php-cli and php-curl" >&2
install() {
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends php-cli php-curl >&2
}
# The package lists of a fresh machine are missing or old.
install || { $sudo apt-get update >&2 && install; } || fail "apt-get could not install php-cli and php-curl; see above"
present || fail "php-cli and php-curl are installed, but php still lacks curl or tokenizer: see 'php --ini'"
