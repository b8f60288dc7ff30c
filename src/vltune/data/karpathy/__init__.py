"""Flickr30K and COCO on Karpathy's splits."""

from vltune.data.karpathy.reader import Karpathy as Karpathy
