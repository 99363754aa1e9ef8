"""The tokenizer of this folder for programs that trust its code: `tokenizer.json`, read as it is."""

from transformers import PreTrainedTokenizerFast


class WordTokenizer(PreTrainedTokenizerFast):
    """A token is a word."""
