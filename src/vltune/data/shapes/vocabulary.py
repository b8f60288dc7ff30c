"""The WordPiece vocabulary of the embedded world: its words whole, and letters so that any other word tokenises too.

`python -m vltune.data.shapes.vocabulary` writes the committed file anew.
"""

import string
from pathlib import Path

import numpy as np

from vltune.data.shapes import language, questions, scenes

_MARKS = ".,?!'-"
# NLVR2's statements need these too.  Behind all others, so that the ids of a model that was pretrained before them stay.
_LATER = ("as", "each", "image", "in", "more", "most", "only", "than")
VOCABULARY = Path(__file__).parents[2] / "weights" / "shapes_vocab.txt"


def corpus(seed: int = 0) -> list[str]:
    """Captions, questions and answers about 4,000 scenes."""
    rng = np.random.default_rng(seed)
    drawn = scenes.draw(rng, 4000)
    captions = language.to_text(language.to_words(language.draw_captions(rng, drawn, max_words=30)))
    asked = [question.text for asked in questions.ask(rng, drawn, questions.MAX_PER_IMAGE) for question in asked]
    return captions + asked + list(questions.ANSWERS)


def build(texts: list[str]) -> list[str]:
    """Tokens in the order of their ids: special ones, the texts' words, characters, those inside a word, later words."""
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    from vltune.data.tokenizer import SPECIAL

    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    characters = string.ascii_lowercase + string.digits
    inside = (f"##{character}" for character in characters)
    return list(dict.fromkeys([*SPECIAL, *sorted(words), *characters, *_MARKS, *inside, *_LATER]))


if __name__ == "__main__":
    VOCABULARY.write_text("\n".join(build(corpus())) + "\n", encoding="utf-8")
