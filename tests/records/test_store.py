import logging
import shutil

import pytest
from fabricated import Root, fabricate

from vltune.errors import UserError
from vltune.records import record as records
from vltune.records import store


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def test_records_come_sorted_with_their_path(root):
    for fields in ({"seed": 10}, {"seed": 2}, {"method": "apt"}, {"backbone": "vilt"}):
        root.add(**fields)
    root.add(kind="costs")
    assert [record["path"] for record in store.load(root.folder)] == [
        "records/vilt/vqa-shapes/lora-0a1b2c3d-seed0.json",
        "records/vilt_mini/vqa-shapes/apt-0a1b2c3d-seed0.json",
        "records/vilt_mini/vqa-shapes/lora-0a1b2c3d-seed2.json",
        "records/vilt_mini/vqa-shapes/lora-0a1b2c3d-seed10.json",
        "costs/vilt_mini/vqa-shapes/lora-0a1b2c3d.json",
    ]


def test_broken_files_are_reported_and_the_rest_is_loaded(root, caplog):
    good = root.add()
    copy = good.with_name("lora-0a1b2c3d-seed1.json")
    shutil.copy(good, copy)
    half = good.with_name("half.json")
    half.write_text("{")
    good.with_name(".lora.json.0.tmp").write_text("a killed run's temporary file is no record")
    broken = []
    assert [record["identity"]["seed"] for record in store.load(root.folder, broken.append)] == [0]
    told = sorted(map(str, broken))
    assert len(told) == 2
    assert told[0].startswith(f"{half}: broken JSON")
    assert told[1].startswith(f"{copy}: field 'identity' belongs to {good}")
    with caplog.at_level(logging.WARNING):
        store.load(root.folder)
    assert str(half) in caplog.text


def test_a_root_that_is_no_folder(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        store.load(tmp_path / "nowhere")
    assert store.load(tmp_path) == []


def test_cost_records_are_told_from_runs(root):
    records.write(fabricate(), root.folder)
    records.write(fabricate(), root.folder, "costs")
    assert [store.is_cost(record) for record in store.load(root.folder)] == [False, True]
