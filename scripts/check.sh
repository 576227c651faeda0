#!/usr/bin/env bash
# `make check`: style, types, import contracts. VENV chooses the environment that has the tools.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh
if [ -z "${VENV:-}" ]; then
    VENV=.build/test
    make_venv "$VENV" requirements-dev.lock
fi
"$VENV/bin/ruff" format --check --quiet .
"$VENV/bin/ruff" check --quiet .
"$VENV/bin/mypy"
PYTHONPATH=. "$VENV/bin/lint-imports" --no-cache
