"""Sampled ids become text: without the tokenizer's special tokens, but with the marks of thinking among them, and without a
stop string and what follows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lco.errors import UserError
from lco.verifier.find.thoughts import is_thought_mark

Decode = Callable[[Sequence[int]], str]


def response_decoder(tokenizer: Any, stop: Sequence[str] = ()) -> Decode:
    """ids → the text that is judged, up to the first of the stop strings, as lm-eval cuts it.

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
        return cut(text + str(tokenizer.decode(ids[begin:], skip_special_tokens=True)), stop)

    return decode


def cut(text: str, stop: Sequence[str]) -> str:
    """
    >>> cut("4 + 4 = 8\\n\\nQuestion: 5", ["Question:", "\\n\\n"])
    '4 + 4 = 8'
    """
    return text[: min((at for at in map(text.find, stop) if at >= 0), default=None)]


def completes(ids: Sequence[int], stop: Sequence[str], decode: Decode) -> bool:
    """Whether a stop string stands in the text of ids whose earlier ones held none.

    A character is at most four tokens long, so that the last few decide; one more, because some tokenizers drop the space before
    a first token.
    """
    text = decode(ids[-4 * max(map(len, stop)) - 1 :])
    return any(word in text for word in stop)


def find_stops(tokenizer: Any, given: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Stop strings as (ids of those that are one of the tokenizer's special tokens, which no text shows; the others).

    Raises:
        UserError: one is empty, which stands in every text.
    """
    if not all(given):
        raise UserError("a stop string is empty, and would end every response at once; leave it out")
    special = {str(t): i for i, t in getattr(tokenizer, "added_tokens_decoder", {}).items() if t.special}
    ids = tuple(sorted({special[word] for word in given if word in special}))
    return ids, tuple(dict.fromkeys(word for word in given if word not in special))
