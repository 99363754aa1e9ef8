#!/bin/sh
# Builds docs/ as a site in build/site. What builds it lives in .venv-site; a second call installs nothing while
# requirements/site.txt is the same.
set -eu
cd "$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/.."

if ! cmp -s requirements/site.txt .venv-site/made-from.txt; then
    rm -rf .venv-site
    "${PYTHON:-python3}" -m venv .venv-site
    .venv-site/bin/python -m pip install --quiet -r requirements/site.txt
    cp requirements/site.txt .venv-site/made-from.txt
fi
NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build --strict --quiet
echo "site: build/site/index.html"
