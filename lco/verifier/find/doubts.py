r"""Sentences that name an answer without giving it: "I do not think that the answer is 12", "You might think the answer is 12".

What governs "the answer is" stands directly before it: "whether", or a verb or adjective of thinking and saying, with or
without "that". Words behind which a new clause begins end the search: "I do not think so; the answer is 12" gives 12.
"""

from __future__ import annotations

import re

from lco.verifier.patterns import regex

_CLAUSE = regex(
    r"[.](?=\s)|[;:!?\n—–,()]|\b(?:and|but|so|yet|then|thus|hence|therefore|however|although|though|because|since)\b",
    re.IGNORECASE,
)
_ASIDE = regex(
    r",\s*(?:however|though|of course|in fact|honestly|to be honest|personally|therefore|then|indeed"
    r"|in (?:this|that|any) case)\s*,",
    re.IGNORECASE,
)
_SUBJECT = regex(r"\b(?:we|i|it)\b(?!'d)", re.IGNORECASE)
# Words before a pronoun that does not begin a clause of its own: "I doubt that we can say", "nor do I think".
_HOLDS_SUBJECT = frozenset(
    (
        "that think thinks believe believes say says claim claims doubt doubts know knows if whether do does did can could "
        "would should will may might must is am are was have not sure certain"
    ).split()
)
_HEAD = regex(
    r"(?:\s*\b(?:in (?:this|that|any|the) case|here|indeed|in fact|actually|really|for \$?\w{1,3}\s*=\s*[^\s,]{1,8}))?"
    r"(?:\s*\b(?:the|my|our|your|his|her|their|this|its|an?|any))?"
    r"(?:\s*\b(?:final|correct|right|exact|real|true|only|best|required|desired|whole|simplified|numerical))*\s*$",
    re.IGNORECASE,
)
_OPEN = regex(
    r"\b(?:if|whether|unless|lest|as though|maybe|perhaps|possibly|(?:pretend|imagine|(?<!\bi )(?<!\bi'd )(?<!would )"
    r"(?:suppose|assume|assuming|supposing))(?: that)?)$",
    re.IGNORECASE,
)
_VERBS = (
    "think|thinks|thought|thinking|believe|believes|believed|say|says|said|saying|claim|claims|claimed|guess|guessed|guessing"
    "|doubt|doubts|doubted|know|knows|knew|known|mean|means|conclude|concluded|concluding|suspect|suspects|suppose|supposed|assume"
    "|expect|expected|argue|argued|imagine|feel|bet|swear|agree|convinced|sure|certain|confident|positive|wonder|deny|denies|denied"
    "|show|shows|shown|imply|implies|follow|follows|prove|proves|proved|proven|see|hold|see|find|found|true|clear|way|case"
)
_GOVERNS = regex(rf"(?:\b(?P<verb>{_VERBS})|\bthat)$", re.IGNORECASE)
# Verbs that no "not" before them denies, as only the base form stands behind "does not".
_FINITE = regex(
    r"\b(?:means|meaning|shows|showing|implies|implying|proves|proving|tells(?: us| me)?|gives|yields|ensures|guarantees|confirms"
    r"|establishes|demonstrates|indicates|suggests|follows|says|thinks|believes|claims)$",
    re.IGNORECASE,
)
_AFFIRMED = regex(
    r"\bno (?:doubt|question|denying|dispute|escaping|surprise|coincidence|wonder|accident|secret)\b|\bwithout (?:a |any )?\w+"
    r"|(?:\b(?:not|never|cannot|nobody|no one|nor|no reason to)|n't)\s+(?:to\s+|at all\s+)?(?:doubts?|den(?:y|ies)|wonder)\b"
    r"|(?:\bnot|n't)\s+(?:(?:too|very|so|at all|that|be|especially)\s+){0,2}"
    r"(?:hard|difficult|tricky|surprising|wrong|false|incorrect|unlikely|impossible|only|just|merely|forget|need|have to"
    r"|a (?:coincidence|surprise|secret|mistake|stretch)|take (?:long|much)|unreasonable)\b"
    r"|\bneed(?: not|n't)\b|\bnot surprisingly\b|\bcannot (?:but|help but|stress|escape)\b|\bnever forget\b",
    re.IGNORECASE,
)
_DENYING = regex(
    r"\b(?:wrong(?:ly)?|false(?:ly)?|untrue|incorrect(?:ly)?|unlikely|impossible|doubtful|dubious|questionable|unclear|unknown|uncertain"
    r"|unsure|absurd|implausible|mistaken(?:ly)?|tempting|tempted|naive|premature|doubt|doubts|doubted|doubting|wonder|wonders|deny|denies"
    r"|denied|refuse|refuses|used|mistake is|mistake would be|contrary to the \w+|hard|difficult)"
    r"(?:\s+to(?:\s+(?:\w+ly\s+)?\w+)?)?(?:\s+it)?(?:\s+that)?$",
    re.IGNORECASE,
)
_HARD_TO_FACT = regex(
    r"\b(?:hard|difficult|used) to (?:see|show|prove|check|find|verify|conclude|deduce|note)(?:\s+that)?$",
    re.IGNORECASE,
)
_NEGATED = regex(
    r"\b(?:not|never|cannot|nobody|no one|noone|nothing|none|neither|nor|no|hardly|without)\b|n't\b", re.IGNORECASE
)
_NO_SUBJECT = regex(r"^\s*(?:\w+ly\s+)?(?:nobody|no one|noone|nothing|none|neither|no)\b", re.IGNORECASE)
_OPINION = (
    r"(?:think|guess|say|believe|suspect|assume|suppose|expect|claim|argue|imagine|object|hope"
    r"|be (?:tempted|inclined|led) to \w+)(?:\s+that)?$"
)
_ADVERBS = r"(?:(?:also|easily|well|perhaps|naively|first|at first|initially|even|be)\s+)*"
_HEDGED = regex(
    rf"\b(?:might|could)\s+{_ADVERBS}{_OPINION}"
    rf"|(?<!\bi )(?<!\bwe )\b(?:may|would|can|will)\s+{_ADVERBS}{_OPINION}"
    rf"|\b(?:you|one|they|he|she)'d\s+{_ADVERBS}{_OPINION}"
    r"|\b(?:might|may|could)\s+(?:well\s+)?be(?: the case| true)? that$",
    re.IGNORECASE,
)
_CHINESE = regex(
    r"(?:不认为|不觉得|不相信|怀疑|不确定|不知道|不能说|未必|难道|如果|假设|假如|也许|或许|可能)[^，。；！？\n]{0,10}$"
)
_REACH = 300


