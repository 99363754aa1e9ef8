#!/usr/bin/env bash
# Writes requirements/*.lock from requirements/*.in: exact versions with hashes, no index address. The resolver lives in a
# throwaway environment; its settings are in pyproject.toml ([tool.uv]). Versions stay as they are unless an .in file asks
# for others; UPGRADE=1 takes the newest that fit.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
"${PYTHON:-python3}" -m venv "$tool"
"$tool/bin/pip" install --quiet uv==0.13.9

lock() {
    echo "lock: requirements/$1.lock"
    "$tool/bin/uv" pip compile --quiet ${UPGRADE:+--upgrade} "requirements/$1.in" --output-file "requirements/$1.lock" "${@:2}"
}
lock build
lock cpu --override requirements/cpu.overrides
lock cuda
