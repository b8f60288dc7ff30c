"""NLVR2 (Suhr et al. 2019)."""

from vltune.data.dataset import DataSet

DATA_SET = DataSet(
    reader="reader.NLVR2Reader",
    prepare={"nlvr2": "prepare.prepare"},
    kinds={"nlvr2": "prepare.KIND"},
    examples="examples.Statements",
)
