"""`lco methods`: the list of methods, or one method's page."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Lists the methods with their papers, needs and defaults, or prints one method's page."
    parser.epilog = "example: lco methods dapo prints its equation, knobs, sources, and the paper's settings"
    parser.add_argument("name", nargs="?", help="print the page of this method")
    parser.add_argument("--json", action="store_true", help="machine-readable list")
    parser.add_argument("--markdown", action="store_true", help="all pages, as docs/methods.md has them")


def run(arguments: argparse.Namespace) -> int:
    from lco.methods import METHODS, method_named
    from lco.methods.pages import document, listing, page, summary  # torch, which `--help` does without

    if arguments.name:
        print(page(method_named(arguments.name)))
    elif arguments.json:
        print(json.dumps([summary(method) for method in METHODS.values()], indent=2, ensure_ascii=False))
    elif arguments.markdown:
        print(document(METHODS.values()))
    else:
        print(listing(METHODS.values()))
    return 0
