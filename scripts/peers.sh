#!/bin/sh
# Makes .venv-peers, an environment that adds TRL and verl to the packages of .venv and leaves these as they are, and runs the
# tests of lco/integrations in it. A second call installs nothing while requirements/peers.txt is the same.
set -eu
cd "$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/.."
packages='import sysconfig; print(sysconfig.get_path("purelib"))'

if ! cmp -s requirements/peers.txt .venv-peers/made-from.txt; then
    rm -rf .venv-peers
    .venv/bin/python -m venv .venv-peers
    .venv/bin/python -c "$packages" > "$(.venv-peers/bin/python -c "$packages")/suite.pth"
    .venv-peers/bin/python -m pip install --quiet --no-deps -r requirements/peers.txt
    cp requirements/peers.txt .venv-peers/made-from.txt
fi
exec .venv-peers/bin/python -m pytest tests/integrations --timeout 3600 "$@"
