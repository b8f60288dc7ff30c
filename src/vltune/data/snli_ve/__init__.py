"""SNLI-VE."""

from vltune.data.snli_ve.reader import SNLIVE as SNLIVE
