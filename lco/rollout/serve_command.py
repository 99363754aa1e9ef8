"""`lco serve`: `vllm serve` with the flags that a run with --rollouts vllm-server needs."""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lco.addresses import TOKEN
from lco.errors import UserError

READS = 4096
"""Tokens of prompt and response together that a server takes unless it is told otherwise, or its model reads fewer."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Starts a vLLM server that trainers sample with (lco train --rollouts vllm-server --vllm-url http://HOST:PORT). It runs "
        f"until it is ended. Where it is to be reached from other machines, it wants a token: the variable {TOKEN}, which the "
        "trainer is given too."
    )
    parser.epilog = "example: lco serve Qwen/Qwen2.5-0.5B-Instruct --port 8000 --vllm-flags='--tensor-parallel-size 2'"
    parser.add_argument("model", help="local folder or hub id, the one that is trained")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="the trainer's --dtype")
    parser.add_argument(
        "--max-model-len",
        type=int,
        help=f"prompt and response together (default: what the model reads, at most {READS})",
    )
    parser.add_argument("--vllm-cache-gib", type=float, default=1.0, help="memory for the key-value cache (default: 1)")
    parser.add_argument("--vllm-flags", default="", metavar="FLAGS", help="further flags of `vllm serve`, in one word")


@dataclass(frozen=True)
class Served:
    """What a server reads at once, and whether it computes on a CPU."""

    tokens: int
    cpu: bool


def run(arguments: argparse.Namespace) -> int:
    """Becomes the server; does not return."""
    check_arguments(arguments, os.environ)
    from lco import models  # torch and transformers, only once the flags stand

    cpu = models.resolve_device("auto") == "cpu"
    context = models.context_length(models.load_config(arguments.model))
    served = Served(served_tokens(arguments.max_model_len, context, arguments.model), cpu)
    command = serve_command(arguments, served, bool(os.environ.get(TOKEN)))
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *command], environment(os.environ))


def check_arguments(arguments: argparse.Namespace, variables: Mapping[str, str]) -> None:
    """
    Raises:
        UserError: vLLM is not installed, cannot read the model, or would be open to other machines without a token.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UserError("vllm is not installed; install it as docs/install.md says")
    if arguments.model.endswith(".gguf"):
        raise UserError(
            f"vLLM does not read {arguments.model}; serve the `checkpoints/final` of a run that was trained from it, or sample "
            "with --rollouts vllm"
        )
    if not is_this_machine(arguments.host) and not variables.get(TOKEN):
        raise UserError(
            f"--host {arguments.host} opens the server to other machines, and whoever reaches it can call functions in it; set "
            f"{TOKEN} to a word that only you know, for the trainer too"
        )


def is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def served_tokens(asked: int | None, context: int | None, model: str) -> int:
    """
    Raises:
        UserError: more than the model reads are asked for.
    """
    if asked is not None and context is not None and asked > context:
        raise UserError(f"--max-model-len is {asked}, but {model} reads at most {context} tokens; give less")
    return asked if asked is not None else min(READS, context or READS)


def serve_command(arguments: argparse.Namespace, served: Served, guarded: bool) -> Sequence[str]:
    """What Python is given to be `vllm serve`. A prefill that is split crashes a request with a seed on vLLM's CPU build, so
    there a step takes whole prompts alone."""
    from lco.models.place import located

    whole = ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(max(served.tokens, READS))]
    return [
        *("-m", "vllm.entrypoints.cli.main", "serve", located(arguments.model)[0]),
        *("--host", arguments.host, "--port", str(arguments.port), "--dtype", arguments.dtype),
        *("--max-model-len", str(served.tokens)),
        *("--kv-cache-memory-bytes", str(int(arguments.vllm_cache_gib * 2**30))),
        *("--enforce-eager", "--generation-config", "vllm", "--logprobs-mode", "processed_logprobs"),
        *("--worker-extension-cls", "lco.rollout.vllm.WorkerExtension", "--enable-scale-out"),
        *("--disable-uvicorn-access-log", "--uvicorn-log-level", "warning", "--seed", "0"),
        *(("--middleware", "lco.rollout.guard.RequireToken") if guarded else ()),
        *(whole if served.cpu else ()),
        *shlex.split(arguments.vllm_flags),
    ]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The server's: development routes on, nothing sent home, and only what goes wrong said."""
    kept = {
        name: value for name, value in variables.items() if name != "VLLM_CPU_KVCACHE_SPACE"
    }  # it would overrule a flag
    return {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1", **kept, "VLLM_SERVER_DEV_MODE": "1"}
