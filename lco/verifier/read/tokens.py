"""From text to tokens: strip what only sets type, then cut the rest into numbers, letters, commands and signs.

`clean` removes spacing, sizes and delimiters (`\\left`, `\\!`, `$`, `\\displaystyle`), which never carry meaning.
`tokenize` makes one pass with one regular expression that cannot backtrack over more than a token.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lco.verifier.patterns import regex
from lco.verifier.read.characters import to_latex
from lco.verifier.read.guards import MAX_TOKENS
from lco.verifier.read.units import CURRENCY_SIGNS
from lco.verifier.tree import RefusedError, UnreadableError


class Token(NamedTuple):
    """A piece of the text; `spaced` says whether a space stood before it."""

    kind: str  # num, letters, command, text, sign, open, close, end
    text: str
    spaced: bool = False


_GROUPED = regex(r"(?<=\d)(?:\{,\}|,\s*\\!|\\!\s*,|\{,\\!\}|\\,|\{\\,\})[ ]*(?:\\!)?[ ]*(?=\d{3}(?!\d))")
_DROPPED = regex(
    r"\\(?:left|right)\s*\."
    r"|\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|mathstrut|strut|ensuremath"
    r"|mathbf|boldsymbol|bm|mathit|mathsf|mathtt|mathcal|mathscr|bf|rm|it|large|Large|huge|Huge|LARGE|small|normalsize"
    r"|underline|boxed|fbox|allowbreak|nonumber|centering)(?![a-zA-Z])"
    r"|\\(?:phantom|hphantom|vphantom|tag|label|color|textcolor|hspace|vspace)\*?\s*(?:\{[^{}]*\}|[^{\s])"
    r"|\\!"
)
_UNIT_VECTOR = regex(r"\\(?:mathbf|boldsymbol|bm|vec|hat)\s*\{?\s*(?:\\([ij])math|([ijk]))\s*\}?(?![a-zA-Z])")
_DOUBLE_HAT = regex(r"\\(?:hat|vec)\s*\{\s*(\\hat\{[ijk]\})\s*\}")
_SPACE = regex(r"(?<!\\)\\(?:[,;:> ]|(?:quad|qquad|thinspace|enspace|hfill|par|newline)(?![a-zA-Z]))|~|\s+")
_BRACED_SIGN = regex(r"(?<![A-Za-z])\{([,:;=])\}")  # set without the space around it
_CURRENCY_COMMANDS = {
    "pounds": "£",
    "textsterling": "£",
    "euro": "€",
    "texteuro": "€",
    "yen": "¥",
    "textdollar": r"\$",
    "cents": "¢",
}
_CURRENCY_COMMAND = regex(r"\\(" + "|".join(_CURRENCY_COMMANDS) + r")(?![a-zA-Z])\s*")
_MICRO = regex(r"\\mu\s*\\(?:text|mathrm|textrm|rm)\s*\{\s*")
# What ends a proof, a line or a turn and is no part of the answer.
_DECORATION = regex(r"(?: ?\.? ?(?:\\(?:checkmark|blacksquare|square|Box|qed|qedhere)(?![a-zA-Z])|\\\\))+ ?\.? ?$")
_RENAMED = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "choose": "choose",
    "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "lt": "<", "gt": ">", "to": "to",
    "varnothing": "emptyset", "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]", "vert": "|", "lvert": "|",
    "rvert": "|", "ast": "*", "cdotp": "cdot", "degree": "circ", "ldots": "dots", "cdots": "dots", "dotsc": "dots",
    "varepsilon": "epsilon", "varphi": "phi", "vartheta": "theta", "arctg": "arctan", "tg": "tan", "ctg": "cot",
    "cosec": "csc", "lg": "lg", "bigcup": "cup", "lor": "lor", "vee": "lor", "land": "land", "wedge": "land",
    "simeq": "approx", "cong": "approx", "Re": "Re", "lparen": "(", "rparen": ")", "colon": ":", "middle": "|",
    "backslash": "setminus", "smallsetminus": "setminus", "prime": "'", "div": "/", "deg": "circ",
    "times": "*", "cdot": "*", "coloneqq": "=", "triangleq": "=", "doteq": "=",
}  # fmt: skip
_TEXT_COMMANDS = frozenset(
    ("text mbox textrm textbf textit textnormal textsf texttt textup emph hbox mathrm operatorname textsc").split()
)
_TOKEN = regex(
    r"(?P<space>[ ]+)"
    r"|(?P<num>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+(?![\d.a-zA-Z]))?)"
    r"|(?P<letters>[a-zA-Z]+)"
    r"|\\(?P<command>[a-zA-Z]+|.)"
    r"|(?P<text>[\u4e00-\u9fff]+|[" + CURRENCY_SIGNS.replace("$", "") + "])"
    r"|(?P<dots>\.\.+)"
    r"|(?P<sign>\*\*|<=|>=|!=|==|:=|->|.)",
    re.DOTALL,
)
_ESCAPED = regex(r"\\([$%#&])")
_UNIT_LETTERS = "msgLNJWVKFhl"  # upright, these are units
_OPEN, _CLOSE = "([{", ")]}"


def clean(text: str) -> str:
    """The text without what only sets type, on one line, ends trimmed of Markdown and closing punctuation."""
    text = to_latex(text)
    if "\\" in text:
        text = _GROUPED.sub("", text)
        text = text.replace("\\%", "%").replace("\\#", "#")
        text = _UNIT_VECTOR.sub(lambda found: f"\\hat{{{found[1] or found[2]}}}", text)
        text = _DOUBLE_HAT.sub(r"\1", text)
        text = _DROPPED.sub("", text)
        text = re.sub(r"(?<!\\)\\[()\[\]]", " ", text)
        text = _CURRENCY_COMMAND.sub(lambda found: _CURRENCY_COMMANDS[found[1]], text)
        text = _MICRO.sub(r"\\text{μ", text)
    text = _BRACED_SIGN.sub(r"\1", text)
    text = _SPACE.sub(" ", text)
    return trim(_DECORATION.sub("", text) if "\\" in text else text)


def trim(text: str) -> str:
    """The text without surrounding spaces, emphasis marks and closing punctuation."""
    while True:
        before = text
        text = text.strip(' `"')
        for mark in ("**", "__", "*"):
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                text = text[len(mark) : -len(mark)]
        if text.count("**") == 1:
            text = text.removesuffix("**").removeprefix("**")
        while text and (text[-1] in ",;:" or (text[-1] == "." and not text.endswith(".."))):
            text = text[:-1].rstrip()
        if text == before:
            return text


def drop_dollars(text: str) -> str:
    """The text without math delimiters; a dollar that stands for money becomes `\\$`."""
    if "$" not in text:
        return text
    bare = [at for at, sign in enumerate(text) if sign == "$" and not (at and text[at - 1] == "\\")]
    if len(bare) == 1 and re.match(r"\s*[\d.]", text[bare[0] + 1 :]):
        return text[: bare[0]] + "\\$" + text[bare[0] + 1 :]
    return trim("".join(" " if at in set(bare) else sign for at, sign in enumerate(text)))


def balanced(text: str, start: int) -> int:
    """The index just after the brace group that opens at `start`, or -1 if it is never closed."""
    depth = 0
    at = start
    while at < len(text):
        sign = text[at]
        if sign == "\\":
            at += 2
            continue
        if sign == "{":
            depth += 1
        elif sign == "}":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return -1


def tokenize(text: str) -> list[Token]:
    """The tokens of a cleaned text, closed by one of kind `end`."""
    tokens: list[Token] = []
    at, spaced = 0, False
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise UnreadableError(f"cannot read {text[at : at + 10]!r}")
        at = found.end()
        kind, piece = found.lastgroup or "", found[found.lastgroup or 0]
        if kind == "space":
            spaced = True
            continue
        if kind == "command":
            token, at = _command(piece, text, at, spaced)
        elif kind == "dots":
            token = Token("command", "dots", spaced)
        elif kind == "sign":
            token = _sign(piece, spaced)
        else:
            token = Token(kind, piece, spaced)
        if token is not None:
            tokens.append(token)
            spaced = False
        if len(tokens) > MAX_TOKENS:
            raise RefusedError("too_long", f"more than {MAX_TOKENS} tokens")
    tokens.append(Token("end", "", spaced))
    return tokens


def _sign(piece: str, spaced: bool) -> Token | None:
    if piece in _OPEN:
        return Token("open", piece, spaced)
    if piece in _CLOSE:
        return Token("close", piece, spaced)
    if piece in ("<=", ">=", "!=", "==", ":=", "->"):
        plain = {"<=": "le", ">=": "ge", "!=": "ne", "->": "to"}.get(piece)
        return Token("command", plain, spaced) if plain else Token("sign", "=", spaced)
    return Token("sign", "^" if piece == "**" else piece, spaced)


def _command(name: str, text: str, at: int, spaced: bool) -> tuple[Token | None, int]:
    """The token of `\\name`, and where the text goes on (a text command swallows its argument)."""
    if name in _TEXT_COMMANDS:
        while at < len(text) and text[at] == " ":
            at += 1
        if at < len(text) and text[at] == "{":
            end = balanced(text, at)
            if end < 0:
                raise UnreadableError(f"\\{name}{{ is never closed")
            inner = text[at + 1 : end - 1]
            return (_text_token(inner, spaced) if inner.strip() else None), end
        return None, at
    if name in ("begin", "end"):
        end = balanced(text, at) if at < len(text) and text[at] == "{" else -1
        if end < 0:
            raise UnreadableError(f"\\{name} without a name")
        return Token(name, text[at + 1 : end - 1].strip().rstrip("*"), spaced), end
    if name in ("-", "/"):  # places to break a line or a ligature
        return None, at
    name = _RENAMED.get(name, name)
    if name == "{":
        return Token("open", "\\{", spaced), at
    if name == "}":
        return Token("close", "\\}", spaced), at
    if name == "\\":
        if at < len(text) and text[at] == "[":  # \\[2pt]
            end = text.find("]", at)
            at = end + 1 if end > 0 else at
        return Token("row", "\\\\", spaced), at
    if name == "$":
        return Token("text", "$", spaced), at
    if name in ("|", "Vert", "lVert", "rVert", "parallel"):
        return Token("sign", "|", spaced), at
    if len(name) == 1 and not name.isalpha():
        return _sign(name, spaced), at
    return Token("command", name, spaced), at


def _text_token(content: str, spaced: bool) -> Token:
    """A text, except that `\\mathrm{e}`, `\\operatorname{sin}` and the like are mathematics set upright."""
    words = _ESCAPED.sub(r"\1", content).replace("\\mu ", "μ").replace("^\\circ ", "°").strip()
    if len(words) > 1 and words[0] == words[-1] == "$":
        words = words[1:-1].strip()
    if (re.fullmatch(r"[a-zA-Z]", words) and words not in _UNIT_LETTERS) or words in (
        "sin",
        "cos",
        "tan",
        "arcsin",
        "arccos",
        "arctan",
        "ln",
        "log",
        "lcm",
    ):
        return Token("letters", words, spaced or content[:1] == " ")
    if re.fullmatch(r"\d+(\.\d+)?", words):
        return Token("num", words, spaced or content[:1] == " ")
    return Token("text", words, spaced or content[:1] == " ")
