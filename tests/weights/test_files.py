"""Checkpoints: nothing in a file is run, and whatever does not fit is told in one line."""

import collections
import json
import os
import pickle
import sys
import types
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save_file

from vltune.assemble.weights import weight_files
from vltune.errors import UserError
from vltune.weights.backbones import load_backbone
from vltune.weights.files import read
from vltune.weights.finding import EXTRA, MODEL_FILES, find, fingerprint


class Bomb:
    """What a hostile file would run when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def authors_state(backbone):
    """The authors' layout of a tiny backbone, written out from our side."""
    ours, theirs = backbone.state_dict(), {}
    names = {
        "text.word.weight": "text_embeddings.word_embeddings.weight",
        "text.position.weight": "text_embeddings.position_embeddings.weight",
        "text.segment.weight": "text_embeddings.token_type_embeddings.weight",
        "text.norm": "text_embeddings.LayerNorm",
        "token_type.weight": "token_type_embeddings.weight",
        "image.class_token": "transformer.cls_token",
        "image.patch.bias": "transformer.patch_embed.proj.bias",
        "attention.out": "attn.proj",
        "feed_forward.up": "mlp.fc1",
        "feed_forward.down": "mlp.fc2",
    }
    for key, tensor in ours.items():
        if any(part in key for part in ("query", "key.", "value", "position", "class_token", "image.patch.weight")):
            continue
        for mine, their in names.items():
            key = key.replace(mine, their)
        theirs[f"transformer.{key}" if key.startswith(("blocks", "norm")) else key] = tensor
    for i in range(len(backbone.blocks)):
        for part in ("weight", "bias"):
            qkv = [ours[f"blocks.{i}.attention.{name}.{part}"] for name in ("query", "key", "value")]
            theirs[f"transformer.blocks.{i}.attn.qkv.{part}"] = torch.cat(qkv)
    theirs["text_embeddings.position_embeddings.weight"] = ours["text.position.weight"]
    theirs["transformer.cls_token"] = ours["image.class_token"]
    grid = ours["image.position"].flatten(0, 1)[None]
    theirs["transformer.pos_embed"] = torch.cat([ours["image.class_position"], grid], dim=1)
    theirs["transformer.patch_embed.proj.weight"] = ours["image.patch.weight"].unflatten(1, (3, 16, 16))
    return theirs


@pytest.fixture
def pretrained():
    torch.manual_seed(1)
    return tiny.vilt()


def test_the_authors_layout_round_trips(pretrained, tmp_path):
    torch.save({"state_dict": authors_state(pretrained)}, tmp_path / "vilt.ckpt")
    backbone = tiny.vilt()
    load_backbone(backbone, tmp_path / "vilt.ckpt", cls_id=2)
    expected = pretrained.state_dict() | {"class_token": pretrained.text(torch.tensor([[2]])).detach()}
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, expected[key]), key


def test_the_class_token_starts_as_the_embedding_of_cls(pretrained, tmp_path):
    torch.save({"state_dict": authors_state(pretrained)}, tmp_path / "vilt.ckpt")
    load_backbone(pretrained, tmp_path / "vilt.ckpt", cls_id=7)
    assert torch.equal(pretrained.class_token, pretrained.text(torch.tensor([[7]])))


def test_our_own_safetensors_round_trip_in_half_precision(pretrained, tmp_path):
    state = {key: tensor.half() for key, tensor in pretrained.state_dict().items()}
    save_file(state, tmp_path / "mini.safetensors")
    backbone = tiny.vilt()
    assert load_backbone(backbone, tmp_path / "mini.safetensors", cls_id=2) == "vltune"
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, state[key].float()), key


