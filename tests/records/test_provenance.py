"""What made a run's numbers."""

import json
import subprocess

import pytest
from fabricated import fabricate

from vltune.records import provenance
from vltune.records import record as records


def test_provenance_makes_a_valid_record(tmp_path):
    found = provenance.provenance()
    records.write(fabricate(provenance=found), tmp_path)
    assert {"python", "vltune", "torch", "typer"} <= found["packages"].keys()
    assert "hypothesis" not in found["packages"], "what only the tests need made no number"
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["memory_bytes"] > 1e8
    json.dumps(found, allow_nan=False)


def test_what_vltune_can_use_is_told_where_it_is_installed(monkeypatch):
    needs = ["torch>=2.8", 'peft>=0.21; extra == "peft"', 'absent>=1; extra == "peft"', 'ruff>=0.12; extra == "dev"']
    monkeypatch.setattr(provenance.metadata, "requires", lambda name: needs)
    assert provenance.provenance()["packages"].keys() == {"python", "vltune", "torch", "peft"}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout that tracks `src/code.py`, which stands in for provenance.py; returns git."""

    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)

    code = tmp_path / "src" / "code.py"
    code.parent.mkdir()
    code.write_text("1")
    git("init", "--quiet")
    git("add", "src")
    git("commit", "--quiet", "--message", "first")
    monkeypatch.setattr(provenance, "_HERE", code.parent)
    monkeypatch.setattr(provenance, "__file__", str(code))
    return git


@pytest.mark.parametrize(
    ("file", "decides"),
    [
        ("results/new.json", False),
        ("elsewhere/records/new.json", False),
        ("notes.md", False),
        ("src/code.py", True),
        ("src/new.py", True),
        ("conf/method/mine.yaml", True),
        ("sweeps/mine.yaml", True),
        ("run.py", True),
    ],
)
def test_provenance_in_a_checkout(checkout, tmp_path, file, decides):
    assert len(provenance.provenance()["commit"]) == 40
    assert provenance.provenance()["dirty"] is False
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("2")
    assert provenance.provenance()["dirty"] is decides


def test_code_that_a_checkout_does_not_track_has_no_commit(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "installed.py"))
    assert (provenance.provenance()["commit"], provenance.provenance()["dirty"]) == (None, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.provenance()["commit"] is None, "git is not installed"


def test_gpus_are_named_only_where_torch_is_loaded(monkeypatch):
    class Cuda:
        is_available, device_count = staticmethod(lambda: True), staticmethod(lambda: 2)
        get_device_name = staticmethod(lambda index: f"GPU {index}")

    class Torch:
        cuda = Cuda

    monkeypatch.setitem(provenance.sys.modules, "torch", Torch)
    assert provenance.provenance()["hardware"]["gpus"] == ["GPU 0", "GPU 1"]
    monkeypatch.delitem(provenance.sys.modules, "torch")
    assert provenance.provenance()["hardware"]["gpus"] == []
