"""Sampling with vLLM, in this process or as a process of its own, with the trainer's weights after every update.

What cost others weeks, and what is done about it here:

- vLLM fills unset sampling values from generation_config.json: `generation_config="vllm"` and every value explicit.
- Log-probabilities are those at the sampling temperature (`processed_logprobs`), the trainer's definition of the policy.
- A reload that lacks `lm_head.weight` keeps the old head of a tied model without a word: `sync` refuses such weights.
- Cached prefixes were computed with the old weights: the cache is reset at every sync.
- An iterator of tensors cannot cross to another process: there, weights travel as safetensors through shared memory.
- Seeds: per-request seeds crash vLLM's CPU build on chunked prefills and make repeated prompts identical. In process the
  global torch generator is seeded around the call and restored after it (the suite's one exception to the rule that
  every draw has a generator of its own); in a process of its own the worker's global generator is seeded the same way.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import save_file
from torch import Tensor

from lco.errors import UserError
from lco.rollout.records import FinishReason, Row, Sampling

GIB = 2**30
SHARED_MEMORY = Path("/dev/shm")


class VLLMSampler:
    """Owns a vLLM engine.

    Args:
        model: folder or hub id; read once, later weights come through `sync`.
        cache_gib: memory of the key-value cache.
        max_model_len: longest prompt + response; None takes the model's.
        separate_process: run the engine as a process of its own (needed beside several trainer ranks, where vLLM's
            process groups would clash with the trainer's).

    Raises:
        UserError: the machine has not enough free memory; said before anything is loaded.
    """

    def __init__(
        self, model: str, dtype: str, cache_gib: float, max_model_len: int | None, separate_process: bool
    ) -> None:
        check_memory(model, cache_gib)
        self.separate = separate_process
        prepare_environment(cache_gib, separate_process)
        from vllm import LLM

        arguments: dict[str, Any] = {} if max_model_len is None else {"max_model_len": max_model_len}
        if torch.cuda.is_available():
            arguments["kv_cache_memory_bytes"] = int(cache_gib * GIB)
        self.engine: Any = LLM(
            model=model, dtype=dtype, enforce_eager=True, generation_config="vllm", logprobs_mode="processed_logprobs",
            trust_remote_code=False, seed=0, disable_log_stats=True, **arguments,
        )  # fmt: skip

    def sample(self, prompts: Sequence[tuple[str, tuple[int, ...]]], sampling: Sampling, seed: int) -> list[Row]:
        from vllm import SamplingParams

        parameters = SamplingParams(
            n=sampling.samples, temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k, min_p=0.0,
            repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0, max_tokens=sampling.max_new_tokens,
            min_tokens=0, stop=None, stop_token_ids=list(sampling.stop_token_ids), ignore_eos=True, logprobs=0,
            detokenize=False, seed=None,
        )  # fmt: skip
        requests = [{"prompt_token_ids": list(ids)} for _, ids in prompts]
        state = torch.get_rng_state()
        self._seed(seed)
        try:
            outputs = self.engine.generate(requests, parameters, use_tqdm=False)
        finally:
            torch.set_rng_state(state)
        ends = set(sampling.stop_token_ids)
        return [
            row(group, ids, completion, ends)
            for (group, ids), output in zip(prompts, outputs, strict=True)
            for completion in sorted(output.outputs, key=lambda c: c.index)
        ]

    def _seed(self, seed: int) -> None:
        if self.separate:
            self.engine.collective_rpc(seed_worker, args=(seed % 2**63,))
        else:
            torch.manual_seed(seed % 2**63)

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Takes over all weights and forgets cached prefixes.

        Raises:
            UserError: `lm_head.weight` is missing: a tied model's head would silently stay the old one.
        """
        tensors = {name: tensor.detach() for name, tensor in weights}
        if "lm_head.weight" not in tensors:
            raise UserError("weights for vLLM lack lm_head.weight; pass it also where it is tied to the embedding")
        if self.separate:
            self._sync_through_memory(tensors)
        else:
            self.engine.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(tensors.items())})
        self.engine.reset_prefix_cache()

    def _sync_through_memory(self, tensors: dict[str, Tensor]) -> None:
        where = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        folder = Path(tempfile.mkdtemp(prefix="lco-weights-", dir=where))
        try:
            # Tied tensors share storage, which safetensors refuses: every name gets its own copy.
            save_file(
                {name: tensor.cpu().clone().contiguous() for name, tensor in tensors.items()},
                folder / "model.safetensors",
            )
            self.engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Ends the engine and, where it has one, its process."""
        core = getattr(getattr(self.engine, "llm_engine", None), "engine_core", None)
        if core is not None:
            core.shutdown()
        self.engine = None


def seed_worker(worker: Any, seed: int) -> None:
    """Runs in the engine's process: seeds the generator that its sampler draws from."""
    torch.manual_seed(seed)


def row(group: str, prompt: tuple[int, ...], completion: Any, ends: set[int]) -> Row:
    ids = tuple(completion.token_ids)
    logprobs = tuple(float(entry[token].logprob) for token, entry in zip(ids, completion.logprobs, strict=True))
    finish: FinishReason = "stop" if ids and ids[-1] in ends else "length"
    return Row(group, prompt, ids, finish, logprobs)


def prepare_environment(cache_gib: float, separate_process: bool) -> None:
    """Variables that vLLM reads when it is imported or starts; those that the user set stay."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, round(cache_gib))))
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if separate_process else "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # collective_rpc carries one small function of this module to the engine's process, both of them ours.
    os.environ.setdefault("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")


def check_memory(model: str, cache_gib: float) -> None:
    """Compares free memory with weights + cache before the engine is built (on CPU; CUDA reports its own).

    Raises:
        UserError: it does not fit.
    """
    if torch.cuda.is_available():
        return
    weights = sum(file.stat().st_size for file in Path(model).glob("*.safetensors")) if Path(model).is_dir() else 0
    free, needed = psutil.virtual_memory().available, weights + cache_gib * GIB
    if needed > free:
        raise UserError(
            f"vLLM needs {needed / GIB:.1f} GiB (weights {weights / GIB:.1f}, cache {cache_gib:g}) and {free / GIB:.1f} GiB "
            "are free; lower --vllm-cache-gib, use a smaller model, or --rollouts transformers"
        )
