"""The note of what W&B has of a run."""

import pytest

from vltune.loggers.sent import NAME, Sent, digest, find, note

HOME = Sent("https://wandb.example", "me", "vltune", "id", "abc")


def test_what_was_noted_is_found_by_server_and_project(tmp_path):
    note(tmp_path, HOME)
    assert find(tmp_path, "https://wandb.example", None, "vltune") == HOME
    assert find(tmp_path, "https://wandb.example", "me", "vltune") == HOME
    assert find(tmp_path, "https://wandb.example", "team", "vltune") is None
    assert find(tmp_path, "https://wandb.example", None, "other") is None
    assert find(tmp_path, "offline", None, "vltune") is None


def test_a_later_note_takes_the_place_of_the_one_for_the_same_project(tmp_path):
    other, later = (
        Sent("offline", "", "vltune", "id", "abc"),
        Sent("https://wandb.example", "me", "vltune", "id", "def"),
    )
    for sent in (HOME, other, later):
        note(tmp_path, sent)
    assert find(tmp_path, HOME.server, None, HOME.project) == later
    assert find(tmp_path, "offline", None, "vltune") == other


@pytest.mark.parametrize("content", ["", "[{}]", '{"server": 1}', "[1]"])
def test_a_note_that_cannot_be_read_is_none(tmp_path, content):
    (tmp_path / NAME).write_text(content)
    assert find(tmp_path, HOME.server, None, HOME.project) is None
    note(tmp_path, HOME)
    assert find(tmp_path, HOME.server, None, HOME.project) == HOME


def test_the_hash_is_of_the_content(tmp_path):
    for name, content in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).write_text(content)
    a, b, c = (digest(tmp_path / name) for name in "abc")
    assert a == b != c
