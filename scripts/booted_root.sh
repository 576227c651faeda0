#!/usr/bin/env bash
# Makes ready what the tests of the service boot: a root of Debian with systemd, and the wheels that an installation on it
# needs, fetched by this machine with the lock's hashes (inside, nothing is fetched). Kept under .build/booted.
# Usage: booted_root.sh bookworm|trixie   Exit status 4, with the reason on stderr, where that cannot be made.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=$1
case $suite in bookworm) python=3.11 ;; trixie) python=3.13 ;; *) echo "unknown: $suite" >&2; exit 2 ;; esac
cannot() { printf '%s\n' "$1" >&2; exit 4; }

[ "$(id -u)" = 0 ] || cannot "not root"
command -v systemd-nspawn >/dev/null 2>&1 || cannot "systemd-nspawn is missing: apt-get install systemd-container"
here=$PWD/.build/booted
root=$here/$suite
mkdir -p "$here"
exec 9>"$here/$suite.lock" && flock 9  # two runs at a time must not make the same root
if [ ! -e "$here/$suite.ready" ]; then
    command -v mmdebstrap >/dev/null 2>&1 || apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null 2>&1; } || cannot "mmdebstrap cannot be installed"
    rm -rf "$root"
    mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus,udev,bluez,python3,python3-venv,procps "$suite" "$root" 2>"$here/$suite.log" ||
        cannot "no root of $suite could be made: $(tail -1 "$here/$suite.log")"
    touch "$here/$suite.ready"
fi
wanted=$(sha256sum requirements-gateway.lock | cut -d' ' -f1)
wheels=$here/wheels-$python
if [ "$(cat "$wheels/stamp" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$wheels"
    ${PYTHON:-python3} -m pip download --quiet --disable-pip-version-check --require-hashes --only-binary=:all: --no-deps --python-version $python \
        --implementation cp --abi cp${python/./} --abi abi3 --abi none -r requirements-gateway.lock -d "$wheels" 2>"$here/download.log" ||
        cannot "the wheels cannot be fetched: $(tail -1 "$here/download.log")"
    echo "$wanted" >"$wheels/stamp"
fi
