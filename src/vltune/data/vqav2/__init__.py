"""VQAv2 (Goyal et al. 2017)."""

from vltune.data.dataset import DataSet

DATA_SET = DataSet(
    reader="reader.VQAv2",
    prepare={"vqav2": "prepare.prepare"},
    kinds={"vqav2": "prepare.KIND"},
    examples="examples.Questions",
)
