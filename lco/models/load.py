"""Configurations, tokenizers and weights, each loaded whole or refused in one sentence.

transformers is imported where it is asked, seconds that a wrong device or folder does not cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lco.errors import UserError
from lco.models.fit import check_fit
from lco.models.place import check_weights, incomplete, lacks, located, some

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_config(model: str) -> Any:
    """The model's configuration.

    Raises:
        UserError: there is none, or its weights are quantised, so that no optimizer could move them.
    """
    from transformers import AutoConfig

    config = _load(AutoConfig, model)
    quantised = getattr(config, "quantization_config", None)
    if quantised and not model.endswith(".gguf"):
        method = quantised.get("quant_method", "?") if isinstance(quantised, dict) else quantised.quant_method
        raise UserError(
            f"the weights of {model} are quantised ({getattr(method, 'value', method)}), which can be neither trained nor "
            "synchronised; give the model that it was made from"
        )
    return config


def load_tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, model)


def load_model(model: str, dtype: str, device: str) -> nn.Module:
    """The causal language model in evaluation mode, on `device`, every parameter trainable.

    Raises:
        UserError: its files lack weights, hold others, or are damaged; or its class is none that the suite computes
            rightly.
    """
    from transformers import AutoModelForCausalLM

    load_config(model)
    check_weights(located(model)[0])
    network, found = _load(
        AutoModelForCausalLM, model, dtype=DTYPES[dtype], use_safetensors=True, output_loading_info=True,
        ignore_mismatched_sizes=True,
    )  # fmt: skip
    if getattr(network, "_hf_peft_config_loaded", False):
        raise UserError(f"{model} comes with an adapter, and whole models alone are loaded here; give the merged model")
    check_whole(model, found)
    if model.endswith(".gguf"):
        # De-quantised on load; without these marks it saves as an ordinary model.
        del network.hf_quantizer, network.config.quantization_config
        network.is_quantized = False
    check_tied(model, network)
    network = network.to(device).eval()
    check_finite(model, network)
    check_fit(network, model)
    return network


def check_whole(model: str, found: dict[str, Any]) -> None:
    """Refuses a model whose files and class hold different weights; transformers fills the gaps with random numbers.

    Args:
        found: what `from_pretrained` reports: missing_keys, unexpected_keys, mismatched_keys (name, there, wanted). A
            tied head, rotary buffers, and what a class knows to leave out are in none of them.

    Raises:
        UserError: names the weights.
    """
    faults = []
    if found["missing_keys"]:
        faults.append(lacks(found["missing_keys"]))
    if found["mismatched_keys"]:
        shapes = [f"{name} ({list(there)}, not {list(wanted)})" for name, there, wanted in found["mismatched_keys"]]
        faults.append(f"has weights of another shape: {some(shapes)}")
    if found["unexpected_keys"]:
        faults.append(f"holds weights that its class does not read: {some(found['unexpected_keys'])}")
    if faults:
        raise incomplete(model, faults)


def check_tied(model: str, network: Any) -> None:
    """
    Raises:
        UserError: the configuration ties the head to the embedding, and the files hold another head: programs that obey the one
            read another model than those that obey the other.
    """
    head, embedding = network.get_output_embeddings(), network.get_input_embeddings()
    if (
        getattr(network.config, "tie_word_embeddings", False)
        and head is not None
        and head.weight is not embedding.weight
    ):
        raise UserError(
            f"{model} holds a head of its own, and its config.json says that it is the embedding; set tie_word_embeddings to "
            "false there, if the head is meant"
        )


@torch.no_grad()
def check_finite(model: str, network: nn.Module) -> None:
    """
    Raises:
        UserError: names the weights that hold a value which is no finite number.
    """
    broken = [name for name, weight in network.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise UserError(
            f"{model} holds values that are no finite numbers in {some(broken)}; its training failed or its files are damaged: "
            "get it again"
        )


def _load(loader: Any, model: str, **arguments: Any) -> Any:
    where, extra = located(model)
    try:
        with quiet():
            return loader.from_pretrained(where, trust_remote_code=False, **extra, **arguments)
    except Exception as error:
        # Files from outside can be wrong in any way, and every library below has exceptions of its own for it.
        raise UserError(f"cannot load {model}: {reason(error)}; check the folder or hub id") from None


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    text = str(error).strip().split("\n")[0].rstrip(".")
    if "custom code" in text:
        return "it needs code of its own, which is never run; give a model whose class is in transformers"
    return text if isinstance(error, OSError | ValueError) and text else f"{type(error).__name__}: {text}"


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back transformers' warnings, among them its table of missing weights: what matters of them is an error here."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def context_length(config: Any) -> int | None:
    return getattr(config, "max_position_embeddings", None)
