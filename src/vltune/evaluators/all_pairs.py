"""The score of every image with every caption of a split, with nothing computed twice.

What follows from an image or a caption alone is computed once; a pair computes only what depends on both.  Batches hold
pairs of one caption length and one number of image tokens, so that padding is neither computed nor masked.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import Dataset

from vltune.atomic import replacing
from vltune.backbones.backbone import Encoded
from vltune.batch import Batch
from vltune.engine.session import Session
from vltune.engine.source import loader
from vltune.evaluators.evaluator import Evaluator
from vltune.model import Model
from vltune.runs.progress import Progress

# What a stopped run loses at most, and what is computed together whatever of it is there: in other company, kernels may
# round otherwise.
IMAGES_PER_BLOCK = 8


class Pairs(Protocol):
    images: Dataset  # of dicts with `id`, its number, and `image`
    captions: Dataset  # of dicts with `id`, its number, and `text_ids`
    owner: np.ndarray  # (captions,) int64, the number of each caption's image

    def token_ids(self, caption: int) -> list[int]: ...


class AllPairs(Evaluator):
    """Ranks by the task's `score` of every pair; the task's `rows` are made of the whole matrix."""

    whole_splits = True

    def check(self) -> None:
        check_folds(self.session)

    def predict(self, split: str, dataset: Pairs) -> list[dict]:
        scores = self.matrix(split, dataset)
        if not self.session.fabric.is_global_zero:
            return []
        return self.session.model.task.rows(
            scores, dataset.owner, range(len(dataset.images)), range(len(dataset.captions))
        )

    def matrix(self, split: str, dataset: Pairs) -> Tensor:
        """-> (images, captions) float32 on the CPU, the same in every process; -inf for an image that cannot be read.

        Finished rows are kept in the session's folder, 4 bytes a pair, and a stopped run goes on from them.
        The captions' encodings stay in the device's memory, 8 bytes a token and channel where the backbone has two
        streams: 2 GB for 25,000 captions at METER's size, and 16 times as much with 200 prompts in each.
        """
        session, fabric, model = self.session, self.session.fabric, self.session.model
        model.eval()
        texts = [dataset.token_ids(i) for i in range(len(dataset.captions))]
        images, belongs = len(dataset.images), fingerprint(fabric, model, texts)
        matrix = open_matrix(fabric, session.folder / f"{split}.scores", (images, len(texts)), belongs)
        missing = missing_blocks(matrix.finished())
        fabric.barrier()  # every process shares out the same blocks, before any row is written
        blocks = missing[fabric.global_rank :: fabric.world_size]
        done = (images - sum(map(len, missing))) * len(texts)
        total = done + sum(map(len, blocks)) * len(texts)
        progress = Progress(self.label(split), total, done, "pair", fabric.is_global_zero)
        with closing(progress), model.settled():
            captions = self.encode_captions(dataset.captions, texts)
            for batch in loader(
                dataset.images, session.data.collate, session.settings.workers, IMAGES_PER_BLOCK, batch_sampler=blocks
            ):
                session.bad.note(batch)
                if batch["ids"]:
                    scores = self.score_block(batch, captions, progress)
                    self.check_numbers(split, scores)
                    matrix.keep(batch["ids"], scores.cpu().numpy())
                session.stop.check(fabric)
            most = math.ceil(len(missing) / fabric.world_size)
            for _ in range(most - len(blocks)):  # a process with a block fewer is asked as often
                session.stop.check(fabric)
        fabric.barrier()
        return matrix.whole()

    def encode_captions(self, captions: Dataset, texts: Sequence[Sequence[int]]) -> list[tuple[Tensor, Encoded]]:
        """Captions in batches of equal length: their numbers, and what follows from them alone.

        Every process encodes all of them: that is little beside its pairs, and nothing has to be sent."""
        session, encoded = self.session, []
        fabric, size = session.fabric, session.data.eval_batch_size
        batches = equal_lengths(texts, size)
        for batch in loader(captions, session.data.collate, session.settings.workers, size, batch_sampler=batches):
            with fabric.autocast():
                ((_, tokens),) = without_padding(session.model.backbone.encode_text(session.to_device(batch)))
            encoded.append((torch.tensor(batch["ids"], device=fabric.device), tokens))
            session.stop.check(fabric)
        return encoded

    def score_block(self, batch: Batch, captions: list[tuple[Tensor, Encoded]], progress: Progress) -> Tensor:
        """-> (images of the batch, captions)"""
        fabric, model = self.session.fabric, self.session.model
        block = torch.empty(len(batch["ids"]), sum(len(numbers) for numbers, _ in captions), device=fabric.device)
        with fabric.autocast():
            images = model.backbone.encode_image(self.session.to_device(batch))
            for count in fill(block, model, images, captions, self.session.data.eval_batch_size):
                progress.step(count)
                if fabric.world_size == 1:
                    self.session.stop.check()
        return block


def check_folds(session: Session) -> None:
    """UserError where a split that is to be scored cannot be cut into the task's folds."""
    for split in session.settings.evaluate:
        if (dataset := session.data.split(split)) is not None:
            session.model.task.check_folds(len(dataset.images))


