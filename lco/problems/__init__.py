"""Problem records and where they come from: hub ids, local JSON Lines, the arithmetic generator; prompts."""

from lco.problems.prompts import STYLES, PromptStyle, encode, style_named
from lco.problems.records import Problem
from lco.problems.sets import SETS, load_problems

__all__ = ["SETS", "STYLES", "Problem", "PromptStyle", "encode", "load_problems", "style_named"]
