#!/bin/sh
# Makes .venv with the locked versions and this checkout in it; called by `make setup`.
#   PYTHON  the interpreter to use (default: the first of python3, python3.13, python3.12, python3.11 that fits)
#   UV      the uv to use (default: the one on PATH; empty: pip)
set -eu
cd "$(dirname "$0")/.."

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1
}

uv=${UV-$(command -v uv || true)}

if ! fits .venv/bin/python; then
    python=
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if fits "$candidate"; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ] && [ -z "${PYTHON:-}" ] && [ -n "$uv" ]; then
        python=3.11  # uv fetches one
    elif [ -z "$python" ]; then
        echo "setup: simlib needs Python 3.11, 3.12 or 3.13; none of these is one: ${PYTHON:-python3, python3.13, python3.12, python3.11}" \
            "(install one, or name it: make setup PYTHON=/path/to/python)" >&2
        exit 2
    fi
    rm -rf .venv
    if [ -n "$uv" ]; then
        "$uv" venv --quiet --python "$("$python" -c 'import sys; print(sys.executable)' 2>/dev/null || echo "$python")" .venv
    elif "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        "$python" -m venv .venv
    else
        echo "setup: $python cannot make a virtual environment: install its venv module (Debian and Ubuntu: python3-venv), or uv" >&2
        exit 2
    fi
fi

echo "setup: installing requirements.lock into .venv ($(.venv/bin/python -V), $(basename "${uv:-pip}")), once" >&2
if [ -n "$uv" ]; then
    install() { "$uv" pip install --quiet --python .venv/bin/python "$@"; }
else
    .venv/bin/python -c 'import pip' >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
    install() { .venv/bin/python -m pip --disable-pip-version-check install --quiet --no-input "$@"; }
fi
install --require-hashes -r requirements.lock
# The checkout itself has no hash, so it goes in by itself; its build backend is in the lock.
install --no-deps --no-build-isolation -e .

# Compiles what numba keeps on disk (a minute), so that the first run does not wait for it.
.venv/bin/python -c 'import simlib; simlib.run("rest", messages=1)'
