"""Which files `weights=` means.  Nothing of them is read but their bytes, and torch is not needed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path, PureWindowsPath

from vltune.errors import UserError
from vltune.signatures import HEAD
from vltune.streamed import once
from vltune.weights.forms import form, is_safetensors, plain

PACKAGE = "pkg://vltune/"
# As transformers and open_clip name a model's file; with INDEX, the list of a model's several files.
MODEL_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# What they, and open_clip, put beside it.
CONFIG, PREPROCESSOR, OPEN_CLIP_CONFIG = "config.json", "preprocessor_config.json", "open_clip_config.json"
PROCESSOR, OF_IMAGES = "processor_config.json", "image_processor"
"""What transformers 5 writes in the place of a preprocessor's file and reads before it, and the key of images in it."""
INDEX, IS_INDEX = ".index.json", re.compile(r"\.index(\.\w+)?\.json$")
SUFFIXES = (".bin", ".ckpt", ".json", ".pt", ".pth", ".safetensors")  # of files, which a hub name hardly ends with
# A text-to-image model in diffusers' layout: the list of its parts, and the folders of those with weights, by our names.
PIPELINE, WEIGHED = "model_index.json", {"unet": "unet", "text": "text_encoder", "vae": "vae"}
EXTRA = "vltune_extra.safetensors"
"""Beside what `vltune export --format merged` wrote for transformers, which has no place for it: the class token."""
PLAIN = ("scheduler", "tokenizer", "feature_extractor")  # folders without weights
PIPELINES = ("StableDiffusionPipeline", "StableDiffusionPipelineSafe", "StableDiffusionImg2ImgPipeline")
OTHER_PIPELINES = {"StableDiffusionXL": "SDXL", "Flux": "FLUX", "StableDiffusion3": "Stable Diffusion 3"}
PART_FILES = tuple(
    f"{name}{variant}{suffix}"
    for suffix, stem in ((".safetensors", "model"), (".bin", "pytorch_model"))
    for variant in ("", ".fp16")
    for name in ("diffusion_pytorch_model", stem)
)
NOTHING = ("none", "nil", "nan", "~")  # of other languages, where YAML has null
BOM = b"\xef\xbb\xbf"


def locate(weights: str) -> Path:
    """`pkg://vltune/...` is a file that comes with the package; anything else is a path."""
    if weights.startswith(PACKAGE):
        return Path(str(files("vltune").joinpath(weights.removeprefix(PACKAGE))))
    return Path(weights).expanduser()


