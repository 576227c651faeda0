#!/bin/sh
# `make demo`: sets up what is missing and runs the demonstration. Needs Python 3.11 or 3.13 with venv, and dbus-daemon.
set -eu
cd "$(dirname "$0")/.."
. scripts/venv.sh
if ! command -v dbus-daemon >/dev/null 2>&1; then
    say "缺少 dbus-daemon：apt-get install dbus-daemon"
    say "dbus-daemon is missing: apt-get install dbus-daemon"
    exit 3
fi
make_venv .build/demo requirements.lock
exec .build/demo/bin/python -I -m simulator demo "$@"
