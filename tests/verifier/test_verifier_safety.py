"""No text from outside is ever run as code, and nothing an answer can hold does harm."""

from __future__ import annotations

import ast
import builtins
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from verifier_helpers import all_cases

import lco.verifier
from lco.verifier import Pool, Rules
from lco.verifier.judge import judge
from lco.verifier.numbers.proof import prove

PACKAGE = Path(lco.verifier.__file__).parent
HARMFUL = [
    "__import__('os').system('touch harm')",
    "().__class__.__bases__[0].__subclasses__()",
    "eval('3')",
    "exec('import os')",
    "open('/etc/passwd').read()",
    "lambda: 3",
    "\\input{/etc/passwd}",
    "\\include{secrets}",
    "\\write18{touch harm}",
    "\\immediate\\write18{ls}",
    "\\openin5=x",
    "\\def\\x{\\x}\\x",
    "\\catcode`\\@=11",
    "\\csname x\\endcsname",
    "\\newcommand{\\x}{3}\\x",
    "3\x00",
    "\ud800",
    "3; import os; os.remove('x')",
]


@pytest.mark.parametrize("text", HARMFUL)
def test_harmful_text_is_refused_with_a_reason(text: str, pool: Pool) -> None:
    verdict = pool.verify(f"\\boxed{{{text}}}", "3")
    assert (verdict.correct, verdict.reason) == (False, "forbidden_text")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("9^{9^{9}}", "too_large"),
        ("9^{9^{9^{9}}}", "too_large"),
        ("((9!)!)!", "too_large"),
        ("10^{10^{10}}!", "too_large"),
        ("\\binom{10^{9}}{5 \\cdot 10^{8}}", "too_large"),
        ("1e99999999", "too_large"),
        ("{" * 10_000 + "3" + "}" * 10_000, "too_long"),
        ("{" * 1_000 + "3" + "}" * 1_000, "too_deep"),
        ("(" * 500 + "3" + ")" * 500, "too_deep"),
        ("3" * 1_000_000, "too_long"),
        ("\\frac{1}{" * 300 + "3" + "}" * 300, "too_deep"),
        ("\\sqrt" * 300 + "3", "too_deep"),
        ("2^" * 300 + "3", "too_deep"),
        ("\\begin{pmatrix} 1 & 2", "unreadable"),
        ("\\left( 3", "unreadable"),
    ],
)
def test_monstrous_text_is_refused_with_a_reason(text: str, reason: str, pool: Pool) -> None:
    verdict = pool.verify(f"\\boxed{{{text}}}", "3")
    assert verdict.correct is False
    assert verdict.reason in (reason, "different") if reason == "too_large" else verdict.reason == reason


def test_a_response_of_megabytes_is_read_or_refused(pool: Pool) -> None:
    assert pool.verify("word " * 200_000 + "\\boxed{3}", "3").correct
    assert pool.verify("\\boxed{" * 200_000, "3").reason == "no_answer"
    assert pool.verify("$" * 1_000_000, "3").correct is False
    assert pool.verify("\\(" * 300_000, "3").correct is False
    assert pool.verify("<think>" * 200_000 + "3", "3").correct is False
    assert pool.verify("x" * 3_000_000, "3").reason == "too_long"


@contextmanager
def bolted_doors() -> Iterator[list[str]]:
    """Every door by which Python or sympy turns text into code, bolted; the list gathers who knocked."""
    sympify_module = importlib.import_module("sympy.core.sympify")
    parser_module = importlib.import_module("sympy.parsing.sympy_parser")
    knocks: list[str] = []

    def bolted(name: str) -> Any:
        def refuse(*arguments: Any, **named: Any) -> Any:
            knocks.append(f"{name}{arguments!r:.80}")
            raise ValueError(f"{name} was called")

        return refuse

    original = sympify_module.sympify

    def no_strings(value: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(value, str):
            return bolted("sympify")(value)
        return original(value, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "sympy"]:
            for name, value in list(vars(module).items()):
                if value is original:
                    patch.setattr(module, name, no_strings)
        patch.setattr(parser_module, "parse_expr", bolted("parse_expr"))
        for name in ("eval", "exec", "compile"):
            patch.setattr(builtins, name, bolted(name))
        yield knocks


def test_no_text_reaches_eval_sympify_or_a_parser_of_the_libraries() -> None:
    cases = all_cases()
    for case in cases:  # load what sympy loads late: importing a module runs that module's code
        judge(case.response, case.gold, Rules(string_shortcut=False), prove)
    reasons = []
    with bolted_doors() as knocks:
        for case in cases:
            reasons.append(judge(case.response, case.gold, Rules(string_shortcut=False), prove).reason)
        for text in HARMFUL:
            reasons.append(judge(f"\\boxed{{{text}}}", "3", Rules(), prove).reason)
    assert knocks == []
    assert reasons.count("proved") > 10  # the way through sympy was really taken


def test_the_bolts_hold() -> None:
    sympy = importlib.import_module("sympy")
    with bolted_doors() as knocks:
        with pytest.raises(ValueError, match="sympify"):
            sympy.sympify("1 + 1")
        with pytest.raises(ValueError, match="eval"):
            eval("1 + 1")
    assert len(knocks) == 2


def test_the_source_names_no_such_door() -> None:
    """The package never names them, and math-verify, which evaluates texts, is no part of it."""
    doors = {
        "eval",
        "exec",
        "compile",
        "sympify",
        "parse_expr",
        "parse_latex",
        "latex2sympy",
        "__import__",
        "literal_eval",
    }
    named = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            owner = node.value.id if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) else ""
            if name in doors and owner != "re":
                named.append(f"{path.name}: {name}")
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            outside = [
                module for module in modules if module.startswith(("math_verify", "latex2sympy2", "sympy.parsing"))
            ]
            if outside:
                named.append(f"{path.name}: {outside}")
    assert named == []
