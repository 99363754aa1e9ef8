"""The tokens that end a response of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lco.errors import UserError
from lco.models.place import located

CHAT_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<|eom_id|>")
"""End tokens of the families' chat templates and base models; those that are in the vocabulary stop a row."""


def end_token_ids(tokenizer: Any, model: str) -> tuple[int, ...]:
    """All end tokens of a model: the tokenizer's, those of generation_config.json, and the family's chat markers.

    Raises:
        UserError: there is none, so no row could end.
    """
    from transformers import GenerationConfig  # seconds, which `lco.models` alone does not cost

    found = {tokenizer.eos_token_id}
    where = model if Path(model).exists() else located(model)[0]
    try:
        listed = GenerationConfig.from_pretrained(where).eos_token_id
        found |= set(listed if isinstance(listed, list) else [listed])
    except OSError:
        pass  # a folder without generation_config.json
    vocabulary = tokenizer.get_vocab()
    found |= {vocabulary[token] for token in CHAT_ENDS if token in vocabulary}
    ids = tuple(sorted(token for token in found if token is not None))
    if not ids:
        raise UserError(f"{model} names no end token; set eos_token in its tokenizer_config.json")
    return ids
