"""What frozen towers make of images and texts: computed once and kept for every method, seed and run.

Price: METER at 384 px takes 1.8 MB an image and 3 kB a token in float32, half of it in bfloat16; every run begins with
hashing its images and reading through what is kept, about a second a gigabyte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vltune.backbones.backbone import Backbone
from vltune.batch import Batch
from vltune.data.reader import Reader
from vltune.engine.precision import multiplied_in
from vltune.engine.session import Session
from vltune.engine.source import loader
from vltune.features.store import Store, raw
from vltune.images import UnreadableImageError
from vltune.runs.progress import Progress
from vltune.runs.signals import StopRequest
from vltune.runs.together import ALONE, Processes, is_shared, largest, told

FILE_BYTES = 2**32  # of one file: what a stopped build, or damage, loses at most
# Images or texts that a tower takes at a time, always the same ones of a reader together, whatever of them is there: in
# other company, kernels may round otherwise.
BLOCK = 32


Blocks = dict[tuple[bytes, ...], set[bytes]]
"""Keys that a tower takes together, each with those of them that are wanted."""


@torch.no_grad()
def attach(session: Session, readers: Sequence[Reader]) -> list[str]:
    """Gives the readers stored features of each modality whose tower neither trains nor holds a tuned site, of images only
    where none is augmented, of texts only where the backbone reads them; computes what is not there.  Returns the
    modalities.

    readers: all of one transform.  The backbone moves to fabric's device and precision, as `fabric.setup` moves it.
    Of runs that start together one computes and the others wait.  Its processes share the work where all of them see one
    folder; else each machine's first computes all for that machine.  Raises Interrupted where the session is asked to
    stop, after which finished files stay; UserError where the disk has no room.
    """
    fabric, model, backbone = session.fabric, session.model, session.model.backbone
    if not readers:
        return []
    towers = {name: parts for name, parts in backbone.towers().items() if not any(map(model.trains, parts))}
    if any(reader.transform.augments for reader in readers):
        towers.pop("image", None)
    if all(reader.text_column is None for reader in readers) or backbone.offers("embed_text"):  # which reads ids
        towers.pop("text", None)
    if not towers:
        return []
    precision, training = fabric.strategy.precision, backbone.training
    precision.convert_module(backbone).to(fabric.device).eval()
    inputs, stores = {}, {}
    for name, parts in towers.items():
        asked = inputs[name] = INPUTS[name](session, readers)
        with fabric.autocast():
            probe = torch.stack(asked.features(backbone, fabric.to_device(asked.probe()))).cpu()
        about = {"modality": name, "tower": digest(parts), "precision": precision.precision, **asked.about()}
        stores[name] = Store(Path(session.settings.features_dir), about, probe)
        fill(stores[name], asked, session)
    backbone.train(training)
    for number, reader in enumerate(readers):
        keys = inputs["image"].keys[number] if "image" in inputs else None
        reader.features = Stored(stores.get("image"), keys, stores.get("text"))
    return list(stores)


def digest(parts: Sequence[nn.Module], precision: str = "32-true") -> str:
    """SHA-256 of the names and bytes of all weights, of what autocast casts as it is multiplied, whoever holds it cast."""
    sha, modules = sha256(), nn.ModuleList(parts)
    cast = {id(parameter): dtype for parameter, dtype in multiplied_in(modules, precision)}
    for name, tensor in modules.state_dict(keep_vars=True).items():
        tensor = tensor.detach().to(cast.get(id(tensor), tensor.dtype))
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        sha.update(raw(tensor))
    return sha.hexdigest()


class Stored:
    """A reader's `features`.  keys: (pictures, images of each, 32) uint8, or None without `images`."""

    def __init__(self, images: Store | None, keys: np.ndarray | None, texts: Store | None):
        self.images, self.keys, self.texts = images, keys, texts

    def image(self, picture: int, which: int) -> Tensor | None:
        return None if self.images is None else self.images.get(self.keys[picture, which].tobytes())

    def text(self, ids: Sequence[int]) -> Tensor | None:
        return None if self.texts is None else self.texts.get(text_key(ids))


