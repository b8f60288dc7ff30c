"""NLVR2."""

from vltune.data.nlvr2.reader import NLVR2 as NLVR2
