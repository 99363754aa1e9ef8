"""Cheap looks at a text before any work is spent on it. Each takes one pass over the characters, whatever they are."""

from __future__ import annotations

from lco.verifier.patterns import regex
from lco.verifier.tree import RefusedError

MAX_RESPONSE = 2_000_000  # characters; a 32k-token response has about 130,000
MAX_ANSWER = 4_000
MAX_DEPTH = 40  # brackets within brackets
MAX_TOKENS = 1_500

# Words by which TeX reads or writes files or redefines itself, and by which Python is reached. None is ever an answer.
_FORBIDDEN = regex(
    r"\\(?:input|include|write\d*|immediate|openin|openout|read|readline|def|edef|gdef|xdef|let|futurelet|catcode|csname"
    r"|usepackage|documentclass|newcommand|renewcommand|newenvironment|loop|repeat|expandafter|special|directlua"
    r"|ShellEscape|lstinputlisting|verbatiminput|url|href|includegraphics)(?![a-zA-Z])"
    r"|__\w|\bimport\b|\blambda\s*\w*\s*:|\bexec\s*\(|\beval\s*\(|\bopen\s*\(|\bos\s*\.\s*\w|\bsubprocess\b|\bgetattr\b"
)
_CONTROL = regex("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")


def check_response(response: str) -> None:
    """Refuse a response that is too long to be read."""
    if len(response) > MAX_RESPONSE:
        raise RefusedError("too_long", f"the response has {len(response)} characters; at most {MAX_RESPONSE} are read")


def check_answer(answer: str) -> None:
    """Refuse an answer that is too long, too deep, or holds what no answer holds."""
    if len(answer) > MAX_ANSWER:
        raise RefusedError("too_long", f"the answer has {len(answer)} characters; at most {MAX_ANSWER} are read")
    found = _CONTROL.search(answer)
    if found:
        raise RefusedError("forbidden_text", f"the answer holds the character U+{ord(found[0]):04X}")
    found = _FORBIDDEN.search(answer)
    if found:
        raise RefusedError("forbidden_text", f"the answer holds {found[0]!r}")
    depth = 0
    for character in answer:
        if character in "{([":
            depth += 1
            if depth > MAX_DEPTH:
                raise RefusedError("too_deep", f"more than {MAX_DEPTH} brackets within brackets")
        elif character in "})]":
            depth -= 1
