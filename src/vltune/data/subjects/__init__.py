"""Pictures of subjects, a few of each: DreamBooth's thirty (Ruiz et al. 2022, arXiv 2208.12242), and one's own."""

from vltune.data.dataset import DataSet

DATA_SET = DataSet(
    reader="reader.SubjectPictures",
    prepare={"dreambooth": "prepare.prepare"},
    kinds={"dreambooth": "rows.KIND"},
)
