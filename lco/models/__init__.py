"""Models from folders, hub ids and GGUF files: found, checked, loaded, named. torch comes with the first name that needs it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lco.models.device import check_device, resolve_device
    from lco.models.load import DTYPES, context_length, load_config, load_model, load_tokenizer
    from lco.models.place import check_local, located, public_name
    from lco.models.weights import check_names, checkpoint_weights, weights_sha256

__all__ = [
    "DTYPES", "check_device", "check_local", "check_names", "checkpoint_weights", "context_length", "load_config", "load_model",
    "load_tokenizer", "located", "public_name", "resolve_device", "weights_sha256",
]  # fmt: skip

HOMES = {
    "device": ("check_device", "resolve_device"),
    "load": ("DTYPES", "context_length", "load_config", "load_model", "load_tokenizer"),
    "place": ("check_local", "located", "public_name"),
    "weights": ("check_names", "checkpoint_weights", "weights_sha256"),
}
"""file in this folder → what it gives to the package"""


def __getattr__(name: str) -> Any:
    for home, names in HOMES.items():
        if name in names:
            return getattr(import_module(f"lco.models.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
