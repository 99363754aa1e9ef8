"""A budget for the thought: one that is still open after so many tokens is closed, and the response goes on with its answer.

Any sampler draws the rows in two parts: up to the budget, and behind it those that had not ended there. Between the parts stands
the end of the thought (`\\n</think>\\n\\n`, in the model's own marks) where it was still open, and nothing where the answer had
begun. The ids that were put in are no draws of the policy: rows say where they are (`Row.put_in`), and nothing is learnt there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lco.errors import UserError
from lco.problems.responses import Decode, response_decoder
from lco.randomness import derived_seed
from lco.rollout.records import OnRows, Row, Sampler, Sampling, TopTokens
from lco.verifier import with_open_thought
from lco.verifier.find.thoughts import CLOSED, NAMES, OPEN, last_match

Prompts = Sequence[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class ThoughtSampler:
    """A sampler that keeps `Sampling.thought_tokens`.

    Attributes:
        inner: draws the parts.
        closing: ids of what closes a thought.
        decode: ids of a response → text.
        read: ids of a prompt → text, special tokens too.
    """

    inner: Sampler
    closing: tuple[int, ...]
    decode: Decode
    read: Decode

    def sample(self, prompts: Prompts, sampling: Sampling, seed: int, on_rows: OnRows | None = None) -> list[Row]:
        budget = sampling.thought_tokens
        if not 0 < budget < sampling.max_new_tokens:
            return self.inner.sample(prompts, sampling, seed, on_rows)
        begun = self.inner.sample(prompts, replace(sampling, max_new_tokens=budget, thought_tokens=0), seed)
        texts = {ids: self.read(ids) for _, ids in prompts}
        cut = [place for place, row in enumerate(begun) if row.finish_reason == "length"]
        thinks = {place: self.is_open(texts[begun[place].prompt_ids], begun[place]) for place in cut}
        rows = dict(enumerate(begun))
        # Both are asked for even where there is nothing to ask: under ZeRO-3 the ranks sample in step.
        for purpose, thinking, closing in (("closed", True, self.closing), ("answering", False, ())):
            places = [place for place in cut if thinks[place] is thinking]
            parts = [put_in(begun[place], closing) for place in places]
            left = sampling.max_new_tokens - budget - len(closing)
            rows |= dict(
                zip(places, self.go_on(parts, replace(sampling, max_new_tokens=left), seed, purpose), strict=True)
            )
        found = [rows[place] for place in range(len(begun))]
        if on_rows is not None:
            on_rows(found)
        return found

    def is_open(self, prompt: str, row: Row) -> bool:
        """Whether the row ends inside a thought."""
        return is_in_thought(with_open_thought(prompt, self.decode(row.response_ids)))

    def go_on(self, parts: Sequence[Row], sampling: Sampling, seed: int, purpose: str) -> list[Row]:
        """The rows with what the policy says behind them."""
        if sampling.max_new_tokens < 1:
            return list(parts)
        asked = [(str(i), (*row.prompt_ids, *row.response_ids)) for i, row in enumerate(parts)]
        behind = replace(sampling, samples=1, thought_tokens=0)
        answers = self.inner.sample(asked, behind, derived_seed(seed, 0, f"behind the thought/{purpose}"))
        return [joined(*pair) for pair in zip(parts, answers, strict=True)]

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self.inner.sync(weights)

    def close(self) -> None:
        self.inner.close()


def with_thought_budget(sampler: Sampler, tokenizer: Any, budget: int) -> Sampler:
    """The sampler, which keeps the budget; the same one where there is none.

    Raises:
        UserError: the model's chat template shows no thought.
    """
    if not budget:
        return sampler
    closing = closing_ids(tokenizer, budget)
    return ThoughtSampler(sampler, closing, response_decoder(tokenizer), lambda ids: str(tokenizer.decode(ids)))


def closing_ids(tokenizer: Any, budget: int) -> tuple[int, ...]:
    """The ids that close a thought.

    Raises:
        UserError: the model's chat template shows no thought.
    """
    mark = closing_mark(str(tokenizer.chat_template))
    if not mark:
        raise UserError(
            f"thought_tokens is {budget}, but the chat template of {tokenizer.name_or_path} shows no thought that could be "
            "closed; leave it out, or give a model that thinks"
        )
    ids = tuple(tokenizer.encode(f"\n{mark}\n\n", add_special_tokens=False))
    if mark not in response_decoder(tokenizer)(ids):
        raise UserError(
            f"thought_tokens is {budget}, but the tokenizer of {tokenizer.name_or_path} cannot write {mark}, so no thought can "
            "be closed; leave it out"
        )
    return ids


def is_in_thought(response: str) -> bool:
    """Whether a response ends inside a thought that it has opened.

    >>> is_in_thought("<think>Let me see"), is_in_thought("<think>Let me see</think> 4"), is_in_thought("4")
    (True, False, False)
    """
    closed = last_match(CLOSED, response)
    return OPEN.search(response, closed.end() if closed else 0) is not None


CLOSING = {
    r"<\|START_THINKING\|>": "<|END_THINKING|>",
    r"<\|begin_of_thought\|>": "<|end_of_thought|>",
    r"\[THINK\]": "[/THINK]",
    r"◁think▷": "◁/think▷",
    r"<\|(think|thinking)\|>": r"<|/\1|>",
    rf"<\s{{0,3}}({NAMES})(?:\s[^<>]{{0,80}})?>": r"</\1>",
}
"""(what opens a thought, what closes it); marks that are made of several tokens with a role between them are not among them."""


def closing_mark(text: str) -> str:
    """What closes the thought that a text opens last, "" where it opens none, or one of a form that is not known.

    >>> closing_mark("Question?\\n<think>\\n"), closing_mark("[THINK]"), closing_mark("no thought")
    ('</think>', '[/THINK]', '')
    """
    opened = last_match(OPEN, text)
    known = ((re.fullmatch(mark, opened[0], re.I), closing) for mark, closing in CLOSING.items()) if opened else ()
    return next((found.expand(closing) for found, closing in known if found), "")


def put_in(row: Row, closing: tuple[int, ...]) -> Row:
    """The row with some ids behind it that nobody drew."""
    if not closing:
        return row
    end, count = len(row.response_ids), len(closing)
    top = row.top and TopTokens(
        *(torch.cat([t, t.new_zeros(count, t.shape[1])]) for t in (row.top.ids, row.top.logprobs))
    )
    return replace(
        row,
        response_ids=(*row.response_ids, *closing),
        logprobs=(*row.logprobs, *[0.0] * count),
        top=top,
        put_in=(end, end + count),
    )


def joined(first: Row, second: Row) -> Row:
    """One row of its two parts."""
    top = first.top
    if first.top is not None and second.top is not None:
        pairs = (first.top.ids, second.top.ids), (first.top.logprobs, second.top.logprobs)
        top = TopTokens(*(torch.cat(pair) for pair in pairs))
    return replace(
        first,
        response_ids=(*first.response_ids, *second.response_ids),
        finish_reason=second.finish_reason,
        logprobs=(*first.logprobs, *second.logprobs),
        top=top,
    )
