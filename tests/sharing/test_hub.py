"""`vltune push` without a network."""

import huggingface_hub
import pytest

from vltune.errors import UserError
from vltune.sharing.hub import send


def test_without_a_network_it_says_so_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "a.safetensors").write_bytes(b"")

    def unreachable(*arguments, **options):
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", unreachable)
    with pytest.raises(UserError, match=r"^me/lora: the Hub could not be reached, or refused it \(no route\); nothing"):
        send(tmp_path, "me/lora")


def test_only_what_was_exported_is_sent(tmp_path):
    with pytest.raises(UserError, match="is no folder that vltune export wrote"):
        send(tmp_path, "me/lora")


def test_a_folder_goes_to_a_private_repository(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "a.safetensors").write_bytes(b"")
    asked = []
    for name in ("create_repo", "upload_folder"):
        monkeypatch.setattr(huggingface_hub.HfApi, name, lambda self, *a, _name=name, **k: asked.append((_name, a, k)))
    send(tmp_path, "me/lora")
    assert asked == [
        ("create_repo", ("me/lora",), {"private": True, "exist_ok": True}),
        ("upload_folder", (), {"repo_id": "me/lora", "folder_path": tmp_path}),
    ]
