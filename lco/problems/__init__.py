"""Problem records and where they come from: hub ids, local JSON Lines, the arithmetic generator; prompts."""

from lco.problems.records import Problem

__all__ = ["Problem"]
