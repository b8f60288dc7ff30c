import pytest

from vltune.data.preparing import MANIFEST, staging
from vltune.errors import UserError


def fill(folder, **files):
    for name, content in files.items():
        (folder / name).write_text(content)


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_all_files_are_replaced_at_the_end(tmp_path):
    fill(tmp_path, table="old", rest="old", mine="kept", **{MANIFEST: "old"})
    with staging(tmp_path, stale=["rest", "never"]) as partial:
        fill(partial, table="new", **{MANIFEST: "new"})
        assert (tmp_path / "table").read_text() == "old"
    assert content(tmp_path) == {"table": "new", MANIFEST: "new", "mine": "kept"}


def test_nothing_changes_where_anything_is_raised(tmp_path):
    fill(tmp_path, table="old", rest="old", **{MANIFEST: "old"})
    with pytest.raises(UserError), staging(tmp_path, stale=["rest"]) as partial:
        fill(partial, table="new")
        raise UserError("no")
    assert content(tmp_path) == {"table": "old", "rest": "old", MANIFEST: "old"}
