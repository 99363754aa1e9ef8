"""What runs of letters and commands are called: functions, Greek letters, constants, marks; and what is a word instead."""

from __future__ import annotations

from lco.verifier.read.units import PLAIN

FUNCTIONS = frozenset(
    (
        "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth sech csch "
        "arcsinh arccosh arctanh ln log lg exp asin acos atan asinh acosh atanh sqrt abs min max floor ceil cbrt"
    ).split()
)
GREEK = frozenset(
    (
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho sigma tau upsilon "
        "phi chi psi omega "
        "Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega hbar ell mho aleph nabla partial"
    ).split()
)
CONSTANTS = {"pi": "pi", "infty": "inf", "infinity": "inf", "inf": "inf", "oo": "inf"}
MARKS = frozenset(
    "hat bar overline tilde widehat widetilde overleftrightarrow overarc wideparen vec overrightarrow".split()
)
DOTS = {"dot": "'", "ddot": "''"}
FIGURES = frozenset(("angle", "triangle", "measuredangle", "square", "odot", "parallelogram"))
FENCES = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil")}
UNKNOWN_FUNCTIONS = frozenset("f g h F G H".split())

_STARTS = FUNCTIONS | GREEK | CONSTANTS.keys() | MARKS | DOTS.keys() | FIGURES | FENCES.keys()
_STARTS = _STARTS | {"frac", "binom", "langle", "mathbb", "emptyset"}
_SMALL_WORDS = frozenset("or and is of the to if for per not no sq all yes mod".split())


def starts_value(name: str) -> bool:
    """Whether `\\name` begins a number, a letter or a function."""
    return name in _STARTS


def is_named(run: str) -> bool:
    """Whether a run of letters is a function, a constant or a Greek letter written out."""
    return run in FUNCTIONS or run in CONSTANTS or run in GREEK


def is_word(run: str, after_value: bool) -> bool:
    """Whether a run of letters is a word (a unit, a label, prose) and not a product of letters or a function."""
    if is_named(run):
        return run == "min" and after_value
    if run.lower() in _SMALL_WORDS or (after_value and run in PLAIN):
        return True
    if run.isupper():
        return False
    return len(run) >= 4 and not any(run.startswith(name) for name in ("sin", "cos", "tan", "log", "sqrt"))
