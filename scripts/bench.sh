#!/bin/sh
# `make bench`: the benchmark on the wheel as the demo installs it.
set -eu
cd "$(dirname "$0")/.."
. scripts/venv.sh
make_venv .build/demo requirements.lock
exec .build/demo/bin/python -I -m simulator bench "$@"
