#!/bin/sh
# `make reference`: writes docs/reference/ and the JSON Schema of the configuration from the program itself.
set -eu
cd "$(dirname "$0")/.."
. scripts/venv.sh
make_venv .build/test requirements-dev.lock
exec .build/test/bin/python scripts/reference.py "$@"
