"""Images of classes: the eleven data sets that CLIP is tuned on, one's own folder, and emoji."""

from vltune.data.dataset import DataSet
from vltune.data.labelled.published import GENERATED, PUBLISHED

_PREPARED = dict.fromkeys((*PUBLISHED, *GENERATED), "prepare.prepare") | {
    "folder": "prepare.prepare",
    "emoji": "emoji.prepare",
}

DATA_SET = DataSet(
    reader="reader.LabelledImages",
    prepare=_PREPARED | {"emoji_captions": "emoji.prepare_captions"},
    # Files of captions begin as those of `emoji` do: of two that fit the longer counts.
    kinds={"emoji_caption_karpathy": "emoji.CAPTIONS"} | dict.fromkeys(_PREPARED, "rows.KIND"),
    examples="examples.Classes",
)
