"""The suite's samplers as a model that lm-eval can ask.

Stock `--model hf` and `--model vllm` work with the same tasks; this one adds what they do not tell or do: prompts as
the very ids of training, all end tokens of the family, n samples of a prompt in one batch, and which rows were cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from lco.errors import UserError
from lco.problems.prompts import render
from lco.problems.responses import find_stops, response_decoder
from lco.randomness import derived_seed
from lco.rollout.records import Sampler, Sampling
from lco.verifier import with_open_thought

KNOWN_VALUES = ("until", "do_sample", "temperature", "top_p", "top_k", "max_gen_toks")
"""Keys of a task's `generation_kwargs` that decide what is sampled here."""

OFF = {"repetition_penalty": 1.0, "min_p": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "num_beams": 1}
"""Values at which other keys do nothing."""


class SamplerLM(LM):
    """Answers `generate_until` requests through a Sampler.

    Args:
        ends: all end tokens of the model.
        temperature, max_new_tokens, stop: win over the task's, None where the task decides.
        thought_tokens: budget of a thought; the sampler keeps it.
        context: longest prompt + response that the model reads, None where unknown.
    """

    def __init__(
        self, sampler: Sampler, tokenizer: Any, ends: tuple[int, ...], seed: int,
        temperature: float | None = None, max_new_tokens: int | None = None, context: int | None = None,
        stop: Sequence[str] | None = None, thought_tokens: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.sampler, self.tokenizer, self.ends, self.seed = sampler, tokenizer, ends, seed
        self.temperature, self.max_new_tokens, self.context = temperature, max_new_tokens, context
        self.stop, self.thought_tokens = stop, thought_tokens
        self.forget()

    def forget(self) -> None:
        """Drops what earlier evaluations left: `truncated`, `lengths` by (task, problem), and the values `used` by task."""
        self.truncated: dict[tuple[str, int], list[bool]] = {}
        self.lengths: dict[tuple[str, int], list[int]] = {}
        self.used: dict[str, Sampling] = {}

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        return str(self.tokenizer.chat_template)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return render(self.tokenizer, chat_history)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        texts: list[str] = []
        # lm-eval repeats a request n times in a row for n samples; each run of equal requests is one prompt.
        runs = [list(group) for _, group in itertools.groupby(requests, key=id)]
        for (task, samples), group in itertools.groupby(runs, key=lambda run: (str(run[0].task_name), len(run))):
            texts += self._sample(task, samples, [run[0] for run in group])
        return texts

    def readable(
        self, task: str, samples: int, requests: Sequence[Instance]
    ) -> tuple[Sampling, list[tuple[str, tuple[int, ...]]]]:
        """A task's sampling values and its prompts as (problem, ids).

        Raises:
            UserError: the values cannot be sampled with, or a prompt leaves no room for a response.
        """
        sampling = self.sampling(dict(requests[0].args[1]), samples)
        prompts = []
        for request in requests:
            ids = tuple(self.tokenizer.encode(request.args[0], add_special_tokens=False))
            room = None if self.context is None else self.context - sampling.max_new_tokens
            if room is not None and len(ids) > room:
                raise UserError(
                    f"{task}: prompt {request.doc_id} has {len(ids)} tokens and leaves no room for "
                    f"{sampling.max_new_tokens} more in a context of {self.context}; lower --max-new-tokens"
                )
            prompts.append((str(request.doc_id), ids))
        return sampling, prompts

    def _sample(self, task: str, samples: int, requests: list[Instance]) -> list[str]:
        sampling, prompts = self.readable(task, samples, requests)
        self.used[task] = sampling
        rows = self.sampler.sample(prompts, sampling, derived_seed(self.seed, 0, f"evaluation/{task}"))
        for row in rows:
            self.truncated.setdefault((task, int(row.group)), []).append(row.finish_reason == "length")
            self.lengths.setdefault((task, int(row.group)), []).append(len(row.response_ids))
        asked = {str(request.doc_id): request.args[0] for request in requests}
        # A thought that the prompt has opened is part of what is judged.
        decode = response_decoder(self.tokenizer, sampling.stop)
        return [with_open_thought(asked[row.group], decode(row.response_ids)) for row in rows]

    def sampling(self, options: dict[str, Any], samples: int) -> Sampling:
        """The task's values under the command line's.

        Raises:
            UserError: the task sets a value that the sampler does not have, several greedy samples are asked for, or the budget
                of a thought leaves nothing for an answer.
        """
        for name, value in options.items():
            if name not in KNOWN_VALUES and value != OFF.get(name, ...):
                raise UserError(
                    f"the task sets {name} to {value!r}, which the suite's samplers do not have; take it out of the task's "
                    "generation_kwargs, or use --model hf of stock lm_eval"
                )
        temperature = float(options["temperature"]) if self.temperature is None else self.temperature
        limit = int(options["max_gen_toks"]) if self.max_new_tokens is None else self.max_new_tokens
        if samples > 1 and temperature == 0:
            raise UserError(
                f"samples is {samples} at temperature 0: all would be equal; give a temperature or 1 sample"
            )
        if self.thought_tokens and self.thought_tokens >= limit:
            raise UserError(
                f"--thought-tokens is {self.thought_tokens}, which leaves nothing of {limit} tokens for an answer; lower it, or "
                "give more --max-new-tokens"
            )
        until = options.get("until") or []
        given = ([until] if isinstance(until, str) else until) if self.stop is None else self.stop
        ids, stop = find_stops(self.tokenizer, given)
        ends = tuple(sorted({*self.ends, *ids}))
        return Sampling(
            temperature, float(options["top_p"]), int(options["top_k"]), limit, samples, ends,
            stop=stop, thought_tokens=self.thought_tokens,
        )  # fmt: skip

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        raise UserError("multiple-choice tasks need log-likelihoods; use --model hf of stock lm_eval")

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        raise UserError("perplexity tasks need log-likelihoods; use --model hf of stock lm_eval")