def test_lightning_and_sacred_leftovers_become_stand_ins(pretrained, tmp_path, monkeypatch):
    """Files hold such classes by name; none of these packages is installed here."""
    lightning = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    lightning.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": lightning.__name__})
    sacred = types.ModuleType("sacred.config.custom_containers")
    sacred.ReadOnlyDict = type("ReadOnlyDict", (dict,), {"__module__": sacred.__name__})
    for module in (lightning, sacred):
        parts = module.__name__.split(".")
        for i in range(1, len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    content = {
        "state_dict": authors_state(pretrained),
        "callbacks": {lightning.ModelCheckpoint: {"best_model_score": torch.tensor(1.0)}},
        "hyper_parameters": {"config": sacred.ReadOnlyDict(seed=0)},
    }
    torch.save(content, tmp_path / "vilt.ckpt")
    monkeypatch.undo()
    assert read(tmp_path / "vilt.ckpt").keys() == content["state_dict"].keys()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused(pretrained, tmp_path, zipped):
    mark, file = tmp_path / "ran", tmp_path / "hostile.ckpt"
    torch.save(
        {"state_dict": authors_state(pretrained), "callbacks": Bomb(mark)}, file, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(UserError, match=r"hostile\.ckpt: refused, nothing in it was run: it asks for code") as error:
        read(file)
    assert "\n" not in str(error.value)
    assert not mark.exists()


def test_a_bare_pickle_is_refused(tmp_path):
    mark, file = tmp_path / "ran", tmp_path / "hostile.pt"
    file.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(UserError, match="refused, nothing in it was run"):
        read(file)
    assert not mark.exists()


def write(path, content):
    torch.save(content, path)
    return path


def truncated(pretrained, path):
    data = write(path / "whole.ckpt", {"state_dict": authors_state(pretrained)}).read_bytes()
    (path / "weights.ckpt").write_bytes(data[: len(data) // 2])
    return path / "weights.ckpt"


def truncated_safetensors(pretrained, path):
    save_file(pretrained.state_dict(), path / "whole.safetensors")
    (path / "w.safetensors").write_bytes((path / "whole.safetensors").read_bytes()[:-100])
    return path / "w.safetensors"


def without(pretrained, path):
    state = authors_state(pretrained)
    del state["transformer.blocks.1.norm2.weight"]
    return write(path / "w.ckpt", {"state_dict": state})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (truncated, "a truncated or damaged PyTorch checkpoint"),
        (truncated_safetensors, "not a whole safetensors file"),
        (without, "missing in the file: blocks.1.norm2.weight"),
        (
            lambda m, p: write(p / "w.ckpt", {"state_dict": authors_state(m) | {"extra.weight": torch.ones(1)}}),
            "unknown in the file: extra.weight",
        ),
        (
            lambda m, p: write(p / "w.ckpt", {"state_dict": authors_state(tiny.vilt(vocabulary_size=99))}),
            "does not fit this backbone: vocabulary 99 in the file, 120 in this backbone",
        ),
        (
            lambda m, p: write(p / "w.ckpt", collections.OrderedDict(a=torch.ones(1))),
            "a foreign checkpoint: its first keys are a; known layouts: OpenAI's or open_clip's CLIP",
        ),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(make, message, pretrained, tmp_path):
    path = make(pretrained, tmp_path)
    with pytest.raises(UserError) as error:
        load_backbone(tiny.vilt(), path, cls_id=2)
    assert message in str(error.value)
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"weights=.*nothing\.ckpt: no such file"):
        find(str(tmp_path / "nothing.ckpt"))


TENSOR = {"a": torch.ones(1)}


def folder_of(path, *names):
    """Of files that are what their names say."""
    for name in names:
        if name.endswith(".safetensors"):
            save_file(TENSOR, path / name)
        elif name.endswith(".index.json"):
            part = name.removesuffix(".index.json")
            (path / name).write_text(json.dumps({"weight_map": {"a": part}}))
            folder_of(path, part)
        elif name.endswith((".bin", ".ckpt")):
            torch.save(TENSOR, path / name)
        else:
            (path / name).write_text("{}")
    return path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.safetensors", "pytorch_model.bin", "apt-1-seed0.safetensors"], "model.safetensors"),
        (["pytorch_model.bin", "config.json"], "pytorch_model.bin"),
        (["full-0123abcd-seed0.safetensors", "full-0123abcd-seed0.json"], "full-0123abcd-seed0.safetensors"),
    ],
)
def test_the_file_of_a_folder(names, expected, tmp_path):
    assert find(str(folder_of(tmp_path, *names))) == tmp_path / expected


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_the_index_of_a_folder(name, tmp_path):
    index = folder_of(tmp_path, f"{name}.index.json") / f"{name}.index.json"
    part = name.replace(".", "-00001-of-00001.")
    (tmp_path / name).rename(tmp_path / part)
    index.write_text(json.dumps({"weight_map": {"a": part}}))
    assert find(str(tmp_path)) == index
    assert read(index) == TENSOR


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a.ckpt"], "and no other safetensors file: name the file"),
        (
            ["b.safetensors", "a.safetensors"],
            "and 2 other safetensors files, a.safetensors, b.safetensors: name the file",
        ),
    ],
)
def test_a_folder_that_does_not_say_which_file(names, told, tmp_path):
    with pytest.raises(UserError) as error:
        find(str(folder_of(tmp_path, *names)))
    expected = f"weights={tmp_path}: the folder holds none of {', '.join(MODEL_FILES)}, {told}"
    assert str(error.value) == expected


