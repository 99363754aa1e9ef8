"""Sampling with vLLM, in this process or as a process of its own, with the trainer's weights after every update.

What cost others weeks, and what is done about it here:

- vLLM fills unset sampling values from generation_config.json: `generation_config="vllm"` and every value explicit. The
  checkpoint's own end token is ignored too: rows end with `Sampling.stop_token_ids` or `Sampling.stop` and with nothing else.
- Log-probabilities are those of the distribution drawn from (`processed_logprobs`), so the sampling temperature is in.
- A reload that lacks `lm_head.weight` keeps the old head of a tied model without a word: `sync` refuses such weights.
- Cached prefixes were computed with the old weights: the prefix cache is emptied at every sync, and before every call,
  so that a call's numbers do not depend on the calls before it.
- vLLM's experts on a CPU are packed once, at the start; after a reload they would be read as if they were packed: they are
  told to pack again.
- A process of its own can end at any moment, and vLLM's client then waits for ever: every call is watched.
- Seeds: per-request seeds crash vLLM's CPU build on chunked prefills and make repeated prompts identical. Instead the
  global torch generator is seeded around each call and restored after it (the suite's one exception to the rule that
  every draw has a generator of its own). A process of its own starts on the first request while others are still on
  their way, which would change its batches from call to call: its scheduler is paused until all of them are there.

What vLLM needs from its surroundings (environment variables, a patched `torch.set_num_threads`, the random state, its
process group) is set in `vllm_process.surroundings` while the engine starts, and put back after it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from lco.errors import UserError
from lco.models.place import located
from lco.rollout.memory import GIB, SHARED_MEMORY, check_memory, folder_for, weight_bytes
from lco.rollout.records import FinishReason, OnRows, Row, Sampling, TopTokens
from lco.rollout.transfer import write_buckets
from lco.rollout.vllm_process import call_watched, surroundings, unlink_shared_memory
from lco.scratch import scratch_folder

T = TypeVar("T")

HEADS = {"lm_head.weight", "embed_out.weight", "output.weight", "head.weight"}
"""What checkpoints call the head."""


class VLLMSampler:
    """Owns a vLLM engine. Use it from one thread; one in-process engine at a time.

    Args:
        model: folder or hub id; read once, later weights come through `sync`.
        dtype: "float32" or "bfloat16".
        cache_gib: memory of the key-value cache; a VLLM_CPU_KVCACHE_SPACE of the user's (whole GiB only) is overruled.
        max_model_len: longest prompt + response; None takes the model's.
        separate_process: run the engine as a process of its own (needed beside several trainer ranks, where vLLM's
            process groups clash with the trainer's). It ends with this process, also when that is killed.
        top: the most likeliest tokens that a `Sampling` may ask to have recorded.

    Raises:
        UserError: the machine has not enough free memory; said before anything is loaded.
    """

    def __init__(
        self,
        model: str,
        dtype: str,
        cache_gib: float,
        max_model_len: int | None,
        separate_process: bool,
        top: int = 0,
    ) -> None:
        check_memory(model, dtype, cache_gib, separate_process)
        self.separate = separate_process
        self.bytes = weight_bytes(model, dtype)
        self.engine: Any = None
        arguments: dict[str, Any] = {
            "dtype": dtype,
            "kv_cache_memory_bytes": int(cache_gib * GIB),
            "max_logprobs": top,
        }
        if max_model_len is not None:
            arguments["max_model_len"] = max_model_len
        with ExitStack() as resources:
            folder = resources.enter_context(scratch_folder()) if separate_process else None
            with surroundings(folder):
                self.engine = start(model, folder, arguments)
            self.resources = resources.pop_all()
        manager = self.engine.llm_engine.engine_core.resources.engine_manager if separate_process else None
        self.processes = list(manager.processes) if manager else []
        unlink_shared_memory([p.pid for p in self.processes], SHARED_MEMORY)

    def _watched(self, doing: str, call: Callable[[], T]) -> T:
        return call_watched(call, self.processes, doing) if self.separate else call()

    def sample(
        self,
        prompts: Sequence[tuple[str, tuple[int, ...]]],
        sampling: Sampling,
        seed: int,
        on_rows: OnRows | None = None,
    ) -> list[Row]:
        # Greedy rows of one prompt are the same row, and vLLM refuses to make it more than once.
        copies = 1 if sampling.temperature else sampling.samples
        parameters = sampling_parameters(sampling, sampling.samples // copies)
        requests = [{"prompt_token_ids": list(ids)} for _, ids in prompts]
        outputs = self._watched("sampling", lambda: self._generate(requests, parameters, seed))
        rows = [
            row(group, ids, completion, sampling.top)
            for (group, ids), output in zip(prompts, outputs, strict=True)
            for completion in sorted(output.outputs, key=lambda c: c.index) * copies
        ]
        if on_rows is not None:
            on_rows(rows)  # vLLM keeps all requests in flight at once: there is one part
        return rows

    def _generate(self, requests: list[Any], parameters: Any, seed: int) -> list[Any]:
        self.engine.reset_prefix_cache()
        if not self.separate:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                return self.engine.generate(requests, parameters, use_tqdm=False)
        self.engine.sleep(level=0, mode="keep")
        self.engine.enqueue(requests, parameters, use_tqdm=False)
        self.engine.collective_rpc("seed", args=(seed,))
        self.engine.wake_up(tags=["scheduling"])
        return self.engine.wait_for_completion(use_tqdm=False)

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Takes over all weights, by the names that the model's files have, and forgets cached prefixes.

        Raises:
            UserError: the head is missing: a tied model's would silently stay the old one. Or vLLM refuses the weights.
        """
        self._hand_over(weights, refuse_headless)

    def reload(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Hands weights to the engine as they are, complete or not."""
        self._hand_over(weights, lambda names: None)

    def _hand_over(self, weights: Iterable[tuple[str, Tensor]], check: Callable[[Collection[str]], None]) -> None:
        with ExitStack() as resources:
            if self.separate:
                folder = resources.enter_context(scratch_folder(folder_for(self.bytes)))
                check(write_buckets(weights, folder))
                source: dict[str, Any] = {"weights_path": str(folder)}
            else:
                held = {name: tensor.detach() for name, tensor in weights}
                check(held)
                source = {"weights_iterator": iter(held.items())}
            self._watched("the synchronisation of weights", lambda: self._take(source))

    def _take(self, source: dict[str, Any]) -> None:
        self.engine.collective_rpc("forget_packed_experts")
        self.engine.collective_rpc("reload_weights", kwargs=source)
        self.engine.reset_prefix_cache()

    def close(self) -> None:
        """Ends the engine and, where it has one, its process. A second call does nothing."""
        if self.engine is None:
            return
        self.engine.llm_engine.engine_core.shutdown()
        self.engine = None
        self.resources.close()
        if not self.separate:
            forget_process_group()


def refuse_headless(names: Collection[str]) -> None:
    """
    Raises:
        UserError: none of the names is a head's.
    """
    if HEADS.isdisjoint(names):
        raise UserError("weights for vLLM lack lm_head.weight; pass it also where it is tied to the embedding")


def start(model: str, folder: Path | None, arguments: Mapping[str, Any]) -> Any:
    """vLLM's engine, in this process, or with its sockets in `folder` in one of its own.

    Raises:
        UserError: vLLM refuses the model, or a cache too small for one row of max_model_len tokens.
    """
    from vllm import LLM  # vLLM, here and below, once an engine is made

    # A process of its own has printed its reason and reports only that it failed.
    refusals = (ValueError,) if folder is None else (ValueError, RuntimeError)
    try:
        return LLM(
            model=located(model)[0], enforce_eager=True, generation_config="vllm", trust_remote_code=False, seed=0,
            logprobs_mode="processed_logprobs", disable_log_stats=True, use_tqdm_on_load=False,
            worker_extension_cls="lco.rollout.vllm.WorkerExtension", **arguments,
        )  # fmt: skip
    except refusals as error:
        if folder is None:
            forget_process_group()
        reason = " ".join(str(error).split())
        raise UserError(f"vLLM refuses {model}: {reason} (the cache is set by --vllm-cache-gib)") from error


def forget_process_group() -> None:
    """Ends the process group that an in-process engine made, so that another engine, or a trainer, can make one."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


class WorkerExtension:
    """What vLLM's worker learns from us, called by name through `collective_rpc`."""

    def seed(self, seed: int) -> None:
        """Seeds the global generator that this worker draws from; nothing else in its process draws."""
        torch.manual_seed(seed)

    def forget_packed_experts(self) -> None:
        """Has the next reload pack the experts' weights for the CPU's kernels, as the first load did. On CUDA, where
        packing is part of every load and kernels keep addresses, nothing is to be done."""
        if torch.cuda.is_available():
            return
        worker: Any = self
        for module in worker.model_runner.get_model().modules():
            if getattr(getattr(module, "quant_method", None), "moe_kernel", None) is not None:
                module.quant_method.moe_kernel = None


def sampling_parameters(sampling: Sampling, samples: int) -> Any:
    from vllm import SamplingParams

    return SamplingParams(**sampling_values(sampling, samples, seed=None))


def sampling_values(sampling: Sampling, samples: int, seed: int | None) -> dict[str, Any]:
    """Sampling values as vLLM names them, every one that shapes a draw written out; also what a server is sent."""
    return {
        "n": samples, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k, "min_p": 0.0,
        "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "max_tokens": sampling.max_new_tokens, "min_tokens": 0, "stop": list(sampling.stop) or None,
        "stop_token_ids": list(sampling.stop_token_ids), "ignore_eos": True, "logprobs": sampling.top,
        "detokenize": bool(sampling.stop), "seed": seed,
    }  # fmt: skip


def row(group: str, prompt: tuple[int, ...], completion: Any, top: int) -> Row:
    ids = tuple(completion.token_ids)
    logprobs = tuple(float(entry[token].logprob) for token, entry in zip(ids, completion.logprobs, strict=True))
    finish: FinishReason = "stop" if completion.finish_reason == "stop" else "length"
    return Row(group, prompt, ids, finish, logprobs, top_tokens(completion.logprobs, top) if top else None)


def top_tokens(steps: Sequence[Mapping[int, Any]], top: int) -> TopTokens:
    """vLLM lists the sampled token first, then the likeliest ones; where it is among them it stands there once."""
    found = []
    for entry in steps:
        listed = [(token, known.logprob) for token, known in entry.items()]
        found.append(sorted(listed[len(listed) - top :], key=lambda pair: -pair[1]))
    ids, values = ([[pair[part] for pair in step] for step in found] for part in (0, 1))
    return TopTokens(
        torch.tensor(ids, dtype=torch.int32).view(-1, top), torch.tensor(values, dtype=torch.float32).view(-1, top)
    )
