"""Weights on their way to another process: safetensors in shared memory, a bucket at a time.

An iterator of tensors cannot cross to another process. Held as one dictionary and copied, the model would stand twice in
this process's memory beside the trainer's own; in buckets it is one bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lco.errors import UserError

BUCKET = 2**28
"""Bytes that are copied at once, unless a single tensor is larger."""


def buckets(weights: Iterable[tuple[str, Tensor]], size: int = BUCKET) -> Iterator[dict[str, Tensor]]:
    """Copies in main memory of the weights, in order, at most `size` bytes (or one tensor) at a time.

    Tied tensors share their storage, which safetensors refuses: every name gets a copy of its own.
    """
    held: dict[str, Tensor] = {}
    room = size
    for name, tensor in weights:
        needed = tensor.numel() * tensor.element_size()
        if held and needed > room:
            yield held
            held, room = {}, size
        held[name] = tensor.detach().to("cpu", copy=True).contiguous()
        room -= needed
    if held:
        yield held


def write_buckets(weights: Iterable[tuple[str, Tensor]], folder: Path, size: int = BUCKET) -> list[str]:
    """Writes weights as the files of a model folder, which sort in the order of the weights; returns their names.

    Raises:
        UserError: the folder has no room for them.
    """
    names: list[str] = []
    try:
        for number, held in enumerate(buckets(weights, size)):
            save_file(held, folder / f"model-{number:05d}.safetensors")
            names += held
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"the weights for vLLM do not fit into {folder.parent} ({error}); make room there, or use --rollouts "
            "transformers"
        ) from None
    return names
