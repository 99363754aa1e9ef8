"""Sampling with vLLM, in this process or as a process of its own, with the trainer's weights after every update.

What cost others weeks, and what is done about it here:

- vLLM fills unset sampling values from generation_config.json: `generation_config="vllm"` and every value explicit. The
  checkpoint's own end token is ignored too: rows end with `Sampling.stop_token_ids` and with nothing else.
- Log-probabilities are those of the distribution drawn from (`processed_logprobs`), so the sampling temperature is in.
- A reload that lacks `lm_head.weight` keeps the old head of a tied model without a word: `sync` refuses such weights.
- Cached prefixes were computed with the old weights: the prefix cache is emptied at every sync, and before every call,
  so that a call's numbers do not depend on the calls before it.
- An iterator of tensors cannot cross to another process: there, weights travel as safetensors through shared memory.
- Seeds: per-request seeds crash vLLM's CPU build on chunked prefills and make repeated prompts identical. Instead the
  global torch generator is seeded around each call and restored after it (the suite's one exception to the rule that
  every draw has a generator of its own). A process of its own starts on the first request while others are still on
  their way, which would change its batches from call to call: its scheduler is paused until all of them are there.

What vLLM needs from its surroundings (environment variables, a patched `torch.set_num_threads`, the random state, its
process group) is set in `surroundings` while the engine starts, and put back after it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lco.errors import UserError
from lco.rollout.memory import GIB, check_memory, folder_for
from lco.rollout.records import FinishReason, OnRows, Row, Sampling


class VLLMSampler:
    """Owns a vLLM engine. Use it from one thread; one in-process engine at a time.

    Args:
        model: folder or hub id; read once, later weights come through `sync`.
        dtype: "float32" or "bfloat16".
        cache_gib: memory of the key-value cache; a VLLM_CPU_KVCACHE_SPACE of the user's (whole GiB only) is overruled.
        max_model_len: longest prompt + response; None takes the model's.
        separate_process: run the engine as a process of its own (needed beside several trainer ranks, where vLLM's
            process groups clash with the trainer's). It ends with this process, also when that is killed.

    Raises:
        UserError: the machine has not enough free memory; said before anything is loaded.
    """

    def __init__(
        self, model: str, dtype: str, cache_gib: float, max_model_len: int | None, separate_process: bool
    ) -> None:
        check_memory(model, dtype, cache_gib, separate_process)
        self.separate = separate_process
        refusals = (ValueError, RuntimeError) if separate_process else (ValueError,)
        arguments: dict[str, Any] = {"dtype": dtype}
        if max_model_len is not None:
            arguments["max_model_len"] = max_model_len
        with surroundings(separate_process):
            from vllm import LLM

            try:
                self.engine: Any = LLM(
                    model=model, enforce_eager=True, generation_config="vllm", trust_remote_code=False,
                    logprobs_mode="processed_logprobs", kv_cache_memory_bytes=int(cache_gib * GIB), seed=0,
                    disable_log_stats=True, use_tqdm_on_load=False,
                    worker_extension_cls="lco.rollout.vllm.WorkerExtension", **arguments,
                )  # fmt: skip
            except refusals as error:
                # Among them: a cache too small for one row of max_model_len tokens. A process of its own has printed
                # its reason above and reports only that it failed.
                if not separate_process:
                    forget_process_group()
                reason = " ".join(str(error).split())
                raise UserError(f"vLLM refuses {model}: {reason} (the cache is set by --vllm-cache-gib)") from error

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
        self.engine.reset_prefix_cache()
        outputs = self._generate(requests, parameters, seed)
        ends = set(sampling.stop_token_ids)
        rows = [
            row(group, ids, completion, ends)
            for (group, ids), output in zip(prompts, outputs, strict=True)
            for completion in sorted(output.outputs, key=lambda c: c.index) * copies
        ]
        if on_rows is not None:
            on_rows(rows)  # vLLM keeps all requests in flight at once: there is one part
        return rows

    def _generate(self, requests: list[Any], parameters: Any, seed: int) -> list[Any]:
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
        """Takes over all weights and forgets cached prefixes.

        Raises:
            UserError: `lm_head.weight` is missing: a tied model's head would silently stay the old one.
        """
        tensors = {name: tensor.detach() for name, tensor in weights}
        if "lm_head.weight" not in tensors:
            raise UserError("weights for vLLM lack lm_head.weight; pass it also where it is tied to the embedding")
        self.reload(tensors)

    def reload(self, tensors: dict[str, Tensor]) -> None:
        """Hands tensors to the engine as they are, complete or not."""
        if self.separate:
            self._reload_through_memory(tensors)
        else:
            self.engine.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(tensors.items())})
        self.engine.reset_prefix_cache()

    def _reload_through_memory(self, tensors: dict[str, Tensor]) -> None:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        folder = Path(tempfile.mkdtemp(prefix="lco-weights-", dir=folder_for(size)))
        try:
            # Tied tensors share storage, which safetensors refuses: every name gets its own copy.
            copies = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
            save_file(copies, folder / "weights.partial")
            (folder / "weights.partial").rename(folder / "model.safetensors")
            self.engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Ends the engine and, where it has one, its process. A second call does nothing."""
        if self.engine is None:
            return
        self.engine.llm_engine.engine_core.shutdown()
        self.engine = None
        if not self.separate:
            forget_process_group()


def forget_process_group() -> None:
    """Ends the process group that an in-process engine made, so that another engine, or a trainer, can make one."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


class WorkerExtension:
    """What vLLM's worker learns from us, called by name through `collective_rpc`."""

    def seed(self, seed: int) -> None:
        """Seeds the global generator that this worker draws from; nothing else in its process draws."""
        torch.manual_seed(seed)


def sampling_parameters(sampling: Sampling, samples: int) -> Any:
    """vLLM's parameters with every value that shapes a draw written out."""
    from vllm import SamplingParams

    return SamplingParams(
        n=samples, temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k, min_p=0.0,
        repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0, max_tokens=sampling.max_new_tokens,
        min_tokens=0, stop=None, stop_token_ids=list(sampling.stop_token_ids), ignore_eos=True, logprobs=0,
        detokenize=False, seed=None,
    )  # fmt: skip


def row(group: str, prompt: tuple[int, ...], completion: Any, ends: set[int]) -> Row:
    ids = tuple(completion.token_ids)
    logprobs = tuple(float(entry[token].logprob) for token, entry in zip(ids, completion.logprobs, strict=True))
    finish: FinishReason = "stop" if ids and ids[-1] in ends else "length"
    return Row(group, prompt, ids, finish, logprobs)


RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Names the launcher gives a trainer rank; vLLM's processes are none of its ranks."""


@contextmanager
def surroundings(separate_process: bool) -> Iterator[None]:
    """What vLLM reads and changes while it is imported and started. Everything but VLLM_… variables is put back."""
    variables, set_num_threads = dict(os.environ), torch.set_num_threads
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if separate_process else "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # it would take the place of kv_cache_memory_bytes
    try:
        with torch.random.fork_rng(), child_processes() if separate_process else nullcontext():
            yield
    finally:
        torch.set_num_threads = set_num_threads
        for name in [name for name in os.environ if not name.startswith("VLLM_") and name not in variables]:
            del os.environ[name]
        os.environ.update({name: value for name, value in variables.items() if not name.startswith("VLLM_")})


CHILD = """#!/bin/sh
exec {python} -I -S -c '
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
os.execv(sys.argv[1], sys.argv[1:])
' {python} "$@"
"""


@contextmanager
def child_processes() -> Iterator[None]:
    """Processes started inside end with this one, ignore Ctrl-C, and do not take themselves for a trainer's rank.

    A killed trainer runs no clean-up, and an engine that is still loading would wait five minutes for it. So the engine
    starts through a script that asks the kernel to end it when its parent ends (this outlives exec, but not a fork);
    vLLM's worker in turn watches the engine. Ctrl-C at a terminal goes to all processes, and is the trainer's affair.
    """
    for name in RANK_VARIABLES:
        os.environ.pop(name, None)
    python, mask = spawn.get_executable(), signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with tempfile.TemporaryDirectory(prefix="lco-vllm-") as folder:
            script = Path(folder) / "python"
            script.write_text(CHILD.format(python=shlex.quote(sys.executable)))
            script.chmod(0o700)
            spawn.set_executable(str(script))
            yield
    finally:
        spawn.set_executable(python)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
