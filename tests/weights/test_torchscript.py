"""TorchScript archives: their tensors are read by name, their code never."""

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from vltune.backbones.clip import ClipTower
from vltune.errors import UserError
from vltune.weights.files import read
from vltune.weights.forms import TORCHSCRIPT, form
from vltune.weights.towers import load_tower


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3).half(), nn.ReLU())])
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.empty = nn.Parameter(torch.zeros(0, 3))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x.to(torch.float32))
        return x


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.resolution = 224
        self.norm = nn.BatchNorm1d(3)
        self.inner = Inner()
        both = torch.randn(6, 4)
        self.transposed, self.column = nn.Parameter(both[1:4].t()), nn.Parameter(both[:, 2])

    def forward(self, x):
        return self.norm(x) + self.resolution


def saved(module, path):
    torch.jit.save(torch.jit.script(module), str(path))
    return path


def test_the_state_dict_of_a_scripted_module(tmp_path):
    module = Outer()
    tensors = read(saved(module, tmp_path / "outer.pt"))
    expected = module.state_dict()
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name


def test_the_state_dict_of_a_traced_module(tmp_path):
    module = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.GELU(), nn.Linear(4, 2))).eval()
    torch.jit.save(torch.jit.trace(module, torch.randn(1, 3)), str(tmp_path / "traced.pt"))
    tensors, expected = read(tmp_path / "traced.pt"), module.state_dict()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_other_files_are_no_torchscript(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "plain.pt")
    assert form(saved(nn.Linear(2, 2), tmp_path / "scripted.pt")) == TORCHSCRIPT
    assert form(tmp_path / "plain.pt") != TORCHSCRIPT


def with_entry(path, ending, content):
    """The archive with one entry's bytes replaced."""
    changed = path.with_name(f"changed_{path.name}")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith(ending) else old.read(name))
    return changed


def test_code_in_the_archive_is_not_even_read(tmp_path):
    module = nn.Linear(2, 2)
    broken = with_entry(saved(module, tmp_path / "linear.pt"), ".py", b"import os; os._exit(1)")
    assert torch.equal(read(broken)["weight"], module.weight)


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_an_archive_that_would_run_code_is_refused(tmp_path, protocol):
    mark = tmp_path / "ran"
    bomb = pickle.dumps({"weight": Bomb(mark)}, protocol)
    hostile = with_entry(saved(nn.Linear(2, 2), tmp_path / "linear.pt"), "/data.pkl", bomb)
    with pytest.raises(UserError, match="refused, nothing in it was run: it asks for code to be run") as error:
        read(hostile)
    assert "\n" not in str(error.value)
    assert str(hostile) in str(error.value)
    assert not mark.exists()


class Rebuilt:
    """A tensor as the archive has it, of whatever shape the file says."""

    def __init__(self, size, stride, count=4):
        self.size, self.stride, self.count = size, stride, count

    def __reduce__(self):
        storage = Storage(("storage", torch.FloatStorage, "0", "cpu", self.count))
        return torch._utils._rebuild_tensor_v2, (storage, 0, self.size, self.stride, False, None)


class Storage(tuple):
    """Pickled as a reference to an entry of the archive."""


def pickled(value):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return tuple(value) if isinstance(value, Storage) else None

    file = io.BytesIO()
    Pickler(file, 2).dump(value)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pickled(Rebuilt((3, 2), (2, 1))),  # six elements of four
        pickled(Rebuilt((2, 2), (2, 1), count=400)),
        pickled(Rebuilt((2, 2), (2, 1)))[:-20],
        pickled(Storage(("module", "0"))),
        b"\x80\x02c__torch__\nLinear\n)\x81q\x00}X\x01\x00\x00\x00aq\x01h\x00sb.",  # a module inside itself
        b"",
    ],
    ids=["outside its storage", "more than is stored", "cut", "no storage", "inside itself", "empty"],
)
def test_a_damaged_archive_is_told_in_one_line(tmp_path, content):
    damaged = with_entry(saved(nn.Linear(2, 2, bias=False), tmp_path / "linear.pt"), "/data.pkl", content)
    with pytest.raises(UserError, match=r"changed_linear\.pt: truncated or damaged TorchScript archive") as error:
        read(damaged)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", [0.5, 0.99])
def test_a_truncated_archive_is_told_in_one_line(tmp_path, part):
    data = saved(Outer(), tmp_path / "outer.pt").read_bytes()
    (tmp_path / "part.pt").write_bytes(data[: int(part * len(data))])
    with pytest.raises(UserError, match=r"part\.pt: a truncated or damaged PyTorch checkpoint") as error:
        read(tmp_path / "part.pt")
    assert "\n" not in str(error.value)


def test_an_archive_without_tensors_is_told(tmp_path):
    with pytest.raises(UserError, match="holds no tensors"):
        read(saved(nn.ReLU(), tmp_path / "relu.pt"))


LAYERS, CLIP_WIDTH, GRID = 3, 16, 2


class OpenAIBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(CLIP_WIDTH, 2)
        self.ln_1, self.ln_2 = nn.LayerNorm(CLIP_WIDTH), nn.LayerNorm(CLIP_WIDTH)
        self.mlp = nn.Module()
        self.mlp.c_fc, self.mlp.c_proj = nn.Linear(CLIP_WIDTH, 32), nn.Linear(32, CLIP_WIDTH)


class OpenAITower(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_resolution = 32
        self.conv1 = nn.Conv2d(3, CLIP_WIDTH, 16, 16, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(CLIP_WIDTH))
        self.positional_embedding = nn.Parameter(torch.randn(1 + GRID**2, CLIP_WIDTH))
        self.ln_pre, self.ln_post = nn.LayerNorm(CLIP_WIDTH), nn.LayerNorm(CLIP_WIDTH)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(OpenAIBlock() for _ in range(LAYERS))
        self.proj = nn.Parameter(torch.randn(CLIP_WIDTH, 8))


class OpenAIClip(nn.Module):
    """What a file of OpenAI's holds, in names and in kinds of values; it is never called."""

    def __init__(self):
        super().__init__()
        self.visual = OpenAITower()
        self.token_embedding = nn.Embedding(4, 8)
        self.register_buffer("input_resolution", torch.tensor(32))
        self.vocab_size = 4

    @torch.jit.export
    def size(self) -> int:
        return self.visual.input_resolution + self.vocab_size


def test_openais_clip_loads_from_its_archive(tmp_path):
    clip = OpenAIClip().half()
    tower = ClipTower(CLIP_WIDTH, LAYERS - 1, heads=2, hidden=32, patch_size=16, image_size=32)
    load_tower(tower, saved(clip, tmp_path / "ViT-B-16.pt"), "image")
    theirs = {name: tensor.float() for name, tensor in clip.visual.state_dict().items()}
    torch.save(theirs, tmp_path / "state.pt")
    expected = ClipTower(CLIP_WIDTH, LAYERS - 1, heads=2, hidden=32, patch_size=16, image_size=32)
    load_tower(expected, tmp_path / "state.pt", "image")
    for name, tensor in tower.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name
    assert torch.equal(
        tower.blocks[1].attention.key.weight, theirs["transformer.resblocks.1.attn.in_proj_weight"][16:32]
    )
