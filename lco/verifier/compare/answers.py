"""Compare two read answers, whatever they are: the rules of docs/verifier.md, each kind by whoever knows it."""

from __future__ import annotations

from collections.abc import Callable

from lco.verifier.compare.congruences import classes, is_congruence, same_classes
from lco.verifier.compare.constants import alike_in_role, declared, with_names_of
from lco.verifier.compare.matrices import are_vectors, same_matrix
from lco.verifier.compare.quantities import Quantities, is_quantity
from lco.verifier.compare.regions import is_regional, region, same_region
from lco.verifier.compare.relations import Relations
from lco.verifier.compare.several import Several, expand_signs, has_signs, is_collection, plainer, renamed
from lco.verifier.compare.vectors import ratios, same_vector
from lco.verifier.numbers.ladder import Ladder
from lco.verifier.read import words
from lco.verifier.read.choices import same_choice
from lco.verifier.tree import Node, is_scalar, number, symbols


class Answers:
    """Decides whether an answer equals the reference; `reason` says why not where that is not obvious."""

    def __init__(self, ladder: Ladder, note: Callable[[str], None]) -> None:
        self.note = note
        self.scalars = ladder.compare
        self.quantities = Quantities(self.same, self.scalars, note)
        self.relations = Relations(self.same, self.scalars, note)
        self.several = Several(self.same, ladder.apart, note)

    @property
    def reason(self) -> str:
        """Why the answers compared so far are not the reference."""
        return "different_unit" if self.quantities.units_differed else "different"

    def equal(self, gold: Node, answer: Node) -> bool:
        """Whether the whole answer states what the whole reference states; the names of free constants may differ."""
        if self.same(gold, answer):
            return True
        if "for" in (gold.kind, answer.kind) or not (symbols(gold) and symbols(answer)):
            return False
        return any(self.same(gold, other) for other in alike_in_role(gold, answer))

    def same(self, gold: Node, answer: Node) -> bool:
        """Whether the answer states what the reference states."""
        gold, answer = plainer(gold), plainer(answer)
        kinds = {gold.kind, answer.kind}
        if is_congruence(gold) or is_congruence(answer):
            return same_classes(gold, answer)
        if "for" in kinds:
            return self._declared(gold, answer)
        if "where" in kinds:
            return len(kinds) == 1 and self._rows(gold, answer)
        if is_regional(gold) or is_regional(answer):
            one, other = region(gold, self.scalars), region(answer, self.scalars)
            if one is not None and other is not None:
                self.note("both are sets of real numbers; compared piece by piece")
                return _letters_agree(gold, answer) and same_region(one, other, self.scalars)
        if "rel" in kinds:
            return self.relations.compare(gold, answer)
        if are_vectors(gold, answer):
            return same_matrix(gold, answer, self.same)
        if is_quantity(gold) or is_quantity(answer):
            return self.quantities.compare(gold, answer)
        if "based" in kinds and len(kinds) == 2 and is_scalar(gold if answer.kind == "based" else answer):
            return self._numerals(gold, answer)
        if has_signs(gold) or has_signs(answer):
            return self._signed(gold, answer)
        if is_scalar(gold) and is_scalar(answer):
            return self.scalars(gold, answer)
        if is_collection(gold) or is_collection(answer):
            return self.several.compare(gold, answer)
        if kinds <= {"seq", "matrix"}:
            return same_vector(gold, answer, self.same, self.note)
        if "ratio" in kinds:
            return ratios(gold, answer, self.scalars)
        return len(kinds) == 1 and self._alike(gold, answer)

    def _alike(self, gold: Node, answer: Node) -> bool:
        """Two answers of one of the remaining kinds."""
        kind = gold.kind
        if kind == "choice":
            return same_choice(gold.value, answer.value)
        if kind == "time":
            return words.same_time(gold.value, answer.value)
        if kind == "date":
            years = gold.value[2], answer.value[2]
            return gold.value[:2] == answer.value[:2] and (None in years or years[0] == years[1])
        if kind == "cases":
            return self.several.unordered(gold.args, answer.args, self._rows)
        if kind == "builder":
            return self._builders(gold, answer)
        if kind in ("union", "intersection"):
            return self.several.unordered(gold.args, answer.args, self.same)
        if kind == "minus":
            return self._rows(gold, answer)
        return gold == answer

    def _declared(self, gold: Node, answer: Node) -> bool:
        """Statements "for all x" or "for some c": the letters that they declare may have other names."""
        gold_letters, gold_domain, one = declared(gold)
        letters, domain, other = declared(answer)
        if gold_domain and domain and gold_domain != domain:
            self.note(f"the letters are {domain} where the reference has {gold_domain}")
            return False
        if not gold_letters and not letters:
            return self.same(one, other)
        if gold_domain == "integers" and classes(gold) is not None:
            return same_classes(gold, answer)
        return any(self.same(one, named) for named in with_names_of(one, other, gold_letters, letters))

    def _numerals(self, gold: Node, answer: Node) -> bool:
        """52 for 52 in base 8: the base may be missing like a unit. A base that the reference does not name is worked out."""
        if gold.kind == "based":
            return answer.kind == "num" and str(answer.value) == gold.value[0]
        digits, base = answer.value
        self.note(f"the reference names no base, so {digits} in base {base} is taken by its value")
        return self.scalars(gold, number(int(digits, base)))

    def _signed(self, gold: Node, answer: Node) -> bool:
        """`1 ± √2` stands for its two values."""
        self.note("± is written out")
        if gold == answer:
            return True
        return any(
            self.same(expand_signs(gold, independent), expand_signs(answer, independent))
            for independent in (False, True)
        )

    def _rows(self, gold: Node, answer: Node) -> bool:
        """The same parts in the same order."""
        return self.several.ordered(gold.args, answer.args)

    def _builders(self, gold: Node, answer: Node) -> bool:
        """{x | …} and {t | …} are the same set if the conditions are, the letter being bound."""
        if gold.args[0].kind == "sym" and answer.args[0].kind == "sym":
            answer = renamed(answer, answer.args[0].value, gold.args[0].value)
        return self.same(gold.args[0], answer.args[0]) and self.several.conditions(gold.args[1], answer.args[1])


def _letters_agree(gold: Node, answer: Node) -> bool:
    """`x ≥ 2` is not `y ≥ 2`; an interval names no letter."""
    names = [symbols(node) for node in (gold, answer) if node.kind in ("rel", "list")]
    return len(names) < 2 or names[0] == names[1]
