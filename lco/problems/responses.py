"""Sampled ids become text: without the tokenizer's special tokens, but with the marks of thinking among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lco.verifier.find.thoughts import is_thought_mark


def response_decoder(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """ids → the text that is judged.

    Some tokenizers have the marks of thinking as special tokens (`[THINK]`, `<|START_THINKING|>`, `<|channel|>`), and
    `decode(…, skip_special_tokens=True)` would take them out with the end of the turn: a box in an unfinished thought would
    then look like an answer.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    marks = {i: str(token) for i, token in added.items() if token.special and is_thought_mark(str(token))}

    def decode(ids: Sequence[int]) -> str:
        text, begin = "", 0
        for at, i in enumerate(ids):
            if i in marks:
                text += tokenizer.decode(ids[begin:at], skip_special_tokens=True) + marks[i]
                begin = at + 1
        return text + str(tokenizer.decode(ids[begin:], skip_special_tokens=True))

    return decode
