#!/usr/bin/env bash
# `make test`: installs what it needs, checks, and runs the tests on the built wheel: on this machine's Python, then on the
# Python of Debian 13 in a small root of its own where that can be made (root and mmdebstrap), else it says that it did not.
# On each in lanes side by side; with arguments in one go, and those go to pytest as they are.
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
# Without these the tests of the service, and those on Debian 13, are skipped, and say so.
need mmdebstrap mmdebstrap || true
need systemd-analyze systemd || true
need systemd-nspawn systemd-container || true
# For the faults of the chaos runs: without it no clock jumps, and they say so.
if ! command -v cc >/dev/null 2>&1; then
    { need cc gcc && need x86_64-linux-gnu-gcc libc6-dev; } || true
fi
make_venv .build/test requirements-dev.lock
VENV=.build/test bash scripts/check.sh
export PYTHONSAFEPATH=1  # the wheel is tested, not the tree: the current folder stays off the path
lanes() { bash scripts/test_lanes.sh .build/test/bin/python; }
other() { [ "${ONLY_THIS_PYTHON:-}" != "" ] || bash scripts/test_debian13.sh "$@"; }
if [ $# -gt 0 ]; then  # what was asked for, in one go
    .build/test/bin/python -m pytest "$@" && other "$@"
    exit
fi
ONLY_PREPARE=yes other >/dev/null 2>&1 &  # its root is made while nothing waits for it yet
status=0
lanes || status=$?
wait
[ "$status" != 0 ] || other || status=$?
exit "$status"
