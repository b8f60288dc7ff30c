"""Captions as rows of token ids."""

import numpy as np

from vltune.data.shapes import language
from vltune.data.tokenizer import Tokenizer
from vltune.errors import UserError

_LONGEST = 12  # tokens of a clause, [CLS] and [SEP] among them


def check_room(max_text_len: int) -> None:
    """UserError where a caption of one clause may have more tokens."""
    if max_text_len < _LONGEST:
        raise UserError(f"max_text_len={max_text_len}: the longest clause of a caption needs {_LONGEST} tokens")


class CaptionTokens:
    """tokenizer: must hold every caption word as one token (the committed vocabulary does; UserError otherwise)."""

    def __init__(self, tokenizer: Tokenizer):
        tokens = [[id for id in tokenizer(word) if id != tokenizer.pad_id] for word in language.WORDS[1:]]
        if split := [word for word, ids in zip(language.WORDS[1:], tokens, strict=True) if len(ids) != 3]:
            raise UserError(f"the tokenizer splits the caption words {', '.join(split)}: use weights/shapes_vocab.txt")
        self.cls, self.sep, self.pad = tokens[0][0], tokens[0][2], tokenizer.pad_id
        self.tokens = np.array([self.pad] + [ids[1] for ids in tokens])

    def of(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """words: (B, places), as `language.to_words` gives them.  -> token ids (B, T), T those of the longest; how many
        words each has (B,); the places that they had (B, T - 2)."""
        order = (words == 0).argsort(1, kind="stable")
        lengths = (words > 0).sum(1)
        order = order[:, : lengths.max()]
        ids = np.full((len(words), lengths.max() + 2), self.pad)
        ids[:, 0] = self.cls
        ids[:, 1:-1] = self.tokens[np.take_along_axis(words, order, 1)]
        ids[np.arange(len(words)), lengths + 1] = self.sep
        return ids, lengths, order
