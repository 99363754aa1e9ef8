"""From an answer's text to what it may mean.

Most texts have one reading. Some have two (`1,234` is a number or two numbers; `(B)` is a choice or a letter; `5 m`
has a
unit or a factor); both are kept, and an answer is right if one of its readings equals one of the reference's.
"""

from __future__ import annotations

import re
from functools import lru_cache

from lco.verifier.read import words
from lco.verifier.read.grammar import parse
from lco.verifier.read.guards import check_answer
from lco.verifier.read.names import is_word
from lco.verifier.read.tokens import clean, drop_dollars, trim
from lco.verifier.read.units import MULTIPLIERS
from lco.verifier.tree import Node, RefusedError, UnreadableError, number

_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_TIMES_TEN = re.compile(r"(?<=[\d.])\s*[xX]\s*10\s*(?=\^)")
_CALL_PREFIX = re.compile(r"\b(?:np|math|numpy|sp|sympy)\.(?=[a-z])")
_MULTIPLIER = re.compile(r"(?<=\d)\s*(\\text\s*\{)?\s*(" + "|".join(MULTIPLIERS) + r")\b", re.IGNORECASE)
_LOOSE_UNIT = re.compile(r"(?<=[\d}])\s+([msghLNJWV])(\s*\^\s*\{?[23]\}?)?$|(?<=\\pi)\s+([msgh])(\s*\^\s*\{?[23]\}?)?$")
_HEAD = re.compile(
    r"(?P<head>(?=[A-Za-z\\])(?:\\text\s*\{[^{}\\]*\}|[A-Za-z' ,\-])+?)"
    r"(?:(?P<verb>\b(?:is|are|equals|was)\b(?:\s+equal to|\s+approximately)?\s*:?|:|=)"
    r"|(?<=is \})|(?<=is\})|(?<=:\})|(?<=: \})|(?<==\}))"
    r"\s*(?P<rest>\S.*)",
    re.DOTALL,
)
# Words before an answer that turn it into something else than a claim.
_HEDGES = re.compile(
    r"\b(?:not|no|never|neither|nor|either|or|if|unless|isn'?t|aren'?t|wasn'?t|wrong|incorrect|false|cannot|can'?t|maybe|perhaps"
    r"|might|could|possibly|without"
    r"|than|least|most|except|n't|instead|guess|unless|only if|given|suppose|assume|let)\b",
    re.IGNORECASE,
)
_NUMERAL = re.compile(r"(?:\(([0-9A-Z]+)\)|(?=[A-Z]*\d)([0-9A-Z]+))\s*_\s*\{?\s*(\d{1,2})\s*\}?")
_EMPTY = re.compile(r"[\s.,;:?!$\\{}()\[\]~_^&|*\-]*")


def read(text: str) -> tuple[Node, ...]:
    """The readings of an answer, the likeliest first. Raises RefusedError or UnreadableError."""
    check_answer(text)
    plain = clean(text)
    if _EMPTY.fullmatch(words.unwrap(plain)) and "|" not in plain.strip("|"):
        if re.fullmatch(r"\\\{\s*\\\}", plain):
            return (Node("nothing"),)
        raise RefusedError("empty_answer", "the answer holds nothing but punctuation")
    readings = _read(drop_dollars(plain), 2)
    if not readings:
        raise UnreadableError("no reading")
    return readings


# The same reference is read for every sample of a problem; parsed trees are immutable and depend on the text alone.
read_reference = lru_cache(maxsize=4096)(read)


def _read(text: str, depth: int) -> tuple[Node, ...]:
    found = words.read_words(text) or _numeral(text)
    if found and found[0].kind not in ("num",):
        return tuple(found)
    whole = re.fullmatch(r"\\(?:text|mbox|textbf|textrm|textnormal)\s*\{([^{}]*)\}", text)
    if whole and depth and _is_text(whole[1]):
        return (*found, Node("text", words.canonical(whole[1])))
    if whole and depth:
        return _read(trim(whole[1]), depth - 1)
    letter = words.choice_with_text(text)
    if letter and depth:
        return (Node("choice", letter[0]), *_attempt(letter[1], depth - 1))
    segment = re.fullmatch(r"\\overline\s*\{([A-Z]{2,})\}", text)
    if segment:
        return (*_expressions(text), Node("text", segment[1].lower()))
    ordinal = re.fullmatch(r"(\d+)(?:st|nd|rd|th)", words.unwrap(text))
    if ordinal:
        return (number(int(ordinal[1][:50])), Node("text", ordinal[0]))
    if _is_text(text):
        return (*found, *_headed(text, depth), Node("text", words.canonical(text)))
    try:
        return tuple(_expressions(text))
    except UnreadableError:
        headed = _headed(text, depth)
        if headed:
            return headed
        raise


