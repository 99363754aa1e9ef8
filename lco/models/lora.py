"""Low-rank adapters (LoRA, arXiv 2106.09685) inside a model, by peft: W x becomes W x + (alpha / rank) B A x with W as it was.

They are put into the model in place, so that everything else sees the class and the attributes that it knows; to whom weights
are handed over (samplers, saved folders), they are merged ones under their usual names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

BASE, OWN = ".base_layer.", ".lora_"
"""What peft puts into the names of a layer's own weights, and of its adapters."""


def add_adapters(model: nn.Module, rank: int, alpha: float) -> None:
    """Freezes the model and gives every linear layer of its body an adapter that is zero at first. The head gets none.

    A's draws come from the global generator, which the caller seeds.
    """
    from peft import LoraConfig, inject_adapter_in_model  # only a run that asks for adapters has to have it

    network: Any = model
    head = network.get_output_embeddings()
    layers = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and part is not head]
    model.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=layers), model)  # type: ignore[arg-type]
    if getattr(model, "is_gradient_checkpointing", False):
        network.enable_input_require_grads()  # nothing before the first adapter has a gradient to begin with


def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model by the names that it had before `add_adapters`, adapters added to what they belong to; of a model
    without adapters its state."""
    adapters = {name: part for name, part in model.named_modules() if hasattr(part, "get_delta_weight")}
    for name, value in model.state_dict().items():
        layer, base, rest = name.rpartition(BASE)
        if OWN in name:
            continue
        if base and rest == "weight":
            added: Any = adapters[layer]
            value = value + added.get_delta_weight("default").detach().to(value.dtype)
        yield (f"{layer}.{rest}" if base else name), value
