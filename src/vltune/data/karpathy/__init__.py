"""Flickr30K and COCO captions in Karpathy's splits (Karpathy and Fei-Fei 2015)."""

from vltune.data.dataset import DataSet

DATA_SET = DataSet(
    reader="reader.Karpathy",
    prepare={"f30k": "prepare.prepare_f30k", "coco": "prepare.prepare_coco"},
    kinds={"f30k_caption_karpathy": "prepare.KIND", "coco_caption_karpathy": "prepare.KIND"},
    examples="examples.Matches",
)
