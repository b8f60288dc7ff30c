"""Every layout of a whole backbone, of ViLT and of METER: precision, wrappers, token types, resolutions, bad values."""

import json

import pytest
import tiny
import torch
from layouts import written
from safetensors.torch import save_file

from vltune.backbones.clip import ClipTower
from vltune.errors import UserError
from vltune.methods.full import Full
from vltune.methods.lora import LoRA
from vltune.model import Model
from vltune.tasks.vqa import VQA
from vltune.weights.backbones import FAMILIES, OUR_TOWERS, OURS, TUNED, load_backbone
from vltune.weights.files import read
from vltune.weights.keys import MisfitError, recognised
from vltune.weights.maps import clip, meter, vilt
from vltune.weights.towers import load_tower


def tiny_meter(image_size=64, **more):
    """`tiny.meter` at another resolution."""
    backbone = tiny.meter(**more)
    position = backbone.image.position
    backbone.image.position = torch.nn.Parameter(torch.randn((image_size // 16) ** 2, position.shape[1]))
    return backbone


CASES = [
    pytest.param(vilt.AUTHORS, tiny.vilt, id="ViLT, the authors'"),
    pytest.param(vilt.TRANSFORMERS, tiny.vilt, id="ViLT, transformers'"),
    pytest.param(OURS, tiny.vilt, id="ViLT, ours"),
    pytest.param(meter.AUTHORS, tiny_meter, id="METER, the authors'"),
    pytest.param(OURS, tiny_meter, id="METER, ours"),
]
every_layout = pytest.mark.parametrize(("family", "make"), CASES)


def varied(make, **sizes):
    """A backbone in which every number differs, positions and token types too."""
    model = make(**sizes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def loaded(model, state, tmp_path):
    torch.save({"state_dict": state}, tmp_path / "file.ckpt")
    load_backbone(model, tmp_path / "file.ckpt", cls_id=2)
    return model.state_dict()


@every_layout
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(family, make, dtype, tmp_path):
    pretrained = varied(make)
    state = {key: tensor.to(dtype) for key, tensor in written(pretrained, family).items()}
    own = loaded(make(), state, tmp_path)
    for key in own.keys() - {"class_token"}:  # which transformers' layout lacks
        tensor = own[key]
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, pretrained.state_dict()[key].to(dtype).float()), key


@every_layout
def test_a_third_token_type_starts_as_the_second(family, make, tmp_path):
    pretrained = varied(make, token_types=2)
    types = loaded(make(token_types=3), written(pretrained, family), tmp_path)["token_type.weight"]
    assert torch.equal(types[:2], pretrained.token_type.weight)
    assert torch.equal(types[2], pretrained.token_type.weight[1])


def resized(backbone, patches):
    """What positions of a grid are on one of so many patches a side, as the authors' code has it."""
    position = backbone.image.position.detach()
    if position.dim() == 3:
        grids = torch.tensor([[patches, patches]])
        return backbone.image.interpolate(grids, patches, patches)[0].detach().unflatten(0, (patches, patches))
    square = position.t().unflatten(1, (round(len(position) ** 0.5), -1))[None]
    return torch.nn.functional.interpolate(square, size=(patches, patches), mode="bicubic")[0].flatten(1).t()


@every_layout
@pytest.mark.parametrize("image_size", [32, 112])
def test_positions_of_another_resolution_are_interpolated(family, make, image_size, tmp_path):
    pretrained = varied(make)
    own = loaded(make(image_size=image_size), written(pretrained, family), tmp_path)
    torch.testing.assert_close(own["image.position"], resized(pretrained, image_size // 16))
    assert torch.equal(own["image.class_position"], pretrained.image.class_position)


@every_layout
@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "model.module.", "module._orig_mod."])
def test_wrappers_are_no_part_of_a_name(family, make, prefix, tmp_path):
    state = written(make(), family)
    for file in ("file.ckpt", "file.safetensors"):
        wrapped = {prefix + key: tensor.contiguous() for key, tensor in state.items()}
        (torch.save if file.endswith("ckpt") else save_file)(wrapped, tmp_path / file)
        assert read(tmp_path / file).keys() == state.keys()


def test_a_compiled_part_is_no_part_of_a_name(tmp_path):
    torch.save({"transformer._orig_mod.norm.weight": torch.ones(2), "pooler": torch.ones(1)}, tmp_path / "file.ckpt")
    assert list(read(tmp_path / "file.ckpt")) == ["transformer.norm.weight", "pooler"]


@every_layout
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_told(family, make, value, tmp_path):
    model = make()
    state = {key: tensor.clone() for key, tensor in written(model, family).items()}
    name = next(key for key, tensor in reversed(state.items()) if tensor.dim() == 2)
    state[name][1, :3] = value
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        loaded(model, state, tmp_path)
    told = f"file.ckpt: 3 of {state[name].numel():,} values of {name} are NaN or infinite: a damaged or diverged checkpoint"
    assert told in str(error.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@every_layout
@pytest.mark.parametrize("befores", [["net."], ["student.", "teacher."]])
def test_a_layout_beneath_another_name_is_told_and_none_is_chosen(family, make, befores, tmp_path):
    state = {before + key: tensor for key, tensor in written(make(), family).items() for before in befores}
    with pytest.raises(UserError) as error:
        loaded(make(), state, tmp_path)
    assert f" under {', '.join(befores)}; save one alone" in str(error.value)
    assert f'{{k.removeprefix("{befores[0]}"): v for k, v in state.items() if k.startswith(' in str(error.value)


def test_a_quantised_checkpoint_is_told(tmp_path):
    state = written(tiny.vilt(), vilt.AUTHORS)
    state["pooler.dense.weight"] = state["pooler.dense.weight"].to(torch.int8)
    with pytest.raises(UserError, match=r"pooler\.dense\.weight holds int8: perhaps a quantised checkpoint; use"):
        loaded(tiny.vilt(), state, tmp_path)


def test_a_tensor_of_an_impossible_shape_is_told(tmp_path):
    state = written(tiny.vilt(), vilt.AUTHORS)
    state["transformer.pos_embed"] = torch.zeros(1, 19, tiny.WIDTH)
    with pytest.raises(UserError, match=r"pos_embed has shape \(1, 19, 32\), which the authors' ViLT cannot have"):
        loaded(tiny.vilt(), state, tmp_path)
    state = written(tiny.meter(), meter.AUTHORS)
    state["vit_model.visual.positional_embedding"] = torch.zeros(19, 40)
    with pytest.raises(
        MisfitError, match=r"does not fit .*: of another size: image\.position \(18, 40\) for \(16, 40\)"
    ):
        loaded(tiny.meter(), state, tmp_path)


@pytest.mark.parametrize(
    ("file", "family", "model", "told"),
    [
        (
            lambda: tiny.vilt(width=48, layers=3, vocabulary_size=99, patch_size=32),
            vilt.AUTHORS,
            tiny.vilt,
            "(the authors' ViLT) does not fit backbone=x: width 48 in the file, 32 in backbone=x; "
            "layers 3 in the file, 2 in backbone=x; vocabulary 99 in the file, 120 in backbone=x",
        ),
        (
            lambda: tiny.vilt(patch_size=32),
            vilt.TRANSFORMERS,
            tiny.vilt,
            "(transformers' ViLT) does not fit backbone=x: patch size 32 in the file, 16 in backbone=x",
        ),
        (
            tiny.meter,
            meter.AUTHORS,
            tiny.vilt,
            "(the authors' METER) does not fit backbone=x: layers none in the file, 2 in backbone=x; "
            "fusion layers 2 in the file, none in backbone=x; text layers 2 in the file, none in backbone=x",
        ),
        (
            tiny.vilt,
            OURS,
            tiny.meter,
            "(vltune) does not fit backbone=x: layers 2 in the file, none in backbone=x; "
            "fusion layers none in the file, 2 in backbone=x; text layers none in the file, 2 in backbone=x",
        ),
        (
            tiny.meter,
            meter.AUTHORS,
            lambda: tiny.meter(layers=3, token_types=2),
            "(the authors' METER) does not fit backbone=x: fusion layers 2 in the file, 3 in backbone=x; "
            "token types 3 in the file, 2 in backbone=x",
        ),
    ],
    ids=["sizes", "patch size", "METER for ViLT", "ViLT for METER", "fewer token types"],
)
def test_a_wrong_backbone_is_told_by_its_sizes(file, family, model, told, tmp_path):
    torch.save(written(file(), family), tmp_path / "file.ckpt")
    with pytest.raises(MisfitError) as error:
        load_backbone(model(), tmp_path / "file.ckpt", 2, "backbone=x")
    assert str(error.value) == f"{tmp_path}/file.ckpt {told}"


def test_what_meters_own_code_keeps_of_clips_text_side_is_left_out(tmp_path):
    """Its `vit_model` has CLIP's word embeddings, positions and last norm, which nothing runs."""
    beside = {"token_embedding.weight": (9, 8), "positional_embedding": (7, 8), "ln_final.weight": (8,)}
    state = written(tiny.meter(), meter.AUTHORS)
    state |= {f"vit_model.{name}": torch.ones(size) for name, size in beside.items()}
    loaded(tiny.meter(), state, tmp_path)


def tuned(method, backbone, path):
    save_file(Model(backbone, VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), method).tuned_state(), path)
    return path


def test_what_full_tuning_saved_is_a_whole_backbone(tmp_path):
    pretrained, own = varied(tiny.vilt), tiny.vilt()
    assert load_backbone(own, tuned(Full(), pretrained, tmp_path / "full.safetensors"), cls_id=2) == TUNED.name
    assert all(torch.equal(tensor, pretrained.state_dict()[key]) for key, tensor in own.state_dict().items())


def test_what_another_method_saved_is_none(tmp_path):
    path = tuned(LoRA(rank=2, roles=["query"]), tiny.vilt(), tmp_path / "lora.safetensors")
    with pytest.raises(MisfitError, match=r"\(what a run of vltune tuned\) does not fit .*: vocabulary none"):
        load_backbone(tiny.vilt(), path, cls_id=2)


def shard(state, folder, name="model.safetensors"):
    """As transformers writes a model in several files, with their index."""
    stem, ending = name.split(".")
    files = [f"{stem}-0000{i}-of-00002.{ending}" for i in (1, 2)]
    keys = sorted(state)
    halves = {files[0]: keys[::2], files[1]: keys[1::2]}
    for file, of_file in halves.items():
        part = {key: state[key].contiguous() for key in of_file}
        (save_file if ending == "safetensors" else torch.save)(part, folder / file)
    weight_map = {key: file for file, of_file in halves.items() for key in of_file}
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder / f"{name}.index.json"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_model_in_several_files(name, tmp_path):
    pretrained, own = varied(tiny.vilt), tiny.vilt()
    index = shard(written(pretrained, vilt.TRANSFORMERS), tmp_path, name)
    load_backbone(own, index, cls_id=2)
    assert torch.equal(own.norm.weight, pretrained.norm.weight)
    assert torch.equal(own.blocks[1].attention.key.bias, pretrained.blocks[1].attention.key.bias)


def test_families_do_not_take_each_others_files():
    towers = [(family, tiny.clip) for family in (*clip.FAMILIES, OUR_TOWERS)]
    for family, make in [*(case.values for case in CASES), *towers]:
        assert recognised(written(make(), family), FAMILIES) is family


def more(state, **tensors):
    return state | {name.replace("__", "."): tensor for name, tensor in tensors.items()}


ODD = {
    "a wrapper's name beside the plain one": lambda state, key: more(state, **{f"module.{key}": state[key] + 1}),
    "a compiled name beside the plain one": lambda state, key: {f"_orig_mod.{key}": state[key] + 1, **state},
    "a backbone in a model beside the plain one": lambda state, key: more(state, **{f"vilt.{key}": state[key] + 1}),
    "a moving average of all": lambda state, key: state | {f"ema.{name}": t + 1 for name, t in state.items()},
    "a moving average of one": lambda state, key: more(state, **{f"ema.{key}": state[key] + 1}),
    "our name beside theirs": lambda state, key: {**state, "token_type.weight": torch.ones(3, tiny.WIDTH)},
    "no values": lambda state, key: more(state, **{key: torch.zeros(0)}),
    "one row fewer": lambda state, key: more(state, **{key: state[key][:-1]}),
    "one row more": lambda state, key: more(state, **{key: torch.cat([state[key], state[key][:1]])}),
    "flat": lambda state, key: more(state, **{key: state[key].flatten()}),
    "transposed": lambda state, key: more(state, **{key: state[key].t()}),
    "whole numbers": lambda state, key: more(state, **{key: state[key].long()}),
    "eight bits": lambda state, key: more(state, **{key: state[key].to(torch.float8_e4m3fn)}),
    "complex": lambda state, key: more(state, **{key: state[key].to(torch.complex64)}),
    "too large for float32": lambda state, key: more(state, **{key: state[key].double() + 1e300}),
    "a layer more": lambda state, key: (
        state
        | {name.replace(".1.", ".2."): t for name, t in state.items() if ".blocks.1." in name or ".layer.1." in name}
    ),
    "a layer fewer": lambda state, key: {
        name: t for name, t in state.items() if ".blocks.1." not in name and ".layer.1." not in name
    },
    "prompts of no layers": lambda state, key: more(state, prompt=torch.zeros(0, 1, 3, tiny.WIDTH)),
    "prompts of one dimension": lambda state, key: more(state, prompt=torch.zeros(3)),
}


@pytest.mark.parametrize("family", [vilt.AUTHORS, vilt.TRANSFORMERS], ids=["authors", "transformers"])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_what_is_not_exactly_the_backbone_is_refused_and_changes_nothing(odd, family, tmp_path):
    state = written(varied(tiny.vilt), family)
    key = next(key for key, tensor in state.items() if tensor.dim() == 2 and tensor.shape[0] > tensor.shape[1])
    model = tiny.vilt()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        loaded(model, odd(state, key), tmp_path)
    assert "\n" not in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("layers", "fits"), [(2, True), (3, True), (4, False)])
def test_a_tower_leaves_out_the_last_block_alone(layers, fits, tmp_path):
    file, model = tmp_path / "clip.pt", ClipTower(32, 2, 4, 64, patch_size=16, image_size=64)
    torch.save(written(ClipTower(32, layers, 4, 64, patch_size=16, image_size=64), clip.OPENAI), file)
    if fits:
        load_tower(model, file, "image")
        return
    with pytest.raises(MisfitError, match="layers 4 in the file, 2 in this backbone's image tower"):
        load_tower(model, file, "image")


@pytest.mark.parametrize("beside", ["ema.conv1.weight", "momentum.visual.class_embedding"])
def test_a_second_copy_of_a_tower_is_told(beside, tmp_path):
    tower = ClipTower(32, 2, 4, 64, patch_size=16, image_size=64)
    state = {f"visual.{name}": tensor for name, tensor in written(tower, clip.OPENAI).items()}
    torch.save(state | {beside: torch.ones(3, 3)}, tmp_path / "clip.pt")
    with pytest.raises(MisfitError, match=rf"unknown in the file: {beside}"):
        load_tower(tower, tmp_path / "clip.pt", "image")
