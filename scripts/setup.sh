#!/bin/sh
# Finds a Python that the suite supports and hands over to setup_venv.py: the one that .venv was made with, else the first on
# PATH. PYTHON=… names another.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
supported='import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'
found=

if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
else
    set -- "$here/../.venv/bin/python" python3.11 python3.12 python3 python
fi
for python in "$@"; do
    if "$python" -c "$supported" 2>/dev/null; then exec "$python" "$here/setup_venv.py"; fi
    if version=$("$python" --version 2>&1); then found="${found:+$found, }$python is $version"; fi
done
echo "set-up: Python 3.11 or 3.12 is needed (${found:-${PYTHON:-python3} does not run});" \
    "install one, or name it: make setup PYTHON=/path/to/python3.11" >&2
exit 1
