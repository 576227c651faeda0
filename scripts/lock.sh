#!/bin/sh
# Writes the four locks: pinned, hashed, valid for Python 3.11 to 3.13, and without a single address of an index.
set -eu
cd "$(dirname "$0")/.."
flags="--quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links"
# aioesphomeapi wants an old cryptography on Macs of before 2020; the locks are for machines that run a gateway.
override=$(mktemp)
trap 'rm -f "$override"' EXIT
printf 'cryptography>=48\n' > "$override"
uv pip compile $flags --override "$override" --extra simulator pyproject.toml --group dev -o requirements-dev.lock
# The others are subsets of it, at the same versions: constrained by it. The third is what a gateway on site needs, no more; the last
# is that and the library for [[receiver]]: it is used in place of the third, never beside it.
printf 'hatchling\n' | uv pip compile $flags --extra simulator pyproject.toml - -c requirements-dev.lock -o requirements.lock
uv pip compile $flags pyproject.toml -c requirements-dev.lock -o requirements-gateway.lock
uv pip compile $flags --override "$override" --extra esphome pyproject.toml -c requirements-dev.lock -o requirements-esphome.lock
