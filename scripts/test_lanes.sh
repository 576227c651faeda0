#!/usr/bin/env bash
# Runs every test with one Python, in lanes that go side by side: most tests wait, for a time-out or another process, so the
# lanes together take little longer than the longest. All lanes but those that need the machine's have a network of their own (root): no
# lane can take a port that a test of another has just let go of. What a lane says is shown when it has ended.
# A test that failed beside all others is looked at again when the machine is quiet: up to three of a lane, each alone, three
# times over. If it passes every time, it is reported as UNSTABLE, with its first failure shown, and the run goes on: that is a
# defect to be found, not one that stops everybody. Never for whole centres played: what one of those lost once was lost.
# Usage: test_lanes.sh PYTHON    Exit status 1 when a test failed.
set -uo pipefail
cd "$(dirname "$0")/.."
python=$1
lanes=${LANES:-runs faults bookworm trixie links stores gateway rest}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
runs=(tests/end_to_end/test_{chaos,demo,kill,kill_storm}.py)
links=(tests/gateway/{links,mqtt,http} tests/gateway/test_{serial_line,ports}.py)
stores=(tests/gateway/{outbox,deliver})

tests_of() {
    case $1 in
        runs) tests=("${runs[@]}") ;;  # whole centres, played
        faults) tests=(tests/end_to_end "${runs[@]/#/--ignore=}") ;;
        # These boot a machine, and may fetch it before: they are in the network that is there.
        bookworm) tests=(tests/systemd -k bookworm) apart="" ;;
        trixie) tests=(tests/systemd -k "not bookworm") apart="" ;;
        links) tests=("${links[@]}") ;;
        stores) tests=("${stores[@]}") ;;
        # The diagnosis looks at this machine's own network.
        gateway) tests=(tests/gateway "${links[@]/#/--ignore=}" "${stores[@]/#/--ignore=}") apart="" ;;
        rest) tests=(tests --ignore=tests/end_to_end --ignore=tests/systemd --ignore=tests/gateway) ;;
    esac
}

# ip(8) is not everywhere: SIOCGIFFLAGS, SIOCSIFFLAGS and IFF_UP of netdevice(7).
up='import fcntl, socket, struct
with socket.socket() as line:
    flags, = struct.unpack_from("H", fcntl.ioctl(line, 0x8913, struct.pack("16sH14x", b"lo", 0)), 16)
    fcntl.ioctl(line, 0x8914, struct.pack("16sH14x", b"lo", flags | 1))'
apart=""
if [ "$(id -u)" = 0 ] && unshare --net "$python" -c "$up" 2>/dev/null; then apart=yes; fi

run_lane() {  # run_lane LANE [pytest's options]
    tests_of "$1"
    local command=("$python" -m pytest -o cache_dir="$said/cache/$1" --durations=25 --durations-min=2 "${@:2}" "${tests[@]}")
    if [ "$apart" = yes ]; then
        unshare --net bash -c '"$0" -c "$1" && shift && exec "$@"' "$python" "$up" "${command[@]}"
    else
        "${command[@]}"
    fi
}

said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT
for lane in $lanes; do
    ( began=$SECONDS; run_lane "$lane" >"$said/$lane" 2>&1; echo "$?" >"$said/$lane.status"
      { flock 9; printf '\n==== Python %s, lane %s, %s s\n' "$version" "$lane" $((SECONDS - began)); cat "$said/$lane"; } 9>"$said/turn" ) &
done
wait
failed_of() { grep -E '^(FAILED|ERROR) ' "$said/$1"; }
steady_alone() {  # whether what failed in LANE passes three times alone
    [ "$1" != runs ] && [ "$(cat "$said/$1.status" 2>/dev/null)" = 1 ] && [ "$(failed_of "$1" | wc -l)" -le 3 ] || return 1
    for _ in 1 2 3; do
        cp -r "$said/cache/$1" "$said/cache/$1.first"
        ( run_lane "$1" --last-failed --last-failed-no-failures=none ) >"$said/$1.again" 2>&1 || { cat "$said/$1.again"; return 1; }
        rm -rf "$said/cache/$1" && mv "$said/cache/$1.first" "$said/cache/$1"
    done
}
status=0
for lane in $lanes; do
    [ "$(cat "$said/$lane.status" 2>/dev/null)" != 0 ] || continue
    if steady_alone "$lane"; then
        printf '\nUNSTABLE (Python %s, lane %s): failed beside others, passed three times alone:\n' "$version" "$lane"
    else
        status=1; printf '\nPython %s, lane %s failed:\n' "$version" "$lane"
    fi
    failed_of "$lane"
done
exit "$status"
