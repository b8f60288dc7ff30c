"""BERT's uncased WordPiece, RoBERTa's byte-level BPE and CLIP's, by the `tokenizers` library."""

import gzip
import json
import zlib
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers.implementations import BaseTokenizer, BertWordPieceTokenizer, ByteLevelBPETokenizer
from tokenizers.processors import RobertaProcessing

from vltune.errors import UserError
from vltune.signatures import HEAD, identify, other_than_file

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SOURCE = "for BERT's, download vocab.txt from https://huggingface.co/google-bert/bert-base-uncased"
_ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_ROBERTA = "for RoBERTa's, download vocab.json and merges.txt from https://huggingface.co/FacebookAI/roberta-base"
_CLIP_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_CLIP = "pkg://vltune/weights/bpe_simple_vocab_16e6.txt.gz comes with the package"
_CLIP_MERGES = 49152 - 256 - 2  # of those in the file: CLIP was trained with these
_CLIP_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_WORD_END = "</w>"


class _Subwords:
    """Text -> ids, at most `max_length` of them, by an encoder that adds the tokens of beginning and end.

    Attributes: pad_id, cls_id, sep_id, mask_id, size (entries in the vocabulary), max_length."""

    def __init__(
        self, encoder: BaseTokenizer | tokenizers.Tokenizer, pad: str, cls: str, sep: str, mask: str, max_length: int
    ):
        if max_length < 3:
            raise UserError(f"max_length={max_length}: a text needs at least 3 tokens, {cls} word {sep}")
        encoder.enable_truncation(max_length)
        self._encoder = encoder
        self.max_length = max_length
        self.size = encoder.get_vocab_size()
        self.pad_id, self.cls_id, self.sep_id, self.mask_id = map(encoder.token_to_id, (pad, cls, sep, mask))

    def __call__(self, text: str) -> list[int]:
        return self._encoder.encode(text).ids

    def cuts(self, text: str) -> bool:
        """Whether the ids are of its beginning alone, for it is longer than `max_length`."""
        return bool(self._encoder.encode(text).overflowing)

    def many(self, texts: Sequence[str]) -> list[list[int]]:
        """The same of each text, on all cores."""
        return [encoding.ids for encoding in self._encoder.encode_batch(list(texts))]

    def fill(self, padding: str | None) -> None:
        """Every text up to `max_length` with a token; None: texts stay as long as they are.  UserError where it is none."""
        if padding is None:
            return
        if (fills := self._encoder.token_to_id(padding)) is None:
            raise UserError(f"backbone.tokenizer.padding={padding}: is no token of the vocabulary; name one that is")
        self._encoder.enable_padding(length=self.max_length, pad_id=fills, pad_token=padding)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides the ids: vocabulary, rules, `max_length` and the library's version."""
        return sha256(f"{tokenizers.__version__} {self._encoder.to_str()}".encode()).hexdigest()


class Tokenizer(_Subwords):
    """Text -> `[CLS] ... [SEP]` as ids, at most `max_length` of them.

    vocabulary: a BERT `vocab.txt`, one token a line, its line number the id.  UserError if it is missing or malformed.
    Attributes: pad_id, cls_id, sep_id, mask_id, size (entries in the vocabulary), max_length.
    """

    def __init__(self, vocabulary: Path, max_length: int):
        vocabulary = Path(vocabulary)
        tokens = [line.rstrip() for line in _read(vocabulary, _SOURCE).removesuffix("\n").split("\n")]
        if absent := [token for token in SPECIAL if token not in tokens]:
            raise UserError(f"{vocabulary}: not a BERT vocabulary, it lacks {' '.join(absent)}; {_SOURCE}")
        encoder = BertWordPieceTokenizer({token: id for id, token in enumerate(tokens)}, lowercase=True)
        super().__init__(encoder, "[PAD]", "[CLS]", "[SEP]", "[MASK]", max_length)


class FilledTokenizer(Tokenizer):
    """Every text of `max_length` tokens, `padding` behind its own, for a backbone that was trained so."""

    usual_padding = "[PAD]"

    def __init__(self, vocabulary: Path, padding: str | None, max_length: int):
        super().__init__(vocabulary, max_length)
        self.fill(padding)


