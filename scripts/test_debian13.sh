#!/usr/bin/env bash
# The same tests on Debian 13's own Python (3.13), in a root made by mmdebstrap. Skipped loudly where that cannot be made.
set -euo pipefail
cd "$(dirname "$0")/.."
skip() { printf '\nSKIPPED: the tests on Debian 13 (Python 3.13) did not run: %s\n' "$1" >&2; exit 0; }

[ "$(.build/test/bin/python -c 'import sys; print(sys.version_info[1])')" != 13 ] || exit 0
[ "$(id -u)" = 0 ] || skip "not root"
command -v mmdebstrap >/dev/null 2>&1 || apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null 2>&1; } || skip "mmdebstrap cannot be installed"
unshare --mount true 2>/dev/null || skip "no mount namespaces"

root=$PWD/.build/debian13
packages=python3,python3-venv,dbus-daemon,mosquitto,procps
if [ "$(cat "$root/ready" 2>/dev/null)" != "$packages" ]; then  # made for another list: made anew
    rm -rf "$root"
    mmdebstrap --quiet --variant=minbase --include="$packages" trixie "$root" 2>.build/debian13.log || skip "no root of Debian 13 could be made (see .build/debian13.log)"
    mkdir -p "$root/project" && echo "$packages" >"$root/ready"
fi
# Wheels are fetched by this machine, with the lock's hashes; inside, nothing is fetched.
wheels=.build/wheels-313
wanted=$(sha256sum requirements-dev.lock | cut -d' ' -f1)
if [ "$(cat $wheels/stamp 2>/dev/null)" != "$wanted" ]; then
    rm -rf $wheels
    .build/test/bin/python -m pip download --quiet --disable-pip-version-check --require-hashes --only-binary=:all: --no-deps \
        --python-version 3.13 --implementation cp --abi cp313 --abi abi3 --abi none -r requirements-dev.lock -d $wheels 2>.build/download.log || { cat .build/download.log; exit 1; }
    echo "$wanted" >$wheels/stamp
fi
[ "${ONLY_PREPARE:-}" = "" ] || exit 0
cp .build/test/wheel/*.whl $wheels/
unshare --mount --pid --fork --kill-child bash -euc '
    root=$1; shift
    mount --bind "$root" "$root" # a mount of its own: inside, the disk under / can then be named
    mount --bind "$PWD" "$root/project"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    rm -rf "$root"/tmp/* # on the disk, as a gateway'"'"'s data is: in memory the diagnosis would rightly complain
    exec chroot "$root" /bin/bash -euc "
        cd /project
        if [ \"\$(cat /venv/stamp 2>/dev/null)\" != \"\$(cat .build/wheels-313/stamp)\" ]; then
            rm -rf /venv; python3 -m venv /venv
            /venv/bin/python -m pip install --quiet --no-index --find-links .build/wheels-313 --require-hashes -r requirements-dev.lock
            cp .build/wheels-313/stamp /venv/stamp
        fi
        /venv/bin/python -m pip install --quiet --no-index --no-deps --force-reinstall .build/wheels-313/daycare_gateway-*.whl
        export PYTHONSAFEPATH=1
        if [ \$# = 0 ]; then exec bash scripts/test_lanes.sh /venv/bin/python; fi
        exec /venv/bin/python -m pytest -p no:cacheprovider \"\$@\"
    " bash "$@"
' bash "$root" "$@"
