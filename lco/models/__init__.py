"""Models from folders, hub ids and GGUF files: found, checked, loaded, named."""

from lco.models.load import DTYPES, context_length, load_config, load_model, load_tokenizer, resolve_device
from lco.models.place import located, public_name
from lco.models.weights import check_names, checkpoint_weights, weights_sha256

__all__ = [
    "DTYPES", "check_names", "checkpoint_weights", "context_length", "load_config", "load_model", "load_tokenizer",
    "located", "public_name", "resolve_device", "weights_sha256",
]  # fmt: skip