def doubt(text: str, start: int) -> str:
    """What the words before `start`, where "answer is" begins, do to what it says: "denied", "open", "" if they let it
    stand."""
    before = text[max(0, start - _REACH) : start]
    if _CHINESE.search(before):
        return "open"
    clause = _HEAD.sub("", _last_clause(before)).rstrip()
    if _OPEN.search(clause):
        return "open"
    if not _GOVERNS.search(clause) or _AFFIRMED.search(clause):
        return ""
    if _HEDGED.search(clause):
        return "open"
    if _DENYING.search(clause) and not _HARD_TO_FACT.search(clause):
        return "denied"
    verb = clause.removesuffix("that").rstrip()
    return "denied" if (_NO_SUBJECT if _FINITE.search(verb) else _NEGATED).search(clause) else ""


def _last_clause(before: str) -> str:
    """The clause with which a text ends, on one line and without marks for emphasis."""
    plain = re.sub(r"[*_]", "", before).replace("’", "'")
    plain = re.sub(r"\b(that|if|whether|think|believe|doubt|the)[ \t]*\n(?!\s*\n)", r"\1 ", plain)
    plain = re.sub(r"[ \t]+", " ", _ASIDE.sub(" ", plain))
    start = max((found.end() for found in _CLAUSE.finditer(plain)), default=0)
    for found in _SUBJECT.finditer(plain, start):
        words = plain[start : found.start()].split()
        if words and words[-1].lower() not in _HOLDS_SUBJECT:
            start = found.start()
    return plain[start:]
