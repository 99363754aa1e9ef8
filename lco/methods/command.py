"""`lco methods`: the list of methods, one method's page, a new method's file, or whether a method does what all must."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lco.console import say
from lco.errors import UserError
from lco.methods import METHODS, method_named
from lco.methods.knobs import to_table
from lco.methods.new import write_skeleton
from lco.methods.outside import announced

if TYPE_CHECKING:  # torch, which `--help` does without
    from lco.methods.method import Method


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Lists the methods with their papers, needs and defaults, or prints one method's page. NAME is a method of the suite or "
        "of an installed package (entry points `lco.methods`), or path/to/file.py:NAME, which runs that file."
    )
    parser.epilog = (
        "examples: lco methods dapo prints its equation, knobs, sources, and the paper's settings; lco methods --new my_method, "
        "then lco methods --check my_method.py:MY_METHOD, then lco train --method my_method.py:MY_METHOD …"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="print the page of this method")
    parser.add_argument("--new", metavar="NAME", help="write NAME.py: one file that is a whole method, to be changed")
    parser.add_argument(
        "--check",
        metavar="NAME",
        help="check what every method must do (gradient, padding, order of rows, …); exit code 2 if not",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable list")
    parser.add_argument(
        "--knobs", action="store_true", help="the suite's knobs and ranges, as lco/methods/knobs.json has them"
    )
    parser.add_argument("--markdown", action="store_true", help="all pages, as docs/methods.md has them")


def run(arguments: argparse.Namespace) -> int:
    if arguments.new:
        return write(arguments.new)
    from lco.methods.pages import document, listing, page, summary  # torch, which `--help` does without

    if arguments.check:
        return check(arguments.check)
    if arguments.name:
        print(page(method_named(arguments.name)))
    elif arguments.knobs:
        print(to_table({name: method.hyperparameters for name, method in METHODS.items()}), end="")
    elif arguments.markdown:
        print(document(METHODS.values()))
    elif arguments.json:
        print(json.dumps([summary(method) for method in everyone()], indent=2, ensure_ascii=False))
    else:
        print(listing(everyone()))
    return 0


def everyone() -> Iterator[Method]:
    """The suite's methods, then those of installed packages; one that cannot be loaded is said and left out."""
    yield from METHODS.values()
    for name in sorted(announced()):
        try:
            if name in METHODS:
                raise UserError(
                    f"{announced()[name].value} is announced as {name!r}, which is a method of the suite: left out"
                )
            yield method_named(name)
        except UserError as error:
            say(str(error))


def write(name: str) -> int:
    place = write_skeleton(name, Path())
    print(f"{place.partition(':')[0]} is a whole method; change it, then")
    print(f"  lco methods --check {place}\n  lco train --method {place} …")
    return 0


def check(name: str) -> int:
    """
    Raises:
        UserError: the method does not do what all must; the message names what.
    """
    from lco.methods.invariants import check_method, variants  # as above

    method = method_named(name)
    settings = variants(method)
    print(f"{name} ({method.title}) at {len(settings)} setting{'s' if len(settings) > 1 else ''} of its knobs:")
    outcomes = check_method(method, settings)
    for found in outcomes:
        print(f"  {found.state:10} {found.invariant}{f' ({found.fault})' if found.fault else ''}")
    failed = [found.invariant for found in outcomes if found.state == "fails"]
    if failed:
        raise UserError(f"{name} does not hold what every method must: {'; '.join(failed)}; mend it and check again")
    return 0
