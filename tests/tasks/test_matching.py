"""Retrieval by two towers: the loss of a batch's pairs, and every image with every caption by one product."""

from itertools import chain, product

import numpy as np
import pytest
import tiny
import torch
from lightning_fabric import Fabric
from several import processes
from test_contrastive import by_hand

from vltune.data.collate import Collate
from vltune.errors import BadExampleError, UserError
from vltune.evaluators.one_product import OneProduct
from vltune.methods.apt import APT
from vltune.methods.cocoop import CoCoOp
from vltune.methods.coop import CoOp
from vltune.methods.full import Full
from vltune.model import Model
from vltune.runs.signals import StopRequest
from vltune.tasks.matching import Matching

OWNER = np.array([0, 1, 1, 2, 3, 4, 4])
COLLATE = Collate(0, [0.5] * 3, [0.5] * 3)
METHODS = {"full": Full, "apt": lambda: APT(prompts=3, rank=2), "cocoop": lambda: CoCoOp(prompts=2)}


class Split:
    """Images of noise and captions of random tokens, each with its end.  broken: an image that cannot be read."""

    owner = OWNER

    def __init__(self, size, end, broken=None):
        draw = torch.Generator().manual_seed(3)
        pixels = torch.randint(256, (5, 3, size, size), dtype=torch.uint8, generator=draw)
        self.images = [{"id": number, "image": image} for number, image in enumerate(pixels)]
        if broken is not None:
            self.images[broken] = {"bad": f"row {broken}: truncated"}
        texts = (torch.randint(1, end, (3 + number % 3,), generator=draw).tolist() for number in range(len(OWNER)))
        self.captions = [{"id": number, "text_ids": [*ids, end]} for number, ids in enumerate(texts)]

    def token_ids(self, number):
        return self.captions[number]["text_ids"]


def model(method):
    torch.manual_seed(0)
    backbone, tuned = tiny.clip(), METHODS[method]()
    tuned.sites_in = "text" if method == "cocoop" else "towers"
    built = Model(backbone, Matching(backbone.pooled_width, tiny.Words()), tuned)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return built


def evaluator(built, folder, **more):
    fabric = Fabric(accelerator="cpu", devices=1)
    return OneProduct(tiny.session(fabric, built, folder, StopRequest(), collate=COLLATE, **more))


def split_of(built, **more):
    return Split(64, built.backbone.text.end_of_text, **more)


def test_captions_of_one_image_are_all_its_own():
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    index = [7, 2, 7, 5]
    true = torch.tensor([[one == other for other in index] for one in index])
    found = Matching(4).loss(logits, {"image_index": index})
    assert found.item() == pytest.approx(by_hand(logits, true), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_product_is_pair_by_pair(method, tmp_path):
    built = model(method)
    split = split_of(built)
    rows = evaluator(built, tmp_path).predict("test", split)
    pairs = torch.empty(len(split.images), len(OWNER))
    with torch.no_grad():
        for i, j in product(range(len(split.images)), range(len(OWNER))):
            batch = COLLATE([{"id": 0, "image": split.images[i]["image"], "text_ids": split.token_ids(j)}])
            pairs[i, j] = built.eval()(batch)
    by_image = [row for row in rows if row["target"] == "caption"]
    assert [row["prediction"] for row in by_image] == [f"caption {best}" for best in pairs.argmax(1).tolist()]
    assert [row["prediction"] for row in rows if row["target"] == "image"] == [
        f"image {best}" for best in pairs.argmax(0).tolist()
    ]
    scores = evaluator(built, tmp_path).scores("test", split, [split.token_ids(j) for j in range(len(OWNER))])
    found = dict(chain(*scores))
    torch.testing.assert_close(torch.stack([found[i] for i in range(5)]), pairs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", [CoOp, CoCoOp])
def test_captions_are_cut_to_the_room_that_prompts_leave(method, tmp_path):
    """As a tokenizer cuts: five tokens are left of 30, the end among them.  The same in training and evaluation."""
    backbone, tuned = tiny.clip(), method(prompts=25)
    tuned.sites_in = "text"
    built = Model(backbone, Matching(backbone.pooled_width, tiny.Words()), tuned).eval()
    split, end = split_of(built), backbone.text.end_of_text
    split.captions[1]["text_ids"] = [*range(1, 8), end]
    cut = [[*ids[:4], end] if len(ids) > 5 else ids for ids in map(split.token_ids, range(len(OWNER)))]
    assert cut[1] == [1, 2, 3, 4, end] and split.token_ids(0) in cut

    def logits(texts):
        images = (each["image"] for each in chain(split.images, split.images[:2]))
        return built(COLLATE([{"id": 0, "image": i, "text_ids": t} for i, t in zip(images, texts, strict=True)]))

    whole = [split.token_ids(number) for number in range(len(OWNER))]
    with torch.no_grad():
        assert torch.equal(logits(whole), logits(cut))
    found, expected = (dict(chain(*evaluator(built, tmp_path).scores("test", split, of))) for of in (whole, cut))
    assert all(torch.equal(found[number], expected[number]) for number in range(5))


def test_prompts_that_leave_no_room_for_a_caption_are_told():
    backbone, tuned = tiny.clip(), CoOp(prompts=28)
    tuned.sites_in = "text"
    built = Model(backbone, Matching(backbone.pooled_width, tiny.Words()), tuned)
    ids = torch.tensor([[1, 2, 3, backbone.text.end_of_text]])
    with pytest.raises(UserError, match="a text of 32 tokens, 28 of them prompts, exceeds the 30 positions"):
        built({"image": torch.zeros(1, 3, 64, 64), "text_ids": ids})


def test_two_processes_give_the_same_rows(tmp_path):
    built = model("full")

    def work(fabric):
        fabric.launch()
        more = {"collate": COLLATE, "allowed": 1}
        one = OneProduct(tiny.session(fabric, built, tmp_path, StopRequest(), **more))
        with torch.no_grad():
            return one.predict("test", split_of(built, broken=1))

    assert processes(work) == [work(Fabric(accelerator="cpu", devices=1)), []]


def test_an_image_that_cannot_be_read_is_retrieved_by_nothing(tmp_path):
    built = model("full")
    split = split_of(built, broken=1)
    with pytest.raises(BadExampleError, match="row 1: truncated"):
        evaluator(built, tmp_path).predict("test", split)
    rows = evaluator(built, tmp_path, allowed=1).predict("test", split)
    assert [row["score"] for row in rows if row["target"] == "image"][1:3] == [1 / 5] * 2


def test_scores_that_are_no_numbers_are_told(tmp_path):
    built = model("full")
    torch.nn.init.constant_(built.backbone.text_projection.weight, torch.nan)
    with pytest.raises(UserError, match=r"^test: a score is not a number: the training diverged, lower engine\.lr$"):
        evaluator(built, tmp_path).predict("test", split_of(built))


def test_more_folds_than_images_are_told_before_training(tmp_path):
    built = model("full")
    built.task.folds = 6
    with pytest.raises(UserError, match=r"^task\.folds=6 exceeds the 5 images of the split"):
        evaluator(built, tmp_path, split=lambda name: split_of(built)).check()