class BytePairTokenizer(_Subwords):
    """Text -> `<s> ... </s>` as ids, at most `max_length` of them, as RoBERTa does: case is kept, no space is put first.

    vocabulary: RoBERTa's `vocab.json`, token -> id.  merges: its `merges.txt`.  UserError if one is missing or malformed.
    Attributes: pad_id, cls_id (of `<s>`), sep_id (of `</s>`), mask_id, size (entries in the vocabulary), max_length.
    """

    def __init__(self, vocabulary: Path, merges: Path, max_length: int):
        vocabulary, merges = Path(vocabulary), Path(merges)
        try:
            ids = json.loads(_read(vocabulary, _ROBERTA))
            if not isinstance(ids, dict) or not all(type(id) is int for id in ids.values()):
                raise ValueError("no object of whole numbers")
            absent = [token for token in _ROBERTA_SPECIAL if token not in ids]
        except (ValueError, RecursionError) as error:
            raise UserError(f"{vocabulary}: not a vocabulary of tokens and ids ({error}); {_ROBERTA}") from None
        if absent:
            raise UserError(f"{vocabulary}: not a RoBERTa vocabulary, it lacks {' '.join(absent)}; {_ROBERTA}")
        lines = _read(merges, _ROBERTA).removesuffix("\n").split("\n")
        pairs = [tuple(line.rstrip().split(" ")) for line in lines if not line.startswith("#version")]
        try:
            if wrong := [pair for pair in pairs if len(pair) != 2]:
                raise ValueError(f"{' '.join(wrong[0])} is no pair")
            encoder = ByteLevelBPETokenizer(ids, pairs)
        except Exception as error:  # the library raises nothing narrower
            reason = " ".join(str(error).split())
            raise UserError(f"{merges}: not the merges of {vocabulary.name} ({reason}); {_ROBERTA}") from None
        encoder.add_special_tokens([*_ROBERTA_SPECIAL[:-1], AddedToken("<mask>", lstrip=True)])
        super().__init__(encoder, "<pad>", "<s>", "</s>", "<mask>", max_length)
        encoder.post_processor = RobertaProcessing(("</s>", self.sep_id), ("<s>", self.cls_id), add_prefix_space=False)


class ClipTokenizer(_Subwords):
    """Text -> `<|startoftext|> ... <|endoftext|>` as ids, at most `max_length` of them, as CLIP does: in lower case.

    merges: `bpe_simple_vocab_16e6.txt.gz` (openai/CLIP), of which the first 48,894 count: 49,408 tokens.  UserError if it
    is missing or malformed.  A text never holds the two special tokens by spelling them.  HTML entities and curly quotes
    are taken as they stand; the released code mends them first.
    Attributes: pad_id (0, as released), cls_id (of `<|startoftext|>`), sep_id (of `<|endoftext|>`), mask_id (pad_id: CLIP
    masks nothing), size (entries in the vocabulary), max_length.
    """

    def __init__(self, merges: Path, max_length: int):
        pairs = _clip_merges(Path(merges))
        letters = _byte_letters()
        tokens = [*letters, *(letter + _WORD_END for letter in letters), *map("".join, pairs), *_CLIP_SPECIAL]
        ids = {token: id for id, token in enumerate(tokens)}
        try:
            encoder = tokenizers.Tokenizer(models.BPE(ids, pairs, end_of_word_suffix=_WORD_END))
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"{merges}: not CLIP's merges ({' '.join(str(error).split())}); {_CLIP}") from None
        encoder.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        pieces = pre_tokenizers.Split(Regex(_CLIP_PIECES), behavior="removed", invert=True)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        encoder.pre_tokenizer = pre_tokenizers.Sequence([pieces, byte_level])
        start, end = _CLIP_SPECIAL
        super().__init__(encoder, letters[0], start, end, letters[0], max_length)
        ends = (end, self.sep_id), (start, self.cls_id)
        encoder.post_processor = RobertaProcessing(*ends, trim_offsets=False, add_prefix_space=False)


class FilledClipTokenizer(ClipTokenizer):
    """Every text of `max_length` tokens, `padding` behind its own: Stable Diffusion 1 was trained with `<|endoftext|>`, 2
    with `!`."""

    usual_padding = "<|endoftext|>"

    def __init__(self, merges: Path, padding: str | None, max_length: int):
        super().__init__(merges, max_length)
        self.fill(padding)


def _clip_merges(file: Path) -> list[tuple[str, str]]:
    if (found := other_than_file(file)) is not None:
        raise UserError(f"{file}: {found}, no such vocabulary file; {_CLIP}")
    try:
        lines = gzip.decompress(file.read_bytes()).decode().split("\n")[1 : _CLIP_MERGES + 1]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not CLIP's merges in a gzip archive ({error}); {_CLIP}") from None
    pairs = [tuple(line.split()) for line in lines if line.strip()]
    if not pairs or (wrong := [pair for pair in pairs if len(pair) != 2]):
        why = f"{' '.join(wrong[0])} is no pair" if pairs else "there are none"
        raise UserError(f"{file}: not CLIP's merges ({why}); {_CLIP}")
    return pairs


def _byte_letters() -> list[str]:
    """(256,) the letter that stands for each byte, printable ones for themselves, in the order of their ids."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [*map(chr, printable), *map(chr, range(0x100, 0x200 - len(printable)))]


def _read(file: Path, source: str) -> str:
    if (found := other_than_file(file)) is not None:
        raise UserError(f"{file}: {found}, no such vocabulary file; {source}")
    try:
        content = file.read_bytes()
        if (found := identify(content[:HEAD])).fix:
            raise UserError(f"{file}: {found.name}, not a readable vocabulary; {found.fix}, or {source}")
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a readable vocabulary ({error}); {source}") from None