def fill(store: Store, inputs: ImageInputs | TextInputs, session: Session) -> None:
    """Makes the store hold all of `inputs` that can be read."""
    whole = not store.load() and store.row.keys() >= inputs.where.keys()
    if all(told(session.fabric, whole)):
        return
    processes = session.fabric if is_shared(session.fabric, store.folder) else ALONE
    if processes is ALONE and whole:
        return
    with locked(store, session.stop, processes):
        if processes.global_rank == 0:
            store.clean()
        store.take(told(processes, store.names())[0])
        blocks: Blocks = {}
        wanted = inputs.where.keys() - store.row.keys()
        needed, what = size(store, inputs, wanted), f"{len(wanted):,} {inputs.name}s"
        for block in inputs.blocks():
            if here := wanted & set(block):
                blocks[block] = here
                wanted -= here
        store.check_room(needed, what)
        session.stop.check(processes)  # before one of them takes of that room
        for names in told(processes, write(store, inputs, blocks, session, processes)):
            store.take(names)


@contextmanager
def locked(store: Store, stop: StopRequest, processes: Processes) -> Iterator[None]:
    """The store is these processes' alone: the first locks it, and the others wait for that."""

    def meet(entered: bool = False) -> bool:
        stop.check(processes)
        return any(largest(processes, entered))

    if processes.global_rank == 0:
        with store.locked(meet):
            meet(entered=True)
            yield
    else:
        while not meet():
            pass
        yield


def write(
    store: Store, inputs: ImageInputs | TextInputs, blocks: Blocks, session: Session, processes: Processes
) -> list[str]:
    """This process's share of the blocks; the names of the files that it wrote."""
    rank, world = processes.global_rank, processes.world_size
    own, names = [*blocks.items()][rank::world], []
    file = np.cumsum([size(store, inputs, here) for _, here in own], dtype=int) // FILE_BYTES
    count, share = sum(len(here) for _, here in own), f"{inputs.name} features"
    with closing(Progress(share, count, unit=inputs.name, show=rank == 0)) as progress:
        for number in np.unique(file):
            of_file = {block: here for (block, here), place in zip(own, file, strict=True) if place == number}
            names.append(store.write(compute(inputs, of_file, session, progress, processes)))
        for _ in range(len([*blocks][::world]) - len(own)):  # a process with a block fewer is asked as often
            session.stop.check(processes)
    return [name for name in names if name is not None]


def size(store: Store, inputs: ImageInputs | TextInputs, keys: Iterable[bytes]) -> int:
    """Bytes that their features take."""
    return sum(inputs.tokens(key, store.probe_tokens) for key in keys) * store.width * store.dtype.itemsize


def compute(
    inputs: ImageInputs | TextInputs, blocks: Blocks, session: Session, progress: Progress, processes: Processes
) -> Iterator[tuple[list[bytes], list[Tensor]]]:
    """The wanted ones of each block."""
    fabric, backbone = session.fabric, session.model.backbone
    for (block, wanted), batch in zip(blocks.items(), inputs.batches(list(blocks)), strict=True):
        session.stop.check(processes)
        if batch["ids"]:
            with fabric.autocast():
                features = inputs.features(backbone, fabric.to_device(batch))
            found = [(block[i], each) for i, each in zip(batch["ids"], features, strict=True) if block[i] in wanted]
            yield [key for key, _ in found], [each for _, each in found]
        progress.step(len(wanted))


