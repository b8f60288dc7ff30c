"""`vltune classify` against transformers' CLIPModel and its processor, on random weights of odd sizes."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import clips
import numpy as np
import pytest
import torch
from composed import composed
from fabricated import fabricate
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

import vltune.data.tokenizer
from vltune.assemble.checkpoint import taken
from vltune.assemble.data import tokenizer
from vltune.assemble.model import build_pretrained
from vltune.assemble.weights import fingerprints_of
from vltune.cli import app
from vltune.data.collate import Collate
from vltune.data.transforms import SquareResize
from vltune.experiment import classify as classifying
from vltune.experiment.classify import BACKBONE, tell_oddities
from vltune.records import record as records
from vltune.weights.architecture import architecture
from vltune.weights.finding import find, locate

pytest.importorskip("transformers", reason="transformers, an oracle of the tests, is not installed")
CONF = Path(__file__).parents[2] / "conf"
MERGES = locate(BACKBONE["tokenizer"]["merges"])
SIZES = {
    "text": clips.TEXT | {"vocabulary_size": 49408, "positions": 77, "end_of_text": 49407},
    "image": clips.IMAGE,
    "dim": 20,
}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
CLASSES = ["cat", "a Sky-Lark", "traffic light", "dog"]


def words():
    """The vocabulary as transformers' tokenizer has it: {token: id}, merges."""
    merges = gzip.decompress(MERGES.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [*map(chr, printable), *(chr(256 + number) for number in range(len(others)))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    return {token: id for id, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}, merges


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as transformers saves one: model, tokenizer, image processor."""
    from transformers import CLIPImageProcessor

    folder = tmp_path_factory.mktemp("clip")
    clips.transformers_clip(SIZES).save_pretrained(folder)
    size = {"size": {"shortest_edge": 40}, "crop_size": {"height": 40, "width": 40}}
    CLIPImageProcessor(image_mean=MEAN, image_std=STD, **size).save_pretrained(folder)
    vocabulary, merges = words()
    clips.write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    files = []
    for number, (width, height) in enumerate(((60, 40), (40, 96), (120, 80), (40, 40))):
        values = noise.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        files.append(folder / f"{number}.png")
        Image.fromarray(values).resize((width, height)).save(files[-1])
    return files


def classify(*arguments):
    return CliRunner().invoke(app, ["classify", *map(str, arguments)])


def shares(result):
    assert result.exit_code == 0, result.output
    return torch.tensor([list(row["probabilities"].values()) for row in json.loads(result.stdout)])


def expected(folder, pictures, texts):
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(folder).eval()
    tokens = CLIPTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    images = CLIPImageProcessorPil.from_pretrained(folder)([Image.open(file) for file in pictures], return_tensors="pt")
    with torch.no_grad():
        return model(**tokens, pixel_values=images["pixel_values"]).logits_per_image.softmax(1)


needs_words = pytest.mark.skipif(
    not (MERGES.is_file() and hasattr(vltune.data.tokenizer, "ClipTokenizer")), reason="the vocabulary is not here"
)


@needs_words
@pytest.mark.parametrize("template", [None, "{} texture."])
def test_probabilities_are_transformers(template, folder, pictures, record_property):
    texts = [(template or "a photo of a {}.").replace("{}", name) for name in CLASSES]
    theirs = expected(folder, pictures, texts)
    more = [] if template is None else ["--template", template]
    ours = shares(classify("--weights", folder, "--image", *pictures, "--classes", ", ".join(CLASSES), "--json", *more))
    assert theirs.std() > 0.03
    record_property("largest difference", float((ours - theirs).abs().max()))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@needs_words
def test_other_layouts_give_the_same(folder, pictures, tmp_path):
    model = clips.transformers_clip(SIZES)
    torch.save(clips.openai_state(model), tmp_path / "open_clip_pytorch_model.bin")
    config = clips.open_clip_config(SIZES, quick_gelu=True)
    config["preprocess_cfg"] = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    clips.write_json(tmp_path / "open_clip_config.json", config)
    given = ("--image", pictures[0], "--classes", "cat,dog", "--json")
    file = tmp_path / "open_clip_pytorch_model.bin"
    torch.testing.assert_close(
        shares(classify("--weights", file, *given)), shares(classify("--weights", folder, *given)), atol=1e-6, rtol=0
    )


@needs_words
def test_the_table_tells_the_likeliest_first(folder, pictures):
    result = classify(
        "--weights", folder, "--image", pictures[0], "--image", pictures[1], "--classes", "cat,dog,skylark"
    )
    lines = result.stdout.splitlines()
    assert [lines[0], lines[4]] == [str(file) for file in pictures[:2]]
    numbers = [float(line.split()[-1]) for line in lines[1:4]]
    assert numbers == sorted(numbers, reverse=True)
    assert sum(numbers) == pytest.approx(1, abs=2e-4)
    assert len({len(line) for line in lines[1:4]}) == 1


@needs_words
def test_a_file_that_does_not_tell_its_activation(folder, pictures, tmp_path):
    wide = {
        "text": SIZES["text"] | {"width": 64, "heads": 1},
        "image": clips.IMAGE | {"width": 64, "heads": 1},
        "dim": 20,
    }
    model = clips.transformers_clip(wide)
    torch.save(clips.openai_state(model), tmp_path / "mine.pt")
    given = ("--image", pictures[0], "--classes", "cat,dog")
    refused = classify("--weights", tmp_path / "mine.pt", *given)
    assert refused.exit_code == 2
    assert (
        "nothing tells its activation: give --activation=quick_gelu (OpenAI's) or --activation=gelu" in refused.stderr
    )
    assert classify("--weights", tmp_path / "mine.pt", *given, "--activation", "gelu").exit_code == 0
    other = classify("--weights", folder, *given, "--activation", "gelu")
    assert "has QuickGELU (config.json), and --activation=gelu is GELU; give --activation=quick_gelu" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "a.png", "--classes", "cat"], "--weights: name a checkpoint of CLIP, or a record with --from"),
        (["--weights", "w", "--classes", "cat"], "--image: name an image"),
        (["--weights", "w", "--image", "a.png"], "--classes: name what the image may show"),
        (["--weights", "w", "--image", "a.png", "--classes", "cat,,dog"], "holds an empty name"),
        (["--weights", "w", "--image", "a.png", "--classes", " ,"], "holds an empty name"),
        (["--weights", "w", "--image", "a.png", "--classes", "cat, dog,cat"], "holds cat twice; leave one out"),
        (
            ["--weights", "w", "--image", "a.png", "--classes", "cat", "--template", "a photo"],
            "--template a photo: must hold {} once",
        ),
        (["--from", "r.json", "--image", "a.png", "--activation", "gelu"], "--activation gelu: the record says that"),
        (["--weights", "none.pt", "--image", "a.png", "--classes", "cat"], "weights=none.pt: no such file"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(arguments, message):
    result = classify(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@needs_words
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file; name an image"), (b"<html><body>", "no image but a web page"), (b"", "no image but")],
)
def test_a_bad_image_is_told(content, message, folder, tmp_path):
    file = tmp_path / "bad.jpg"
    if content is not None:
        file.write_bytes(content)
    result = classify("--weights", folder, "--image", file, "--classes", "cat,dog")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {file}: {message}")
    assert result.stderr.count("\n") == 1


def turned(file, form="JPEG"):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(file, form, exif=exif)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (turned, "its metadata turn it, and it is read as it is stored: turn it itself"),
        (lambda file: turned(file, "TIFF"), None),  # Pillow turns it
        (lambda file: Image.new("I;16", (8, 4)).save(file, "PNG"), "is of mode I;16, which is cut off at 255: store"),
        (lambda file: Image.new("L", (8, 4)).save(file, "PNG"), None),
        (
            lambda file: Image.new("RGBA", (8, 4), (0, 0, 0, 254)).save(file, "PNG"),
            "is partly transparent, and the colours underneath are read: fill it yourself",
        ),
        (lambda file: Image.new("RGBA", (8, 4), (0, 0, 0, 255)).save(file, "PNG"), None),
        (lambda file: Image.new("P", (8, 4)).save(file, "PNG", transparency=0), "is partly transparent"),
    ],
)
def test_an_image_that_is_read_otherwise_than_one_sees_it_is_told(make, told, tmp_path, capsys):
    make(tmp_path / "image")
    tell_oddities(tmp_path / "image", (tmp_path / "image").read_bytes())
    said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path / 'image'}: {told}") if told else said == ""


def record(folder, method, tmp_path, *more):
    """Of a finished run of that method, with what it tuned beside it, and the model."""
    overrides = [
        "backbone=clip",
        "backbone.model=checkpoint",
        f"weights={folder}",
        "task=classification",
        "dataset=shapes",
        f"dataset.data_dir={tmp_path / 'nothing'}",
    ]
    overrides += [f"method={method}", f"backbone.tokenizer.merges={MERGES}", "engine.max_steps=1", *more]
    chosen = composed(*overrides)
    backbone = taken(chosen["backbone"], architecture(find(str(folder))))
    facts = {"classes": CLASSES, "templates": ["a {}."], "tokenizer": tokenizer(backbone)}
    model = build_pretrained(str(folder), backbone, chosen["task"], chosen["method"], facts)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape))
    prints = {"weights": fingerprints_of({"backbone": find(str(folder))}), "data": "as it was"}
    config = chosen | {"backbone": backbone}
    named = fabricate(config=config, fingerprints=prints, backbone="clip", task="classification", method=method)
    file = records.write(named | {"metrics": {"val": None, "test": {}}, "scores": []}, tmp_path)
    save_file(model.tuned_state(), file.with_suffix(".safetensors"))
    return file, model.eval()


@needs_words
@pytest.mark.parametrize("method", ["coop", "clip_lora"])
def test_a_record_is_classified_by_as_it_was_tuned(method, folder, pictures, tmp_path):
    file, model = record(folder, method, tmp_path)
    given = ("--image", *pictures, "--json", "--classes", ",".join(CLASSES), "--template", "a {}.")
    found = shares(classify("--from", file, *given))
    images = [SquareResize(40, MEAN, STD).read(picture.read_bytes()) for picture in pictures]
    batch = Collate(0, MEAN, STD)([{"id": 0, "image": image} for image in images])
    with torch.no_grad():
        torch.testing.assert_close(found, model(batch).softmax(1), atol=1e-5, rtol=0)
    assert (found - shares(classify("--weights", folder, *given))).abs().max() > 0.01


@needs_words
def test_what_a_record_lacks_is_told(folder, pictures, tmp_path):
    file, _ = record(folder, "coop", tmp_path)
    given = ("--from", file, "--image", pictures[0])
    told = "its classes and template stand in its data, which cannot be read ("
    assert told in one_line(classify(*given))
    assert told in one_line(classify(*given, "--classes", "cat,dog"))
    clips.transformers_clip(SIZES | {"dim": 24}).save_pretrained(tmp_path / "other")
    other = one_line(classify(*given, "--classes", "cat", "--template", "{}", "--weights", tmp_path / "other"))
    assert "was made with other weights than" in other
    file.with_suffix(".safetensors").unlink()
    gone = one_line(classify(*given, "--classes", "cat", "--template", "{}"))
    assert "the tuned parameters of this record are not here" in gone


@needs_words
@pytest.mark.parametrize("classifier", ["linear", "text"])
@pytest.mark.parametrize("fingerprint", ["as it was", "another"])
def test_rows_of_a_run_s_own_stand_for_the_classes_of_its_own_data_alone(
    classifier, fingerprint, folder, pictures, tmp_path, monkeypatch
):
    """Where the folder holds other data now, a name would be told for another."""
    method = {"linear": "linear_probe", "text": "coop"}[classifier]
    file, _ = record(folder, method, tmp_path, f"task.classifier={classifier}", "task.protocol=full")

    def now(config):
        facts = {"classes": sorted(CLASSES), "templates": ["a {}."], "tokenizer": tokenizer(config.backbone)}
        return SimpleNamespace(facts=facts, fingerprint=fingerprint)

    monkeypatch.setattr(classifying, "open_data", now)
    result = classify("--from", file, "--image", pictures[0])
    if classifier == "text" or fingerprint == "as it was":
        assert result.exit_code == 0, result.output
    else:
        told = one_line(result)
        assert f"{file}: the order of its classes stands in the data that it was tuned on, and {tmp_path}/noth" in told
        assert "now holds another (its fingerprint differs): put back what was there" in told


@needs_words
def test_where_rows_of_a_run_s_own_stand_for_classes_its_data_is_to_be_put_back(folder, pictures, tmp_path):
    """No --classes are taken in its place."""
    file, _ = record(folder, "linear_probe", tmp_path, "task.classifier=linear", "task.protocol=full")
    told = one_line(classify("--from", file, "--image", pictures[0]))
    assert "its classes and template stand in its data, which cannot be read (" in told
    assert f"; put that back at {tmp_path / 'nothing'}" in told
    assert "--classes" not in told


def test_a_record_of_another_task_is_told(pictures, tmp_path):
    file = records.write(fabricate(config={"backbone": {"name": "vilt"}, "task": {"name": "vqa"}}), tmp_path)
    told = one_line(classify("--from", file, "--image", pictures[0]))
    assert told == f"error: {file}: is of task=vqa; --from takes a record of image classification\n"


def one_line(result):
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr
