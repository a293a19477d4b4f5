#!/bin/sh
# Writes requirements.lock from pyproject.toml; called by `make lock`.
# Pins that still fit are kept, unless UPGRADE is set. Needs uv (on PATH, else installed for the occasion).
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv=${UV:-$(command -v uv || true)}
if [ -z "$uv" ]; then
    python3 -m venv "$work/uv"
    "$work/uv/bin/python" -m pip --disable-pip-version-check install --quiet uv
    uv=$work/uv/bin/uv
fi

compile() {
    "$uv" pip compile --quiet --no-config --python-version 3.11 --extra dev --no-annotate \
        --no-emit-index-url --no-emit-find-links --no-strip-extras --custom-compile-command 'make lock' ${UPGRADE:+--upgrade} "$@" pyproject.toml
}

[ ! -e requirements.lock ] || cp requirements.lock "$work/pins.txt"
# Extras stay in it: where a package asks for another with extras, older versions of pip (23.2) pass over a pin without them.
# First what Python 3.11 gets; then the same versions for every Python and platform, so that results do not depend on either.
compile --python-platform linux --output-file "$work/pins.txt"
compile --universal --generate-hashes --constraints "$work/pins.txt" --output-file requirements.lock