def in_blocks(keys: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    """Each key once, in that order."""
    distinct = list(dict.fromkeys(keys))
    return (tuple(distinct[start : start + BLOCK]) for start in range(0, len(distinct), BLOCK))


class ImageInputs:
    """The distinct images of some readers.  keys: of each reader, (pictures, images of each, 32) uint8."""

    name = "image"

    def __init__(self, session: Session, readers: Sequence[Reader]):
        self.transform, self.collate = readers[0].transform, session.data.collate
        self.workers = session.settings.workers
        self.keys: list[np.ndarray] = []
        self.where: dict[bytes, tuple[Reader, int, int]] = {}
        for reader in readers:
            keys = np.empty((reader.pictures(), len(reader.image_columns), 32), np.uint8)
            for picture, which in np.ndindex(keys.shape[:2]):
                session.stop.check()
                key = sha256(reader.content(picture, which)).digest()
                keys[picture, which] = np.frombuffer(key, np.uint8)
                self.where.setdefault(key, (reader, picture, which))
            self.keys.append(keys)

    def about(self) -> dict[str, str]:
        apart = "decode", "augment"  # the first is in `decoder`, and what is augmented is not kept
        settings = {name: value for name, value in vars(self.transform).items() if name[0] != "_" and name not in apart}
        return {"transform": f"{type(self.transform).__name__} {settings}", "decoder": self.transform.decoder}

    def probe(self) -> dict:
        width, height = self.transform.size(64, 64)
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (4, 3, height, width), dtype=torch.uint8, generator=generator)
        return self.collate([{"id": i, "image": image} for i, image in enumerate(pixels)])

    def tokens(self, key: bytes, of_probe: int) -> int:
        return of_probe

    def blocks(self) -> Iterator[tuple[bytes, ...]]:
        for keys in self.keys:
            yield from in_blocks(key.tobytes() for key in keys.reshape(-1, keys.shape[-1]))

    def batches(self, blocks: list[tuple[bytes, ...]]) -> Iterator[dict]:
        """Of each block; `ids` are places in it."""
        pixels = Pixels([(self.where[key], place) for block in blocks for place, key in enumerate(block)])
        batches = [range(*edges) for edges in pairwise(accumulate(map(len, blocks), initial=0))]
        return iter(loader(pixels, self.collate, self.workers, BLOCK, batch_sampler=batches))

    def features(self, backbone: Backbone, batch: Batch) -> list[Tensor]:
        return list(backbone.image_features(batch["image"]))


class Pixels(Dataset):
    """`images[i]`, (reader, picture, which) and an id, as `{"id": ..., "image": ...}`, never augmented, or `{"bad": ...}`
    where it cannot be decoded: the reader finds no features then, and says so itself."""

    def __init__(self, images: list[tuple[tuple[Reader, int, int], int]]):
        self.images = images

    @property
    def example_bytes(self) -> int:
        return self.images[0][0][0].example_bytes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> dict[str, Any]:
        (reader, picture, which), id = self.images[number]
        try:
            return {"id": id, "image": reader.transform.read(reader.content(picture, which))}
        except UnreadableImageError as error:
            return {"bad": str(error)}


class TextInputs:
    """The distinct texts of some readers."""

    name = "text"

    def __init__(self, session: Session, readers: Sequence[Reader]):
        self.collate = session.data.collate
        self.where: dict[bytes, list[int]] = {}
        self.keys: list[list[bytes]] = []
        for reader in readers:
            self.keys.append([])
            for ids in reader.texts():
                session.stop.check()
                self.keys[-1].append(key := text_key(ids))
                self.where.setdefault(key, ids)

    def about(self) -> dict[str, str]:
        return {}

    def probe(self) -> dict:
        return self.collate([{"id": 0, "text_ids": list(range(16))}])

    def tokens(self, key: bytes, of_probe: int) -> int:
        return len(self.where[key])

    def blocks(self) -> Iterator[tuple[bytes, ...]]:
        """Of texts of similar length."""
        for keys in self.keys:
            yield from in_blocks(sorted(keys, key=lambda key: len(self.where[key])))

    def batches(self, blocks: list[tuple[bytes, ...]]) -> Iterator[dict]:
        """Of each block; `ids` are places in it."""
        for block in blocks:
            yield self.collate([{"id": place, "text_ids": self.where[key]} for place, key in enumerate(block)])

    def features(self, backbone: Backbone, batch: Batch) -> list[Tensor]:
        features = backbone.text_features(batch["text_ids"], batch["text_mask"])
        return [each[:length] for each, length in zip(features, batch["text_mask"].sum(1).tolist(), strict=True)]


INPUTS = {"image": ImageInputs, "text": TextInputs}


def text_key(ids: Sequence[int]) -> bytes:
    return sha256(np.asarray(ids, "<i4").tobytes()).digest()