def _numeral(text: str) -> list[Node]:
    """`A5_{11}` and `(52)_8`: digits with a base, letters among them."""
    found = _NUMERAL.fullmatch(words.unwrap(text))
    return [Node("based", ((found[1] or found[2]), int(found[3])))] if found else []


def _attempt(text: str, depth: int) -> tuple[Node, ...]:
    try:
        return _read(trim(text), depth)
    except UnreadableError:
        return ()


def _is_text(text: str) -> bool:
    """Prose: words alone, among them one that is no product of letters. One capital run (ABCD) is a name."""
    plain = words.unwrap(text).strip()
    if not words.is_prose(text):
        return False
    if re.fullmatch(r"[A-Z]{2,}", plain):
        return True
    runs = re.findall(r"[A-Za-zÀ-ÿ]+", plain)
    if re.fullmatch(r"\\\w+.*", text.strip()) and "\\text" not in text and "\\mbox" not in text:
        return False
    if plain[:1].isdigit() or plain[:1] == "-":
        return (len(runs) > 1 and len(plain) > 40) or re.fullmatch(r"\d+(?:st|nd|rd|th)\b.*", plain) is not None
    if "/" in plain or re.search(r"(?<![A-Za-z])-\d|_", plain):
        return len(runs) >= 3 and any(is_word(run, after_value=False) for run in runs)
    text_command = "\\" in text
    return any(is_word(run, after_value=False) for run in runs if run.lower() not in ("and", "or")) or (
        text_command and len(runs) > 0 and not re.search(r"\d", plain) and max(map(len, runs)) > 1
    )


def _headed(text: str, depth: int) -> tuple[Node, ...]:
    """What stands behind "The answer is", "Area =" and the like, unless the words before it take it back."""
    found = _HEAD.fullmatch(text) if depth else None
    if not found or _HEDGES.search(found["head"]) or _HEDGES.match(words.unwrap(found["rest"])):
        return ()
    if found["verb"] == "=" and not re.search(r"[A-Za-z]{4}|\\text", found["head"]):
        return ()
    return _attempt(found["rest"], depth - 1)


def _expressions(text: str) -> list[Node]:
    """The readings of a formula."""
    if "." in text:
        text = _CALL_PREFIX.sub("", text)
    text = _TIMES_TEN.sub(r"\\times 10", text)
    if "ion" in text or "thousand" in text or "hundred" in text or "dozen" in text:
        text = _MULTIPLIER.sub(lambda found: f"\\times {MULTIPLIERS[found[2].lower()]} {found[1] or ''}", text)
    texts = [text]
    if "," in text:
        joined = _join_groups(text)
        if joined != text:
            texts = [joined] if re.search(r",0", text) else [joined, text]
    loose = _LOOSE_UNIT.sub(lambda found: f" \\text{{{found[1] or found[3]}{found[2] or found[4] or ''}}}", texts[0])
    if loose != texts[0]:
        texts.insert(1, re.sub(r"\\text\{([a-zA-Z]+)\s*\^\s*\{?([23])\}?\}", r"\\text{\1^\2}", loose))
    readings: list[Node] = []
    failure: UnreadableError | None = None
    for variant in texts:
        try:
            node = parse(variant)
        except UnreadableError as error:
            failure = failure or error
            continue
        if node not in readings:
            readings.append(node)
    if not readings and failure is not None:
        raise failure
    return readings


def _join_groups(text: str) -> str:
    """`1,234` becomes `1234` outside of round and square brackets and sets, where a comma separates elements."""
    pieces, depth, last = [], 0, 0
    for found in _GROUPED.finditer(text):
        between = text[last : found.start()]
        depth += between.count("(") + between.count("[") + between.count("\\{")
        depth -= between.count(")") + between.count("]") + between.count("\\}")
        pieces.append(between)
        pieces.append(found[0].replace(",", "") if depth <= 0 else found[0])
        last = found.end()
    return "".join((*pieces, text[last:]))
