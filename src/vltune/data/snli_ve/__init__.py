"""SNLI-VE (Xie et al. 2019)."""

from vltune.data.dataset import DataSet

DATA_SET = DataSet(
    reader="reader.SNLIVEReader",
    prepare={"snli_ve": "prepare.prepare"},
    kinds={"snli": "prepare.KIND"},
    examples="examples.Hypotheses",
)
