"""BERT's uncased WordPiece tokenisation, by the `tokenizers` library."""

from pathlib import Path

from tokenizers.implementations import BertWordPieceTokenizer

from vltune.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SOURCE = "for BERT's, download vocab.txt from https://huggingface.co/google-bert/bert-base-uncased"


class Tokenizer:
    """Text -> `[CLS] ... [SEP]` as ids, at most `max_length` of them.

    vocabulary: a BERT `vocab.txt`, one token a line, its line number the id.  UserError if it is missing or malformed.
    Attributes: pad_id, cls_id, mask_id, size (entries in the vocabulary), max_length.
    """

    def __init__(self, vocabulary: Path, max_length: int):
        vocabulary = Path(vocabulary)
        if max_length < 3:
            raise UserError(f"max_length={max_length}: a text needs at least 3 tokens, [CLS] word [SEP]")
        try:
            tokens = vocabulary.read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            raise UserError(f"{vocabulary}: no such vocabulary file; {_SOURCE}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{vocabulary}: not a readable vocabulary ({error}); {_SOURCE}") from None
        if absent := [token for token in SPECIAL if token not in tokens]:
            raise UserError(f"{vocabulary}: not a BERT vocabulary, it lacks {' '.join(absent)}; {_SOURCE}")
        self._encoder = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
        self._encoder.enable_truncation(max_length)
        self.max_length = max_length
        self.size = self._encoder.get_vocab_size()
        self.pad_id, self.cls_id, self.mask_id = map(self._encoder.token_to_id, ("[PAD]", "[CLS]", "[MASK]"))

    def __call__(self, text: str) -> list[int]:
        return self._encoder.encode(text).ids