def test_a_folder_of_files_without_suffixes(tmp_path):
    """As a hub's cache keeps them, by their hash."""
    folder_of(tmp_path, "a.safetensors", "b.json")
    (tmp_path / "a.safetensors").rename(tmp_path / "0f3a")
    (tmp_path / "b.json").rename(tmp_path / "77c1")
    assert find(str(tmp_path)) == tmp_path / "0f3a"


@pytest.mark.parametrize("weights", ["", " ", 3, ["a"], True, "None", "nil", "~", "~nobody-of-that-name/a", "a" * 300])
def test_what_cannot_be_a_file_is_told_in_one_line(weights):
    with pytest.raises(UserError, match=r"weights=.*: (must be a file|cannot be read)") as error:
        find(weights)
    assert "\n" not in str(error.value)


def test_what_is_neither_file_nor_folder_is_told(tmp_path):
    (tmp_path / "link.ckpt").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"weights=.*link\.ckpt: a link to nowhere, which is not there"):
        find(str(tmp_path / "link.ckpt"))
    (tmp_path / "model.safetensors").symlink_to("../blobs/0f3a")
    with pytest.raises(UserError, match=r"model\.safetensors: a link to \.\./blobs/0f3a, which is not there; copy or"):
        find(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: neither a file nor a folder"):
        find(str(tmp_path / "pipe"))


@pytest.mark.parametrize("weights", ["https://a.org/vilt.ckpt", "hf://someone/vilt", "file:///tmp/a.ckpt"])
def test_an_address_is_no_file(weights):
    with pytest.raises(UserError, match=f"weights={weights}: an address, no file; download it and give its path"):
        find(weights)


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    file = folder_of(tmp_path, "a.ckpt") / "a.ckpt"

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"a\.ckpt: cannot be read \(Permission denied\)"):
        find(str(file))


def test_the_setting_that_names_a_missing_file_is_told(tmp_path):
    backbone = {"tower_weights": {"image": str(tmp_path / "clip.pt")}}
    with pytest.raises(UserError, match=r"^backbone\.tower_weights\.image=.*clip\.pt: no such file"):
        weight_files(None, backbone)


@pytest.mark.parametrize("towers", ["clip.pt", 3, ["clip.pt"], {"imge": "clip.pt"}, {"backbone": "clip.pt"}])
def test_towers_that_no_backbone_has_are_told(towers):
    with pytest.raises(UserError, match=r"backbone\.tower_weights=.*clip\.pt|=3") as error:
        weight_files(None, {"tower_weights": towers})
    assert "must be {image: FILE, text: FILE}, or one of them, or null" in str(error.value)


def test_a_whole_backbone_and_towers_are_not_both_given():
    backbone = {"tower_weights": {"image": "clip.pt", "text": None}}
    with pytest.raises(
        UserError, match=r"^weights=meter\.ckpt: would replace backbone\.tower_weights; give weights=null"
    ):
        weight_files("meter.ckpt", backbone)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache on disk, without a network: a folder of a model's snapshot."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--someone--vilt" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    return snapshot


def test_a_hub_name_is_its_snapshots_file(hub):
    folder_of(hub, "pytorch_model.bin", "config.json")
    assert find("someone/vilt") == hub / "pytorch_model.bin"
    folder_of(hub, "model.safetensors")
    assert find("someone/vilt") == hub / "model.safetensors"


def test_what_lies_beside_a_models_file_is_asked_for(hub, monkeypatch):
    asked = []

    def download(name, allow_patterns):
        asked.extend(allow_patterns)
        return str(hub)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    folder_of(hub, "model.safetensors")
    assert find("someone/vilt") == hub / "model.safetensors"
    assert {"config.json", "preprocessor_config.json", "processor_config.json", EXTRA} <= {*asked}


def test_a_hub_name_may_hold_a_dot(hub):
    with pytest.raises(UserError, match=r"weights=someone/vilt-1\.5: neither a file here nor a model that the hub"):
        find("someone/vilt-1.5")


