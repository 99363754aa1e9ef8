"""Letters that stand for any number, so that their name is free: constants of integration, whole-number parameters, and what
"for some real c" declares."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

from lco.verifier.compare.several import renamed
from lco.verifier.tree import Node, symbols, walk

_MOST = 3  # letters that are exchanged
_STEMS = frozenset("C c K k A B D a b d m n const".split())
_VARIABLES = frozenset("x y z t u v w r s theta phi rho".split())
_PARAMETERS = frozenset("k n m l j".split())
_OSCILLATING = frozenset("sin cos sinh cosh exp".split())


def declared(node: Node) -> tuple[tuple[str, ...], str, Node]:
    """The free letters that a node declares, their domain, and what it says of them. Arguments of a function that it defines
    ("f(x) = 3 for all x") are not free."""
    if node.kind != "for":
        return (), "", node
    letters, domain = node.value
    inner = node.args[0]
    bound = {part.value for top in walk(inner) if top.kind == "call" for part in top.args if part.kind == "sym"}
    return tuple(letter for letter in letters if letter not in bound), domain, inner


def with_names_of(gold: Node, answer: Node, gold_letters: tuple[str, ...], letters: tuple[str, ...]) -> Iterator[Node]:
    """The answer with its free letters named as the reference's are, in every way that is possible.

    Where one side declares its letters and the other does not, the other's are those that the first does not have.
    """
    mine = gold_letters or tuple(sorted(symbols(gold) - symbols(answer)))
    theirs = letters or tuple(sorted(symbols(answer) - symbols(gold)))
    if len(mine) != len(theirs) or len(mine) > _MOST:
        yield answer
        return
    for order in permutations(theirs):
        yield exchanged(answer, order, mine)


def alike_in_role(gold: Node, answer: Node) -> Iterator[Node]:
    """The answer with constants renamed that neither side declares, where their place says what they are: `+ C` behind an
    integral, `k` in `π/3 + kπ`, `C_1` before an exponential."""
    mine, theirs = _constants(gold), _constants(answer)
    if not mine or sorted(mine.values()) != sorted(theirs.values()) or len(mine) > _MOST:
        return
    if symbols(gold) - mine.keys() != symbols(answer) - theirs.keys():
        return
    for order in permutations(theirs):
        if [theirs[letter] for letter in order] == list(mine.values()) and order != tuple(mine):
            yield exchanged(answer, order, tuple(mine))


def _constants(node: Node) -> dict[str, str]:
    """The letters that are constants by their place, and what they are."""
    return {letter: role for letter in sorted(symbols(node)) if (role := _role(node, letter))}


def exchanged(node: Node, old: tuple[str, ...], new: tuple[str, ...]) -> Node:
    """The node with letters renamed all at once."""
    for at, letter in enumerate(old):
        node = renamed(node, letter, f"constant {at}")
    for at, letter in enumerate(new):
        node = renamed(node, f"constant {at}", letter)
    return node


def _role(node: Node, letter: str) -> str:
    """What kind of constant every occurrence of a letter is: "added", "whole", "factor", or "" for none."""
    found = set(_roles(node, letter, ""))
    if len(found) != 1:
        return ""
    role = found.pop()
    if role not in ("added", "whole", "factor"):
        return ""
    if role == "whole":
        return role if letter in _PARAMETERS else ""
    constants = {name for name in symbols(node) if name.partition("_")[0] in _STEMS}
    if letter not in constants or not symbols(node) - constants <= _VARIABLES:
        return ""
    return role if role == "factor" or constants == {letter} else ""


def _roles(node: Node, letter: str, role: str) -> Iterator[str]:
    if node.kind == "sym" and node.value == letter:
        yield role
    inside = {"add": "added", "mul": _factor_role(node), "rel": "", "list": "", "neg": role, "div": role}.get(
        node.kind, "no"
    )
    for part in node.args:
        yield from _roles(part, letter, inside)


def _factor_role(node: Node) -> str:
    """A factor beside π or a full turn is a whole-number parameter, one beside an exponential or a sine is a constant."""
    parts = [part for top in node.args for part in walk(top)]
    if any(part == Node("const", "pi") or part.kind in ("degree", "quantity") for part in parts):
        return "whole"
    exponential = any(part.kind == "pow" and part.args[0] == Node("const", "e") for part in node.args)
    return (
        "factor" if exponential or any(part.kind == "fn" and part.value in _OSCILLATING for part in node.args) else "no"
    )
