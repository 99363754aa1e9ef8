"""A table as Markdown and as LaTeX. Names come from whoever wrote a record: none of them may write markup.

Characters that act without being seen (controls, NUL, ESC, new lines in a name, marks that turn the direction of writing)
are printed as `<U+202E>`; what Markdown or TeX would read as its own signs is escaped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass

UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories without a picture: control, format, surrogate, line and paragraph separators."""
MARKDOWN = re.compile(
    r"""
    [\\`<>|~$]                        # code, raw HTML, cells, strikes, formulas
    | &(?=[\#\w])                     # entities
    | \*(?=\S) | (?<=\S)\*            # emphasis; a star alone is a star
    | (?<![^\W_])_ | _(?![^\W_])      # likewise; between letters it is one
    | \](?=[(\[:])                    # links
    | !(?=\[)                         # pictures
    """,
    re.VERBOSE,
)
BLOCK = re.compile(r"^(\d*)([#+=.)*-])")
"""What would make a heading or a list of a line of text."""
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
SIGNS = {
    "±": "pm", "−": "-", "≤": "leq", "≥": "geq", "≠": "neq", "→": "rightarrow", "∞": "infty",
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta", "κ": "kappa",
    "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "χ": "chi",
    "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi",
    "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
"""What TeX sets in formulas alone."""
TEX = str.maketrans(
    {"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
     "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "<": r"\textless{}",
     ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
     **{sign: "$-$" if name == "-" else f"$\\{name}$" for sign, name in SIGNS.items()}}
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    bold: frozenset[tuple[int, int]] = frozenset()
    """(row, column) of the cells that are set in bold."""


def visible(text: str, kept: str = "") -> str:
    """The text with every unseen character spelled as `<U+000A>`, but for those in `kept`."""
    return "".join(f"<U+{ord(c):04X}>" if unicodedata.category(c) in UNSEEN and c not in kept else c for c in str(text))


def markdown_text(text: str) -> str:
    """One line that Markdown shows as it is, inside a table or a heading."""
    return MARKDOWN.sub(lambda found: ENTITIES.get(found[0], f"\\{found[0]}"), visible(text))


def markdown(table: Table) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    lines = [
        f"### {markdown_text(table.title)}",
        "",
        line(map(markdown_text, table.header)),
        "|---" * len(table.header) + "|",
    ]
    lines += map(line, cells_of(table, markdown_text, "**{}**"))
    notes = (BLOCK.sub(r"\1\\\2", markdown_text(note)) for note in table.notes)
    return "\n".join([*lines, "", *(f"{note}  " for note in notes), ""])


def cells_of(table: Table, escape: Callable[[str], str], bold: str) -> list[list[str]]:
    """The escaped cells of every row, the bold ones set into the pattern `bold`."""
    return [
        [bold.replace("{}", escape(cell)) if (y, x) in table.bold else escape(cell) for x, cell in enumerate(row)]
        for y, row in enumerate(table.rows)
    ]


def tex_text(text: str) -> str:
    """One line that TeX prints as it is."""
    return visible(text).translate(TEX)


def latex(table: Table) -> str:
    def line(cells: Iterable[str]) -> str:
        text = " & ".join(cells) + r" \\"
        # The end of the row above reads a star or a bracket as its own.
        return f"{{}}{text}" if text.startswith(("[", "*")) else text

    lines = [
        f"% {tex_text(table.title)}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        line(map(tex_text, table.header)),
        r"\midrule",
        *map(line, cells_of(table, tex_text, r"\textbf{{}}")),
        r"\bottomrule",
        r"\end{tabular}",
        "",
    ]
    return "\n".join(lines)
