"""Data sets are found by lying in their folders."""

import pytest

from vltune.data.dataset import data_sets, kinds, open_examples, part, preparations, reader_of
from vltune.errors import UserError


@pytest.mark.parametrize("name", data_sets())
def test_what_a_folder_says_of_itself_is_there(name):
    said = data_sets()[name]
    assert reader_of(name).startswith(f"vltune.data.{name}.")
    for where in (said.reader, *said.prepare.values(), *said.kinds.values(), *filter(None, [said.examples])):
        assert part(name, where) is not None


def test_names_are_of_one_data_set_each():
    assert len(preparations()) == sum(len(each.prepare) for each in data_sets().values())
    assert len(kinds()) == sum(len(each.kinds) for each in data_sets().values())


@pytest.mark.parametrize(
    ("recorded", "name"),
    [
        ("vltune.data.vqav2.VQAv2", "vqav2"),
        ("vltune.data.nlvr2.NLVR2", "nlvr2"),
        ("vltune.data.snli_ve.SNLIVE", "snli_ve"),
        ("vltune.data.karpathy.Karpathy", "karpathy"),
    ],
)
def test_a_record_from_before_data_sets_had_names_is_read(recorded, name):
    assert reader_of(recorded) == reader_of(name)


@pytest.mark.parametrize("wrong", ["", "vqa", "os.system", "vltune.tasks.vqa.VQA", "shapes"])
def test_what_is_no_data_set_is_refused(wrong, tmp_path):
    with pytest.raises(UserError, match=r"no data set; there are karpathy, labelled, nlvr2, snli_ve, subjects, vqav2"):
        open_examples(wrong, tmp_path, [])
