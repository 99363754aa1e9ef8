"""Arithmetic with vectors and matrices: `\\frac13 (…)`, sums, products, transposes, and `5i - 3j` in unit vectors."""

from __future__ import annotations

from typing import NamedTuple

from lco.verifier.compare.vectors import Same, ordered
from lco.verifier.numbers.rational import rational
from lco.verifier.tree import ONE, ZERO, Node, is_scalar, walk

_UNIT_VECTORS = {"hat i": 0, "hat j": 1, "hat k": 2}
_ARITHMETIC = frozenset(("add", "mul", "div", "neg", "pow"))
_LARGEST_POWER = 6
_LARGEST = 12  # rows or columns of what is multiplied out

Rows = tuple[tuple[Node, ...], ...]


class Matrix(NamedTuple):
    """Entries by rows; `free` where it is a vector that was written as a tuple or in unit vectors, neither row nor column."""

    rows: Rows
    free: bool = False


def are_vectors(gold: Node, answer: Node) -> bool:
    """Whether one of the two is reckoned out of vectors or matrices, or written in unit vectors."""
    if _is_arithmetic(gold) or _is_arithmetic(answer):
        return True
    return _is_plain_vector(gold, answer) or _is_plain_vector(answer, gold)


def _is_arithmetic(node: Node) -> bool:
    if node.kind == "sym":
        return node.value in _UNIT_VECTORS
    return node.kind in _ARITHMETIC and any(
        part.kind == "matrix" or part.value in ("()", "[]") or (part.kind == "sym" and part.value in _UNIT_VECTORS)
        for part in walk(node)
    )


def _is_plain_vector(vector: Node, other: Node) -> bool:
    """A vector beside `5i - 3j`."""
    return vector.kind in ("matrix", "seq") and other.kind in _ARITHMETIC and _bold(other) != other


def same_matrix(gold: Node, answer: Node, same: Same) -> bool:
    """Whether both work out to the same vector or matrix. `5i - 3j` in plain letters counts where the other is a vector."""
    if gold == answer:
        return True
    left, right = worked_out(gold), worked_out(answer)
    left = left or (worked_out(_bold(gold)) if right else None)
    right = right or (worked_out(_bold(answer)) if left else None)
    if left is None or right is None:
        return False
    if left.free or right.free:
        one, other = _entries(left), _entries(right)
        if one is None or other is None:
            return False
        size = max(len(one), len(other)) if not (left.free and right.free) else min(len(one), len(other))
        one, other = _cut(one, min(size, 2 if len(other) == 2 else size)), _cut(other, 2 if len(one) == 2 else size)
        return ordered(one, other, same)
    return len(left.rows) == len(right.rows) and all(
        ordered(one, other, same) for one, other in zip(left.rows, right.rows, strict=True)
    )


def _entries(matrix: Matrix) -> tuple[Node, ...] | None:
    """The entries of a row or a column."""
    if len(matrix.rows) == 1:
        return matrix.rows[0]
    return tuple(row[0] for row in matrix.rows) if len(matrix.rows[0]) == 1 else None


def _cut(entries: tuple[Node, ...], size: int) -> tuple[Node, ...]:
    """Entries without zeros behind `size`: unit vectors of the plane have a third component that is nothing."""
    return entries[:size] if all(entry == ZERO for entry in entries[size:]) else entries


def _bold(node: Node) -> Node:
    """The expression with i, j and k read as unit vectors; as it is where there is no j or k, which would be a number."""
    if not any(part.kind == "sym" and part.value in ("j", "k") for part in walk(node)):
        return node

    def bold(part: Node) -> Node:
        if part == Node("const", "i") or (part.kind == "sym" and part.value in ("j", "k")):
            return Node("sym", f"hat {part.value}")
        return Node(part.kind, part.value, tuple(map(bold, part.args))) if part.args else part

    return bold(node)


