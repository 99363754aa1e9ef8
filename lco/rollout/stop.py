"""Stop strings: a response ends with the token that completes one of them in its text, whatever engine drew it.

The tokenizer's own text decides. Engines may end a row earlier than the length limit for the same strings (vLLM reads them in a
text of its own, which for some tokenizers lacks the spaces); what they missed is cut here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from lco.errors import UserError
from lco.problems.responses import Decode, completes
from lco.rollout.records import OnRows, Row, Sampler, Sampling, TopTokens


@dataclass(frozen=True)
class StopSampler:
    """A sampler that keeps `Sampling.stop`.

    Attributes:
        inner: draws the rows.
        decode: ids of a response → text.
    """

    inner: Sampler
    decode: Decode

    def sample(
        self,
        prompts: Sequence[tuple[str, tuple[int, ...]]],
        sampling: Sampling,
        seed: int,
        on_rows: OnRows | None = None,
    ) -> list[Row]:
        if not sampling.stop:
            return self.inner.sample(prompts, sampling, seed, on_rows)

        def cut(rows: Sequence[Row]) -> list[Row]:
            return [cut_at_stop(row, sampling, self.decode) for row in rows]

        shown = None if on_rows is None else lambda rows: on_rows(cut(rows))
        return cut(self.inner.sample(prompts, sampling, seed, shown))

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self.inner.sync(weights)

    def close(self) -> None:
        self.inner.close()


def cut_at_stop(row: Row, sampling: Sampling, decode: Decode) -> Row:
    """The row up to the token that completes a stop string; the row itself where there is none.

    Raises:
        UserError: the engine has ended it for a stop string that its text does not have.
    """
    ids = row.response_ids
    if not any(word in decode(ids) for word in sampling.stop):
        if row.finish_reason == "stop" and ids[-1] not in sampling.stop_token_ids:
            raise UserError(
                f"the sampling engine ended a response at one of the stop strings {list(sampling.stop)}, and its text as the "
                "tokenizer reads it has none; use --rollouts transformers"
            )
        return row
    end = next((n for n in range(1, len(ids)) if completes(ids[:n], sampling.stop, decode)), len(ids))
    top = row.top and TopTokens(row.top.ids[:end], row.top.logprobs[:end])
    return replace(row, response_ids=ids[:end], finish_reason="stop", logprobs=row.logprobs[:end], top=top)