def missing_blocks(finished: np.ndarray) -> list[list[int]]:
    """The numbers of images in blocks, of which one at least has a row that is missing.  finished: (images,) bool"""
    every = np.arange(len(finished))
    missing = np.unique(every[~finished] // IMAGES_PER_BLOCK)
    return [every[every // IMAGES_PER_BLOCK == number].tolist() for number in missing]


def fill(
    block: Tensor, model: Model, images: Encoded, captions: list[tuple[Tensor, Encoded]], pairs_per_batch: int
) -> Iterator[int]:
    """Writes the scores of a block of images with all captions to `block` (images, captions); after each batch it yields
    how many pairs that held."""
    for rows, image in without_padding(images):
        for columns, text in captions:
            pairs = torch.arange(len(rows) * len(columns), device=block.device)
            for chosen in pairs.split(pairs_per_batch):
                i, j = chosen // len(columns), chosen % len(columns)
                block[rows[i], columns[j]] = model.task.score(model.backbone.fuse(text[j], image[i])).float()
                yield len(chosen)


def without_padding(encoded: Encoded) -> Iterator[tuple[Tensor, Encoded]]:
    """Groups of examples with equally many tokens: their places, and their tokens alone, with no mask.

    It is the mask that tells, not a length: a method's tokens come after the padding."""
    if encoded.mask is None:
        yield torch.arange(len(encoded), device=encoded.tokens.device), encoded
        return
    counts = encoded.mask.sum(1)
    for count in counts.unique().tolist():
        rows = (counts == count).nonzero()[:, 0]
        real = encoded.mask[rows]
        tokens, attended = (
            None if part is None else part[rows][real].unflatten(0, (-1, count))
            for part in (encoded.tokens, encoded.attended)
        )
        grid = None if encoded.grid is None else encoded.grid[rows].kept(real)
        yield rows, Encoded(tokens, None, attended, grid)


def equal_lengths(texts: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """The numbers of all texts, in batches of at most `size` texts of one length."""
    shortest_first = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    groups = [list(group) for _, group in groupby(shortest_first, key=lambda i: len(texts[i]))]
    return [group[i : i + size] for group in groups for i in range(0, len(group), size)]


class ScoreMatrix:
    """Rows of scores in a file that the processes of a run share.

    With each goes a digest of its scores, its number and what it belongs to: one of another model or of other data, one
    half written or damaged counts as missing.
    """

    def __init__(self, file: Path, shape: tuple[int, int], belongs: bytes):
        images, captions = shape
        self.rows, self.belongs = np.memmap(file, row_type(captions), "r+", shape=(images,)), belongs

    def digest(self, number: int, scores: np.ndarray) -> np.ndarray:
        digest = hashlib.blake2b(scores.tobytes(), digest_size=16, key=self.belongs, salt=number.to_bytes(8, "little"))
        return np.frombuffer(digest.digest(), np.uint8)

    def finished(self) -> np.ndarray:
        """(images,) bool"""
        return np.array([(row["digest"] == self.digest(i, row["scores"])).all() for i, row in enumerate(self.rows)])

    def keep(self, numbers: Sequence[int], scores: np.ndarray) -> None:
        for number, row in zip(numbers, scores, strict=True):
            self.rows[number] = row, self.digest(number, row)
        self.rows.flush()

    def whole(self) -> Tensor:
        return torch.from_numpy(np.where(self.finished()[:, None], self.rows["scores"], np.float32(-np.inf)))


def row_type(captions: int) -> np.dtype:
    return np.dtype([("scores", np.float32, (captions,)), ("digest", np.uint8, (16,))])


def open_matrix(fabric: Fabric, file: Path, shape: tuple[int, int], belongs: bytes) -> ScoreMatrix:
    """The rows in `file`, which is made anew where there is none of this size.  shape: (images, captions)"""
    images, captions = shape
    size = images * row_type(captions).itemsize
    if fabric.is_global_zero and not (file.is_file() and file.stat().st_size == size):
        # Written out, so that it is now that a full disk is told.
        with replacing(file) as temporary:
            np.zeros(images, row_type(captions)).tofile(temporary)
    fabric.barrier()
    return ScoreMatrix(file, shape, belongs)


def fingerprint(fabric: Fabric, model: Model, texts: Sequence[Sequence[int]]) -> bytes:
    """What scores follow from beside the images, which one file has always the same of: parameters, texts, precision."""
    device = fabric.device.type
    with fabric.autocast():
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    digest = hashlib.sha256(json.dumps([list(map(list, texts)), str(autocast)]).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.digest()