def test_a_hub_name_that_is_not_at_hand_is_told(hub):
    with pytest.raises(UserError, match="weights=someone/else: neither a file here nor a model that the hub"):
        find("someone/else")


def indexed(folder, weight_map, **parts):
    """An index with its files, {name: tensors}."""
    for name, tensors in parts.items():
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(weight_map if isinstance(weight_map, str) else json.dumps({"weight_map": weight_map}))
    return index


ONES, TWOS = torch.ones(2), torch.full((2,), 2.0)


@pytest.mark.parametrize(
    ("weight_map", "told"),
    [
        ('{"weight_map": ', r"index\.json: no index of a model's files \(weight_map\)"),
        ('{"metadata": {}}', r"index\.json: no index of a model's files"),
        ('{"weight_map": {"a": 1}}', r"index\.json: no index of a model's files"),
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', r"index\.json: no index of a model's files"),
        ("[]", r"index\.json: no checkpoint but a text that begins with \[\]"),
        ("<!DOCTYPE html><html>", r"index\.json: no checkpoint but a web page, not the file itself; download it again"),
        ("version https://git-lfs.github.com/spec/v1\n", r"no checkpoint but a Git LFS pointer.*`git lfs pull`"),
        ({}, "an index names files beside it, not none"),
        ({"a": ""}, 'an index names files beside it, not ""'),
        ({"a": ".."}, r"an index names files beside it, not \.\.;"),
        ({"a": "sub/x.safetensors"}, r"an index names files beside it, not sub/x\.safetensors"),
        ({"a": "..\\x.safetensors"}, r"an index names files beside it, not \.\.\\x\.safetensors"),
        ({"a": "model.safetensors.index.json"}, "an index names files beside it, not model.safetensors.index.json"),
        ({"a": "x" * 300}, r"index\.json: names files that cannot be read \(File name too long\)"),
        ({"a": "x\0\ud800\n"}, r"names files that are not beside it: x\?\?\?; copy"),
        ({"a": "../x.safetensors"}, r"an index names files beside it, not \.\./x\.safetensors"),
        ({"a": "/x.safetensors"}, r"an index names files beside it, not /x\.safetensors"),
        ({"a": "x.safetensors", "b": "z.safetensors"}, r"names files that are not beside it: z\.safetensors; copy"),
        ({"a": "y.safetensors"}, r"y\.safetensors: has no a, which model\.safetensors\.index\.json says it has"),
        ({"a\x7f": "y.safetensors"}, r"y\.safetensors: has no a\?, which"),
        ({"a": "x.safetensors", "b": "y.safetensors"}, r"y\.safetensors: has another c than the files before it"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_index_and_files_that_are_not_of_one_model_are_refused(weight_map, told, tmp_path):
    index = indexed(tmp_path, weight_map, x={"a": ONES, "c": ONES}, y={"b": ONES, "c": TWOS})
    with pytest.raises(UserError, match=told):
        read(index)


def test_a_tensor_that_stands_in_two_files_alike_is_one(tmp_path):
    weight_map = {"a": "x.safetensors", "b": "y.safetensors"}
    index = indexed(tmp_path, weight_map, x={"a": ONES, "c": TWOS}, y={"b": ONES, "c": TWOS})
    assert read(index).keys() == {"a", "b", "c"}


def test_an_index_may_begin_with_a_byte_order_mark_and_have_any_name(tmp_path):
    index = indexed(tmp_path, {"a": "x.safetensors"}, x={"a": ONES})
    blob = tmp_path / "77c1"
    blob.write_bytes(b"\xef\xbb\xbf" + index.read_bytes())
    assert find(str(blob)) == blob
    assert torch.equal(read(blob)["a"], ONES)


def test_the_fingerprint_of_a_model_in_several_files_follows_each(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}')
    save_file({"a": torch.ones(1)}, tmp_path / "1.safetensors")
    seen = set()
    for value in (1.0, 2.0):
        save_file({"b": torch.full((1,), value)}, tmp_path / "2.safetensors")
        seen.add(fingerprint(index))
    assert len(seen) == 2
    assert read(index) == {"a": torch.ones(1), "b": torch.full((1,), 2.0)}


def test_a_file_without_tensors_is_told(tmp_path):
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(UserError, match=r"empty\.safetensors: holds no tensors"):
        read(tmp_path / "empty.safetensors")