def worked_out(node: Node) -> Matrix | None:
    """The matrix that an expression comes to; None where it is none, or where sizes do not fit."""
    kind = node.kind
    if kind == "matrix":
        return Matrix(tuple(row.args for row in node.args))
    if kind == "seq" and node.value in ("()", "[]"):
        return Matrix((node.args,), free=True)
    if kind == "sym" and node.value in _UNIT_VECTORS:
        at = _UNIT_VECTORS[node.value]
        return Matrix((tuple(ONE if place == at else ZERO for place in range(3)),), free=True)
    if kind == "neg":
        inner = worked_out(node.args[0])
        return None if inner is None else _scaled(inner, Node("num", -ONE.value))
    if kind == "add":
        return _sum([worked_out(part) for part in node.args])
    if kind == "div":
        inner = worked_out(node.args[0])
        scalar = worked_out(node.args[1]) is None and is_scalar(node.args[1])
        return _scaled(inner, Node("div", None, (ONE, node.args[1]))) if inner and scalar else None
    if kind == "mul":
        return _product(node.args)
    return _power(node) if kind == "pow" else None


def _power(node: Node) -> Matrix | None:
    """A transpose, a small power, the inverse of two rows."""
    base, exponent = node.args
    inner = worked_out(base)
    if inner is None:
        return None
    if exponent == Node("sym", "T"):
        return Matrix(tuple(zip(*inner.rows, strict=True)))
    count = rational(exponent)
    if inner.free or count is None:
        return None
    if 1 < count <= _LARGEST_POWER and count.denominator == 1:
        return _product((base,) * int(count))
    if count == -1 and [len(row) for row in inner.rows] == [2, 2]:
        (a, b), (c, d) = inner.rows
        determinant = _plus(_times(a, d), Node("neg", None, (_times(b, c),)))
        adjugate = Matrix(((d, Node("neg", None, (b,))), (Node("neg", None, (c,)), a)))
        return _scaled(adjugate, Node("div", None, (ONE, determinant)))
    return None


def _sum(parts: list[Matrix | None]) -> Matrix | None:
    total = parts[0]
    for part in parts[1:]:
        if (
            total is None
            or part is None
            or len(total.rows) != len(part.rows)
            or len(total.rows[0]) != len(part.rows[0])
        ):
            return None
        pairs = zip(total.rows, part.rows, strict=True)
        total = Matrix(tuple(tuple(map(_plus, one, other)) for one, other in pairs), total.free and part.free)
    return total


def _product(factors: tuple[Node, ...]) -> Matrix | None:
    """Scalars and matrices multiplied from left to right."""
    scalars = [factor for factor in factors if worked_out(factor) is None]
    matrices = [matrix for factor in factors if (matrix := worked_out(factor)) is not None]
    if not matrices or not all(map(is_scalar, scalars)):
        return None
    result = matrices[0]
    for matrix in matrices[1:]:
        if result.free or matrix.free or len(result.rows[0]) != len(matrix.rows) or len(matrix.rows) > _LARGEST:
            return None
        columns = tuple(zip(*matrix.rows, strict=True))
        result = Matrix(tuple(tuple(_inner(row, column) for column in columns) for row in result.rows))
    for scalar in scalars:
        result = _scaled(result, scalar)
    return result


def _inner(row: tuple[Node, ...], column: tuple[Node, ...]) -> Node:
    total = ZERO
    for one, other in zip(row, column, strict=True):
        total = _plus(total, _times(one, other))
    return total


def _scaled(matrix: Matrix, scalar: Node) -> Matrix:
    return Matrix(tuple(tuple(_times(scalar, entry) for entry in row) for row in matrix.rows), matrix.free)


def _times(one: Node, other: Node) -> Node:
    if ZERO in (one, other):
        return ZERO
    if ONE in (one, other):
        return other if one == ONE else one
    return _simple(Node("mul", None, (one, other)))


def _plus(one: Node, other: Node) -> Node:
    if ZERO in (one, other):
        return other if one == ZERO else one
    return _simple(Node("add", None, (one, other)))


def _simple(node: Node) -> Node:
    """A number in place of an expression that is one."""
    value = rational(node)
    return node if value is None else Node("num", value)
