"""From an answer's text to what it may mean.

Most texts have one reading. Some have two (`1,234` is a number or two numbers; `(B)` is a choice or a letter; `5 m` has
a unit or a factor); both are kept, and an answer is right if one of its readings equals one of the reference's.
"""

from __future__ import annotations

import re
from functools import lru_cache

from lco.verifier.patterns import regex
from lco.verifier.read import words
from lco.verifier.read.choices import choice_with_text, small_choice
from lco.verifier.read.grammar import parse
from lco.verifier.read.guards import check_answer
from lco.verifier.read.names import is_word
from lco.verifier.read.numerals import decimal, read_numeral
from lco.verifier.read.remarks import REJECTIONS
from lco.verifier.read.rewrites import in_words, otherwise, rewritten, with_unit
from lco.verifier.read.tokens import balanced, clean, drop_dollars, trim
from lco.verifier.read.trailers import declares, split_trailer
from lco.verifier.tree import Node, RefusedError, UnreadableError, number

_GROUPED = regex(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_HEAD = regex(
    r"(?P<head>(?=[A-Za-z\\])(?:\\text\s*\{[^{}\\]*\}|[A-Za-z' ,\-])+?)"
    r"(?:(?P<verb>\b(?:is|are|equals|was)\b(?:\s+equal to|\s+approximately)?\s*:?|:|=)"
    r"|(?<=is \})|(?<=is\})|(?<=:\})|(?<=: \})|(?<==\}))"
    r"\s*(?P<rest>\S.*)",
    re.DOTALL,
)
# Words before an answer that turn it into something else than a claim.
_HEDGES = regex(
    r"\b(?:not|no|never|neither|nor|either|or|if|unless|isn'?t|aren'?t|wasn'?t|wrong|incorrect|false|cannot|can'?t|maybe|perhaps"
    r"|might|could|possibly|without"
    r"|doubt|doubtful|nobody|unlikely|impossible|whether|untrue|denies|deny"
    r"|than|least|most|except|n't|instead|guess|unless|only if|given|suppose|assume|let)\b",
    re.IGNORECASE,
)
_PLAIN_NUMBER = regex(r"-?\d{1,100}(?:\.\d{1,100})?", re.ASCII)
_EMPTY = regex(r"[\s.,;:?!$\\{}()\[\]~_^&|*\-]*")
_WHOLE_TEXT = regex(
    r"\\(?:text|mbox|textbf|textrm|textnormal|textsf|texttt|textit|emph|mathrm|operatorname)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_ORDINAL = regex(r"(\d+)\s*\^?\s*\{?\s*(?:st|nd|rd|th)\s*\}?", re.IGNORECASE)
_BOX = regex(r"\s*\$*\s*\\(?:boxed|fbox)\s*(?=\{)")
_CHINESE = regex(r"[\u4e00-\u9fff]+")
_AND = regex(r"\s*(?:,\s*and\b|,\s*or\b|,|;|&|\band\b|\bor\b)\s*", re.IGNORECASE)


def read(text: str) -> tuple[Node, ...]:
    """The readings of an answer, the likeliest first. Raises RefusedError or UnreadableError."""
    if _PLAIN_NUMBER.fullmatch(text):
        value = decimal(text.lstrip("-"))
        return (Node("neg", None, (value,)) if text[0] == "-" else value,)
    check_answer(text)
    plain = clean(_unboxed(text))
    if _is_blank(plain):
        raise RefusedError("empty_answer", "the answer holds nothing but punctuation")
    readings = _read(_ungrouped(drop_dollars(plain)), 2)
    if not readings:
        raise UnreadableError("no reading")
    return readings


# The same reference is read for every sample of a problem; parsed trees are immutable and depend on the text alone.
read_reference = lru_cache(maxsize=4096)(read)


def is_empty(text: str) -> bool:
    """Whether a text holds nothing but spacing and punctuation."""
    return not re.search(r"\d", text) and _is_blank(clean(_unboxed(text)))


def _is_blank(plain: str) -> bool:
    if "|" in plain.strip("|") or re.fullmatch(r"\\\{\s*\\\}", plain):
        return False
    return _EMPTY.fullmatch(words.unwrap(plain)) is not None


def _unboxed(text: str) -> str:
    """What a box holds that is the whole text: references cut from solutions come in theirs."""
    found = _BOX.match(text)
    while found:
        end = balanced(text, found.end())
        if end < 0 or text[end:].strip(" \n$."):
            break
        text = text[found.end() + 1 : end - 1]
        found = _BOX.match(text)
    return text


def _ungrouped(plain: str) -> str:
    """The text without TeX's braces around all of it, unless they may be meant for a set or belong to a command."""
    while plain[:1] == "{" and balanced(plain, 0) == len(plain) and not re.search(r"[,;]|\\choose|\\over", plain):
        plain = plain[1:-1].strip()
    return plain


def _read(text: str, depth: int) -> tuple[Node, ...]:
    plain = words.unwrap(text).strip()
    found = words.read_words(text)
    if found and found[0].kind != "num":
        return tuple(found)
    numeral = read_numeral(plain)
    if numeral:  # letters of digits may be a product as well: ab_{12}
        return (*numeral, *(_quiet_expressions(text) if plain[0].isalpha() else ()))
    ordinal = _ORDINAL.fullmatch(plain)
    if ordinal:
        return (number(int(ordinal[1][:50])), Node("text", f"{ordinal[1]}th"))
    whole = _WHOLE_TEXT.fullmatch(text)
    if whole and depth and _is_text(whole[1]):
        return (*found, *_headed(whole[1].strip(), depth), *_texts(whole[1]))
    if whole and depth and re.fullmatch(r"\s*[A-Za-z]{2,3}\s*", whole[1]):  # a short word, or a product set upright
        return (*found, *_texts(whole[1]), *_quiet_expressions(whole[1].strip()))
    if whole and depth:
        return _read(trim(whole[1]), depth - 1)
    letter = choice_with_text(plain)
    if letter and depth:
        return (letter[0], *(_attempt(letter[1], depth - 1) if letter[1] else ()))
    segment = re.fullmatch(r"\\overline\s*\{([A-Z]{2,})\}", text)
    if segment:
        return (*_expressions(text), Node("text", segment[1].lower()))
    signs = in_words(plain)
    if signs is not None:
        return tuple(_expressions(signs))
    if _is_text(text) or _CHINESE.fullmatch(plain):
        return (*found, *_headed(text, depth), *_texts(text))
    declared = _trailed(text, depth) if declares(text) else ()
    if declared:
        return declared
    try:
        return (*_expressions(text), *small_choice(plain))
    except UnreadableError:
        behind = _trailed(text, depth) or _headed(text, depth)
        if behind:
            return behind
        raise


def _attempt(text: str, depth: int) -> tuple[Node, ...]:
    try:
        return _read(trim(text), depth)
    except UnreadableError:
        return ()


def _quiet_expressions(text: str) -> tuple[Node, ...]:
    try:
        return tuple(_expressions(text))
    except UnreadableError:
        return ()


def _texts(text: str) -> list[Node]:
    """Prose as it stands, and as the list of things that commas, "and" or "or" join in it."""
    plain = words.unwrap(text).strip()
    readings = [Node("text", words.canonical(text))]
    verdict = words.yes_or_no(plain)
    if verdict:
        readings.append(Node("text", verdict))
    parts = [part for part in _AND.split(plain) if part]
    if 1 < len(parts) <= 12 and not any(_HEDGES.search(part) for part in parts):
        joints = " ".join(_AND.findall(plain)).lower()
        things = tuple(Node("text", words.canonical(part)) for part in parts)
        readings.append(Node("list", "or" if "or" in joints else "and" if "and" in joints else ",", things))
    return readings


def _is_text(text: str) -> bool:
    """Prose: words alone, among them one that is no product of letters. One capital run (ABCD) is a name."""
    plain = words.unwrap(text).strip()
    if not words.is_prose(text):
        return False
    if re.fullmatch(r"[A-Z]{2,}", plain):
        return True
    runs = [run for run in re.findall(r"[A-Za-zÀ-ÿ]+", plain) if run.lower() not in ("and", "or")]
    if re.fullmatch(r"\\\w+.*", text.strip()) and "\\text" not in text and "\\mbox" not in text:
        return False
    if plain[:1].isdigit() or plain[:1] == "-":
        return (len(runs) > 1 and len(plain) > 40) or re.fullmatch(r"\d+(?:st|nd|rd|th)\b.*", plain) is not None
    if "/" in plain or re.search(r"(?<![A-Za-z])-\d|_", plain):
        return len(runs) >= 3 and any(is_word(run, after_value=False) for run in runs)
    text_command = "\\" in text
    return any(is_word(run, after_value=False) for run in runs) or (
        text_command and len(runs) > 0 and not re.search(r"\d", plain) and max(map(len, runs)) > 1
    )


def _headed(text: str, depth: int) -> tuple[Node, ...]:
    """What stands behind "The answer is", "Area =" and the like, unless the words before it take it back."""
    found = _HEAD.fullmatch(text) if depth else None
    if not found or _rejects(found["head"]) or _HEDGES.match(words.unwrap(found["rest"])):
        return ()
    if found["verb"] == "=" and not re.search(r"[A-Za-z]{4}|\\text", found["head"]):
        return ()
    return _attempt(found["rest"], depth - 1)


def _rejects(head: str) -> bool:
    """Whether the words before an answer take it back: "the answer is not", "extraneous solution:"."""
    return _HEDGES.search(head) is not None or not REJECTIONS.isdisjoint(re.findall(r"[a-z]+", head.lower()))


def _trailed(text: str, depth: int) -> tuple[Node, ...]:
    """A formula with what stands behind it: letters that are declared ("for all x"), or a condition ("where m ≠ 0")."""
    found = split_trailer(text) if depth else None
    if found is None:
        return ()
    main, trailer = found
    readings = tuple(reading for reading in _attempt(main, depth - 1) if reading.kind != "text")
    if trailer.letters:
        return tuple(Node("for", (trailer.letters, trailer.domain), (reading,)) for reading in readings)
    conditions = _attempt(trailer.condition, 0) or (Node("text", words.canonical(trailer.condition)),)
    return tuple(Node("where", None, (reading, condition)) for reading in readings for condition in conditions[:1])


def _expressions(text: str) -> list[Node]:
    """The readings of a formula."""
    text = rewritten(text)
    texts = [text]
    if "," in text:
        joined = _join_groups(text)
        if joined != text:
            texts = [joined] if re.search(r",0", text) else [joined, text]
    measured = with_unit(texts[0])
    if measured is not None:
        texts.insert(1, measured)
    texts += otherwise(texts[0])
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
