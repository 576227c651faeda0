#!/bin/sh
# Makes a virtual environment with what a lock pins, and the project's wheel in it. Sourced by the other scripts.
# Usage: make_venv DIRECTORY LOCK   (PYTHON chooses the interpreter)

say() { printf '%s\n' "$*" >&2; }

find_python() {
    for candidate in "${PYTHON:-python3}" python3.11 python3.13; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || continue
        case "$version" in
            3.11 | 3.13) echo "$candidate"; return 0 ;;
            3.12) say "注意：未在 Python 3.12 上验证过。 Note: unproven on Python 3.12."; echo "$candidate"; return 0 ;;
        esac
    done
    say "需要 Python 3.11 或 3.13：apt-get install python3 python3-venv"
    say "Python 3.11 or 3.13 is needed: apt-get install python3 python3-venv"
    return 3
}

make_venv() {
    directory=$1 lock=$2
    python=$(find_python) || exit 3
    wanted=$(cat "$lock" pyproject.toml | sha256sum | cut -d' ' -f1)-$("$python" -c 'import sys; print(sys.version)' | sha256sum | cut -c1-8)
    if [ "$(cat "$directory/stamp" 2>/dev/null)" != "$wanted" ]; then
        if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            say "缺少 venv 模块：apt-get install python3-venv"
            say "The venv module is missing: apt-get install python3-venv"
            exit 3
        fi
        say "正在准备环境（首次约一分钟）… preparing the environment (about a minute the first time) ..."
        rm -rf "$directory"
        "$python" -m venv "$directory"
        "$directory/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" 2>"$directory/pip.log" ||
            { grep -v '^WARNING' "$directory/pip.log" >&2; say "安装依赖失败。 Installing the dependencies failed."; exit 3; }
        echo "$wanted" >"$directory/stamp"
    fi
    # The wheel is built from the tree as it is now; tests and demo run what would be shipped, not the tree.
    "$directory/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$directory/wheel" . 2>"$directory/pip.log" &&
        "$directory/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$directory"/wheel/*.whl 2>>"$directory/pip.log" ||
        { cat "$directory/pip.log" >&2; exit 3; }
}
