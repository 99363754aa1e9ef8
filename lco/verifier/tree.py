"""The tree a read answer becomes.

One shape serves everything: `Node(kind, value, args)`. Kinds of numbers and expressions:

    num (Fraction) · const (pi, e, i, inf) · sym (name) · add · mul · div · pow · neg · fact · pm (+1 or -1)
    fn (sin, ln, …) · root (value: the degree) · call (an unknown function's name, its arguments) · percent · degree

and of whole answers:

    list (bare, unordered) · set · seq (value: its brackets, as in "(]") · matrix (rows of row) · union · intersection
    minus · rel (value: its operators) · builder · cases · text · quantity (value: unit) · based (digits, base)
    ratio · time · reals · nothing (∅, "no solution")
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple


class Node(NamedTuple):
    """A node of the tree; equal trees compare equal."""

    kind: str
    value: Any = None
    args: tuple[Node, ...] = ()


class UnreadableError(Exception):
    """The text is not an answer in any form the verifier knows; the message says where it stopped."""


class RefusedError(Exception):
    """The text is refused before any work is spent on it; `reason` goes into the verdict."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class UndefinedError(Exception):
    """The expression has no value: 0/0, the logarithm of zero, a root that is not real among real functions."""


def number(value: int | Fraction) -> Node:
    """The node of a rational number."""
    return Node("num", Fraction(value))


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(top.args)


def symbols(node: Node) -> frozenset[str]:
    """The names of the free letters of an expression."""
    return frozenset(part.value for part in walk(node) if part.kind == "sym")


ZERO = number(0)
ONE = number(1)
INFINITY = Node("const", "inf")
MINUS_INFINITY = Node("neg", None, (INFINITY,))

# Kinds that are numbers or expressions, as against whole answers such as sets and texts.
SCALARS = frozenset("num const sym add mul div pow neg fact binom pm fn root call percent degree".split())


def is_scalar(node: Node) -> bool:
    """Whether the node is a number or an expression."""
    return node.kind in SCALARS
