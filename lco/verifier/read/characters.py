"""Unicode to LaTeX: every character a model may use for a mathematical sign becomes the sign's plain form.

The table is applied with one `str.translate`; runs of superscripts and subscripts are gathered so that `x¹²` is
`x^{12}`.
"""

from __future__ import annotations

import re
import unicodedata

from lco.verifier.patterns import regex

_SIGNS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "﹢": "+",
    "×": r"\times ", "✕": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ", "∗": "*",
    "÷": r"\div ", "∕": "/", "⁄": "/", "±": r"\pm ", "∓": r"\mp ",
    "√": r"\sqrt ", "∛": r"\sqrt[3] ", "∜": r"\sqrt[4] ",
    "≤": r"\le ", "⩽": r"\le ", "≦": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≧": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "≃": r"\approx ", "≅": r"\approx ", "≡": r"\equiv ",
    "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∉": r"\notin ",
    "∅": r"\emptyset ", "∖": r"\setminus ",
    "ℝ": r"\mathbb{R} ", "ℤ": r"\mathbb{Z} ", "ℕ": r"\mathbb{N} ", "ℚ": r"\mathbb{Q} ", "ℂ": r"\mathbb{C} ",
    "°": r"^\circ ", "º": r"^\circ ", "˚": r"^\circ ", "∘": r"\circ ", "∠": r"\angle ",
    "△": r"\triangle ", "∆": r"\Delta ",
    "⟨": r"\langle ", "〈": r"\langle ", "⟩": r"\rangle ", "〉": r"\rangle ",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∣": "|", "→": r"\to ", "∨": r"\text{ or }",
    "∧": r"\text{ and }", "∼": r"\sim ", "∝": r"\propto ", "…": r"\ldots ", "⋯": r"\cdots ",
    "′": "'", "’": "'", "‘": "'", "ʹ": "'", "″": "''", "“": '"', "”": '"',
    "，": ",", "、": ",", "；": ";", "：": ":", "。": ".", "．": ".", "∶": ":", "٪": "%", "﹪": "%", "＄": "$",
    "‰": r"\text{‰}", "‱": r"\text{bp}",
    "℃": r"^\circ C", "℉": r"^\circ F", "µ": r"\mu ", "Ω": r"\Omega ", "ℓ": "l", "ı": "i", "≔": ":=", "≜": "=", "‖": r"\| ",
    "✓": r"\checkmark ", "✔": r"\checkmark ", "✅": r"\checkmark ", "☑": r"\checkmark ", "∎": r"\blacksquare ",
    "■": r"\blacksquare ", "□": r"\square ", "◻": r"\square ",
}  # fmt: skip

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma sigma tau "
    "upsilon phi chi psi omega"
).split()

_FRACTIONS = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5), "⅘": (4, 5),
    "⅙": (1, 6), "⅚": (5, 6), "⅐": (1, 7), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8),
    "⅑": (1, 9), "⅒": (1, 10),
}  # fmt: skip

_SPACES = "\t\v\f\r\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\u2028\u2029\u0085"
_INVISIBLE = "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\ufeff\u00ad\ufe0e\ufe0f\u200e\u200f"

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱˣʸᵏᵐᵗ", "0123456789+-=()nixykmt", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙₖᵢⱼₘₐₑₓₜ", "0123456789+-=()nkijmaext", strict=True))


def _table() -> dict[int, str]:
    table = {ord(sign): plain for sign, plain in _SIGNS.items()}
    for index, name in enumerate(_GREEK):
        table[0x3B1 + index] = f"\\{name} "
        if name in "gamma delta theta lambda xi pi sigma upsilon phi psi omega".split():
            table[0x391 + index] = f"\\{name.capitalize()} "
    table[ord("ϕ")] = r"\phi "
    table[ord("ε")] = table[ord("ϵ")] = r"\epsilon "
    table.update({ord(sign): f"\\frac{{{top}}}{{{bottom}}}" for sign, (top, bottom) in _FRACTIONS.items()})
    table.update(dict.fromkeys(map(ord, _SPACES), " "))
    table.update(dict.fromkeys(map(ord, _INVISIBLE), ""))
    for code in range(0xFF01, 0xFF5F):  # full-width forms of ASCII
        table.setdefault(code, chr(code - 0xFEE0))
    for code in range(0x1D400, 0x1D800):  # letters and digits in mathematical alphabets
        plain = unicodedata.normalize("NFKC", chr(code))
        table.setdefault(code, table.get(ord(plain), plain) if len(plain) == 1 else plain)
    return table


_TABLE = _table()
_RAISED = regex("[" + "".join(map(re.escape, _SUPERSCRIPTS)) + "]+")
_LOWERED = regex("[" + "".join(map(re.escape, _SUBSCRIPTS)) + "]+")


def to_latex(text: str) -> str:
    """The text with Unicode mathematics written as LaTeX and every space a plain one."""
    if text.isascii():
        return text.replace("\t", " ").replace("\r", " ") if "\t" in text or "\r" in text else text
    text = _RAISED.sub(lambda run: "^{" + "".join(_SUPERSCRIPTS[sign] for sign in run[0]) + "}", text)
    text = _LOWERED.sub(lambda run: "_{" + "".join(_SUBSCRIPTS[sign] for sign in run[0]) + "}", text)
    return text.translate(_TABLE)
