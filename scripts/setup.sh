#!/bin/sh
# Make .venv and install lmctl in it: the files whose hashes are in requirements/. Called by the other scripts.
#
#   ./scripts/setup.sh                  the first time some minutes, after that at once
#   PYTHON=/path/to/python3.12 ./scripts/setup.sh
#
# A stamp, written last, says what was installed; a marker says that an installation has begun. An installation
# that was interrupted is thrown away and started again, since half-copied packages cannot be told from whole ones.
set -eu

cd "$(dirname "$0")/.."
venv=.venv
stamp=$venv/lmctl-installed
marker=$venv/lmctl-installing

say() { printf 'setup: %s\n' "$*" >&2; }

# The supported versions, as in pyproject.toml.
good_python() { "$1" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; }

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.11 python3.12 python3.13 python; do
        if [ -n "$candidate" ] && good_python "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    say "lmctl needs Python 3.11, 3.12 or 3.13 with the venv module, and none was found on the PATH."
    say "Install one, or name it: PYTHON=/path/to/python3.11 ./scripts/setup.sh"
    return 1
}

fingerprint() {
    "$venv/bin/python" - <<'PY'
import hashlib, pathlib, sys
files = b"".join(pathlib.Path(name).read_bytes() for name in ("pyproject.toml", "constraints.txt", "requirements/all.lock"))
# The path is part of it: an environment does not survive being moved.
print(hashlib.sha256(files + f"{sys.version} {pathlib.Path.cwd()}".encode()).hexdigest())
PY
}

usable() { [ ! -e "$marker" ] && good_python "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }

make_venv() {
    python=$(find_python)
    say "making $venv with $("$python" --version 2>&1)"
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv --clear "$venv"
    else # Debian ships venv without ensurepip: let the system's pip put one in
        "$python" -m venv --clear --without-pip "$venv"
        "$python" -m pip --quiet --python "$venv/bin/python" install pip
    fi
}

if [ -f "$stamp" ] && [ ! -e "$marker" ] && [ "$(cat "$stamp")" = "$(fingerprint 2>/dev/null)" ]; then
    exit 0
fi

usable || make_venv
rm -f "$stamp"
: >"$marker"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check -qq "$@" </dev/null; }
say "installing what lmctl needs (1 of 2)"
# Nothing that lies in a lock is resolved, and nothing is taken whose hash is not there. The one dependency that comes as
# source is built with the setuptools of the lock.
pip install --require-hashes --no-deps -r requirements/build.lock
pip install --require-hashes --no-deps --no-build-isolation -r requirements/all.lock
say "installing torch, the largest download (2 of 2)"
# Without a hash: each build of a version (CPU, CUDA) has its own. Which one fits is the index's and the machine's choice.
pip install -c constraints.txt torch
pip install --no-deps --no-build-isolation -e .
missing=$("$venv/bin/python" -m pip --disable-pip-version-check check) || { say "$missing"; exit 1; }
rm -f "$marker"
fingerprint >"$stamp"
say "ready: $venv/bin/lmctl"
