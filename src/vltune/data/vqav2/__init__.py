"""VQAv2."""

from vltune.data.vqav2.reader import VQAv2 as VQAv2
