"""A checkpoint is what its content says, whatever it is called; what is none is named for what it is."""

import gzip
import io
import zipfile

import pytest
import torch
from safetensors.torch import save

from vltune.errors import UserError
from vltune.weights import files, forms
from vltune.weights.finding import find

STATE = {"a.weight": torch.ones(2, 3), "b.bias": torch.zeros(3)}


def pickled(zipped):
    buffer = io.BytesIO()
    torch.save(STATE, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "a.ckpt", "0f3a77c1"])
@pytest.mark.parametrize(
    ("content", "form"),
    [(save(STATE), forms.SAFETENSORS), (pickled(True), forms.PICKLE), (pickled(False), forms.OLD_PICKLE)],
    ids=["safetensors", "zip", "pickle"],
)
def test_a_checkpoint_under_any_name(content, form, name, tmp_path):
    file = tmp_path / name
    file.write_bytes(content)
    assert find(str(file)) == file
    assert files.form(file) == form
    found = files.read(file)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in STATE.items())


def archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("vilt.ckpt", pickled(True))
    return buffer.getvalue()


WRONG = [
    (gzip.compress(pickled(True)), "no checkpoint but a gzip archive; unpack it (gunzip, or tar -xzf)"),
    (archive(), "no checkpoint but a zip archive; unpack it (unzip)"),
    (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the data itself; run `git lfs pull`"),
    (b"<!DOCTYPE html>\n<html>login</html>", "but a web page, not the file itself; download it again"),
    (b"", "but an empty file"),
    (b"\0" * 100, "but a file of zeros"),
    (b"not found", "but a text that begins with not found; name another file"),
    (pickled(True)[:-30], "a truncated or damaged PyTorch checkpoint or zip archive; copy or download it again"),
    (save(STATE)[:-4], "not a whole safetensors file"),
    (pickled(False)[:-4], "truncated or damaged PyTorch checkpoint"),
    (b"\x80", "no checkpoint but"),
    (b"\x80\x02X\x02\x00\x00\x00hiq\x00.", "PyTorch checkpoint"),
]


@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors", "pytorch_model.bin.index.json", "0f3a"])
@pytest.mark.parametrize(("content", "told"), WRONG, ids=[told[-30:] for _, told in WRONG])
def test_what_is_no_checkpoint_is_named(content, told, name, tmp_path):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        files.read(find(str(file)))
    assert told in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    assert "b'" not in str(error.value)


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.ones(2, 2).to_sparse(), "is stored as a sparse tensor"),
        (torch.ones(2, 2, device="meta"), "is stored without values"),
        (torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8), "is stored as a quantised tensor"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_without_plain_values_are_refused(tensor, told, tmp_path):
    torch.save({"a": torch.ones(1), "b": tensor}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=rf"a\.ckpt: b {told}"):
        files.read(tmp_path / "a.ckpt")