def find(weights: str, source: str | None = None, setting: str = "weights") -> Path:
    """The file behind `weights=`: a file, a folder that holds one, or a hub name where there is a network.

    source: where the file comes from, to be told where it is missing.  setting: whose value `weights` is.  A model in
    several files is found by its index."""
    if not isinstance(weights, str) or not weights.strip() or weights.lower() in NOTHING:
        raise UserError(f"{setting}={weights}: must be a file, a folder or a hub name, or null to start at random")
    try:
        path = locate(weights)
        if path.is_dir():
            return checked(in_folder(path, setting))
        if path.is_file():
            return checked(path)
        is_hub_name = weights.count("/") == 1 and path.suffix not in SUFFIXES and not path.parent.exists()
    except (OSError, RuntimeError) as error:  # a folder that may not be looked into; a ~ of nobody
        raise UserError(f"{setting}={weights}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if "://" in weights and not weights.startswith(PACKAGE):
        raise UserError(f"{setting}={weights}: an address, no file; download it and give its path")
    if is_hub_name:
        return checked(from_hub(weights, setting))
    raise UserError(f"{setting}={weights}: {absent(path)}" + (f"; it comes from {source}" if source else ""))


def absent(path: Path) -> str:
    """What is wrong with a path of no file and no folder."""
    if path.exists():
        return "neither a file nor a folder"
    return f"a link to {path.readlink()}, which is not there" if path.is_symlink() else "no such file"


def checked(path: Path) -> Path:
    """The same.  UserError where it, or one of a model's several files, is no checkpoint."""
    for part in parts(path):
        form(part)
    return path


def in_folder(folder: Path, setting: str) -> Path:
    if (folder / PIPELINE).is_file():
        return folder / PIPELINE
    if (found := named_in(folder, MODEL_FILES)) is not None:
        return found
    if (folder / "unet").is_dir():
        raise UserError(f"{setting}={folder}: has a UNet and lacks {PIPELINE}; copy or download the whole model")
    others = sorted(file for file in folder.iterdir() if file.is_file() and is_safetensors(head(file)))
    if len(others) == 1:
        return others[0]
    some = ", ".join(file.name for file in others[:3])
    held = f"{len(others)} other safetensors files, {some}" if others else "no other safetensors file"
    raise UserError(f"{setting}={folder}: the folder holds none of {', '.join(MODEL_FILES)}, and {held}: name the file")


def named_in(folder: Path, names: Sequence[str]) -> Path | None:
    """The first file of these names, or of a list of several such files."""
    for file in (folder / each for name in names for each in in_one_or_several(name)):
        if file.is_file():
            return file
        if file.is_symlink():
            raise UserError(f"{file}: {absent(file)}; copy or download it")
    return None


def in_one_or_several(name: str) -> Iterator[str]:
    """A file's name, and those of a list of several in its place: of `model.fp16.safetensors`, a variant,
    `model.safetensors.index.fp16.json`."""
    yield from (name, name + INDEX)
    stem, *variant, suffix = name.split(".")
    if variant:
        yield f"{stem}.{suffix}.index.{variant[0]}.json"


def pipeline(path: Path) -> dict[str, Path]:
    """{`unet`, `text` and `vae`: the file of its weights} of a text-to-image model in diffusers' layout.

    path: its list of parts.  UserError where it is of another kind, or a part is missing."""
    try:
        kind = str(json.loads(path.read_bytes().removeprefix(BOM))["_class_name"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: no list of a pipeline's parts (_class_name); copy or download it again") from None
    if kind not in PIPELINES:
        other = next((name for start, name in OTHER_PIPELINES.items() if kind.startswith(start)), "another model")
        told = f"{other} ({plain(kind)}), which no backbone here reads"
        raise UserError(f"{path.parent}: {told}; backbone=stable_diffusion takes Stable Diffusion 1 and 2")
    found = {part: named_in(path.parent / folder, PART_FILES) for part, folder in WEIGHED.items()}
    if missing := [WEIGHED[part] for part, file in found.items() if file is None]:
        raise UserError(f"{path.parent}: holds no weights of {', '.join(missing)}; copy or download the whole model")
    return found


def left_aside(path: Path) -> list[str]:
    """The folders of such a model that no run uses, such as a safety checker."""
    used = {*WEIGHED.values(), *PLAIN}
    found = {each.name for each in path.parent.iterdir() if each.is_dir() and not each.name.startswith(".")}
    return sorted(found - used)


def from_hub(name: str, setting: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        for file in map(Path, MODEL_FILES):
            wanted = [file.name, file.name + INDEX, f"{file.stem}-*-of-*{file.suffix}"]
            beside = [CONFIG, PROCESSOR, PREPROCESSOR, OPEN_CLIP_CONFIG, EXTRA]
            folder = Path(snapshot_download(name, allow_patterns=[*wanted, *beside]))
            if any((folder / name).is_file() for name in wanted):
                break
        return in_folder(folder, setting)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{setting}={name}: neither a file here nor a model that the hub could give ({type(error).__name__}); "
            "download it where there is a network and give its path"
        ) from None


def index(path: Path) -> dict[str, str] | None:
    """{name of a tensor: the file that has it, beside this one}, of an index of a model in several files; None where the
    file is none, which its content tells: a hub's cache gives files other names."""
    if head(path).removeprefix(BOM).lstrip()[:1] != b"{":
        return None
    try:
        content = json.loads(path.read_bytes().removeprefix(BOM).decode(), object_pairs_hook=once)
        if "weight_map" not in content and not IS_INDEX.search(path.name):
            return None
        listed = content["weight_map"]
        odd = sorted(name for name in {*listed.values()} if not is_beside(name, path))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        if not IS_INDEX.search(path.name):
            return None
        raise UserError(f"{path}: no index of a model's files (weight_map); copy or download it again") from None
    if odd or not listed:
        named = ", ".join(plain(name) or '""' for name in odd[:3]) or "none"
        raise UserError(f"{path}: an index names files beside it, not {named}; copy or download it again")
    return listed


def is_beside(name: str, index: Path) -> bool:
    """Whether that can be another file of the index's folder, on any system."""
    return name not in ("", "..", index.name) and name == PureWindowsPath(name).name


def parts(path: Path) -> list[Path]:
    """The files that hold the tensors: the file itself, or those that an index names.  Raises where one is not there."""
    if path.name == PIPELINE:
        return [each for file in pipeline(path).values() for each in parts(file)]
    if (listed := index(path)) is None:
        return [path]
    named = [path.parent / name for name in sorted({*listed.values()})]
    try:
        missing = [plain(file.name) for file in named if not file.is_file()]
    except OSError as error:
        raise UserError(
            f"{path}: names files that cannot be read ({error.strerror}); copy or download it again"
        ) from None
    if missing:
        raise UserError(f"{path}: names files that are not beside it: {', '.join(missing[:3])}; copy or download them")
    return named


def fingerprint(path: Path) -> str:
    """SHA-256 of the file, or of the files of a model in several, and of the class token beside them, hexadecimal."""
    digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    for part in [*parts(path), *filter(Path.is_file, [path.parent / EXTRA])]:
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
