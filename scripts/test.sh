#!/usr/bin/env bash
# `make test`: installs what it needs, checks, and runs the tests on the built wheel: on this machine's Python, then on the
# Python of Debian 13 in a small root of its own where that can be made (root and mmdebstrap), else it says that it did not.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh

need() {  # need PROGRAM PACKAGE: install a Debian package when a program is missing
    command -v "$1" >/dev/null 2>&1 && return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing $2"
        apt-get install -y -qq --no-install-recommends "$2" >/dev/null 2>&1 ||
            { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$2" >/dev/null; }
    else
        say "$1 is missing: apt-get install $2"
        return 1
    fi
}

need dbus-daemon dbus-daemon
PATH=$PATH:/usr/sbin  # where Debian puts mosquitto
if ! command -v mosquitto >/dev/null 2>&1; then
    if need mosquitto mosquitto; then
        systemctl disable --now mosquitto >/dev/null 2>&1 || true  # the tests start their own; nobody asked for a service
    else
        say "the tests against a real broker will be skipped"
    fi
fi
# Without these the tests of the service are skipped, and say so.
need systemd-analyze systemd || true
need systemd-nspawn systemd-container || true
# For the faults of the chaos runs: without it no clock jumps, and they say so.
if ! command -v cc >/dev/null 2>&1; then
    { need cc gcc && need x86_64-linux-gnu-gcc libc6-dev; } || true
fi
make_venv .build/test requirements-dev.lock
VENV=.build/test bash scripts/check.sh
export PYTHONSAFEPATH=1  # the wheel is tested, not the tree: the current folder stays off the path
status=0
.build/test/bin/python -m pytest "$@" || status=$?
if [ "${ONLY_THIS_PYTHON:-}" = "" ] && [ "$status" = 0 ]; then
    bash scripts/test_debian13.sh "$@" || status=$?
fi
exit "$status"
