"""Every image with every caption: the same scores as pair by pair, whatever stops, breaks or shares the work."""

import itertools
import signal

import numpy as np
import pytest
import tiny
import torch
from lightning_fabric import Fabric

from vltune.data.collate import Collate
from vltune.errors import BadExampleError, UserError
from vltune.evaluators import all_pairs
from vltune.evaluators.all_pairs import AllPairs
from vltune.evaluators.evaluate import check_splits
from vltune.methods.adapter import Adapter
from vltune.methods.apt import APT
from vltune.methods.classifier_only import ClassifierOnly
from vltune.methods.deep_prompt import DeepPrompt
from vltune.methods.full import Full
from vltune.methods.lora import LoRA
from vltune.methods.scaled_pa import ScaledParallelAdapter
from vltune.methods.shallow_prompt import ShallowPrompt
from vltune.model import Model
from vltune.runs.signals import Interrupted, StopRequest
from vltune.tasks.retrieval import Retrieval

METHODS = {
    "full": Full,
    "classifier_only": ClassifierOnly,
    "shallow_prompt": lambda: ShallowPrompt(prompts=3),
    "deep_prompt": lambda: DeepPrompt(prompts=3),
    "lora": lambda: LoRA(rank=2),
    "adapter": lambda: Adapter(bottleneck=4),
    "scaled_pa": lambda: ScaledParallelAdapter(bottleneck=4),
    "apt": lambda: APT(prompts=5, rank=2),
}
SIZES = {"vilt": ((64, 80), (48, 64), (64, 64), (48, 64), (32, 96)), "meter": ((64, 64),) * 5}
LENGTHS = (5, 12, 7, 5, 9, 7, 5)


BACKBONES = {"vilt": tiny.vilt, "meter": tiny.meter}


class Images(torch.utils.data.Dataset):
    """broken: the number of one that cannot be read."""

    def __init__(self, sizes, broken=None):
        generator = torch.Generator().manual_seed(1)
        self.images = [torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
        self.broken, self.read = broken, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.read.append(i)
        return {"bad": f"row {i}: truncated"} if i == self.broken else {"id": i, "image": self.images[i]}


class Captions(torch.utils.data.Dataset):
    def __len__(self):
        return len(LENGTHS)

    def __getitem__(self, i):
        generator = torch.Generator().manual_seed(100 + i)
        return {"id": i, "text_ids": torch.randint(2, tiny.VOCABULARY, (LENGTHS[i],), generator=generator).tolist()}


class Split:
    def __init__(self, backbone, broken=None):
        self.images, self.captions = Images(SIZES[backbone], broken), Captions()

    def token_ids(self, caption):
        return self.captions[caption]["text_ids"]


COLLATE = Collate(pad_id=0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def make_model(backbone="vilt", method="lora", seed=0):
    """Every parameter is moved from where it starts, a method's zeros too, so that pairs differ."""
    model = Model(BACKBONES[backbone](), Retrieval(BACKBONES[backbone]().pooled_width), METHODS[method]())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@torch.no_grad()
def run(path, model, split, stop_at=None, allowed=0, precision="32-true", fabric=None):
    """stop_at: raises the flag of a signal once an image's number is read."""
    fabric = fabric or Fabric(accelerator="cpu", devices=1, precision=precision)
    with StopRequest() as stop:

        def stopping(examples):
            if stop_at is not None and stop_at in [example.get("id") for example in examples if "image" in example]:
                signal.raise_signal(signal.SIGTERM)
            return COLLATE(examples)

        more = {"collate": stopping, "eval_batch_size": 3, "allowed": allowed}
        return AllPairs(tiny.session(fabric, model, path, stop, **more)).matrix("test", split)


@torch.no_grad()
def pair_by_pair(model, split):
    scores = [
        model.task.score(model.backbone(COLLATE([image]) | COLLATE([caption])))
        for image, caption in itertools.product(map(split.images.__getitem__, range(5)), split.captions)
    ]
    return torch.cat(scores).view(5, -1)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(all_pairs, "IMAGES_PER_BLOCK", 2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_scores_are_those_of_one_pair_after_the_other(tmp_path, backbone, method):
    model, split = make_model(backbone, method), Split(backbone)
    expected = pair_by_pair(model, split)
    of_the_pair = expected - expected.mean(0) - expected.mean(1, keepdim=True) + expected.mean()
    assert of_the_pair.std() > 1e-3
    torch.testing.assert_close(run(tmp_path, model, split), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_tower_runs_once_and_no_pair_is_padded(tmp_path, backbone, monkeypatch):
    model, split = make_model(backbone, "shallow_prompt"), Split(backbone)
    encoded = {"text": 0, "image": 0, "pairs": 0}

    def counting(name, what, key):
        def call(*arguments):
            result = what(*arguments)
            encoded[key] += len(result) if name != "fuse" else len(result.pooled)
            assert name != "fuse" or (arguments[0].mask is None and arguments[1].mask is None)
            return result

        monkeypatch.setattr(model.backbone, name, call)

    counting("encode_text", model.backbone.encode_text, "text")
    counting("encode_image", model.backbone.encode_image, "image")
    counting("fuse", model.backbone.fuse, "pairs")
    run(tmp_path, model, split)
    assert encoded == {"text": 7, "image": 5, "pairs": 35}


def test_padding_is_told_by_the_mask_for_prompts_come_after_it():
    model = make_model("meter", "shallow_prompt")
    ids, mask = tiny.texts((12, 7, 9, 7))
    encoded = model.backbone.encode_text({"text_ids": ids, "text_mask": mask})
    groups = [(rows.tolist(), part) for rows, part in all_pairs.without_padding(encoded)]
    assert [rows for rows, _ in groups] == [[1, 3], [2], [0]]
    for rows, part in groups:
        length = int(mask[rows[0]].sum())
        alone = model.backbone.encode_text({"text_ids": ids[rows, :length], "text_mask": mask[rows, :length]})
        assert part.mask is None
        torch.testing.assert_close(part.tokens, alone.tokens, atol=1e-6, rtol=0)
        torch.testing.assert_close(part.attended, alone.attended, atol=1e-5, rtol=0)


def test_a_stopped_run_computes_only_what_is_missing(tmp_path):
    model, split = make_model(), Split("vilt")
    expected = run(tmp_path / "straight", model, split)
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", model, split, stop_at=2)
    split.images.read.clear()
    assert torch.equal(run(tmp_path / "stopped", model, split), expected)
    assert split.images.read == [2, 3, 4]
    split.images.read.clear()
    assert torch.equal(run(tmp_path / "stopped", model, split), expected)
    assert split.images.read == []


def of_another_model(file):
    run(file.parent, make_model(seed=1), Split("vilt"))


def of_other_captions(file):
    split = Split("vilt")
    split.captions = [*itertools.islice(split.captions, 6), {"id": 6, "text_ids": [5, 6, 7, 8, 9]}]
    run(file.parent, make_model(), split)


def in_another_precision(file):
    run(file.parent, make_model(), Split("vilt"), precision="bf16-mixed")


def truncated(file):
    file.write_bytes(file.read_bytes()[:-1])


def of_something_else(file):
    file.write_text("notes")


@pytest.mark.parametrize(
    "wrong", [of_another_model, of_other_captions, in_another_precision, truncated, of_something_else]
)
def test_a_wrong_file_is_started_over(tmp_path, wrong):
    model, split = make_model(), Split("vilt")
    expected = run(tmp_path, model, split)
    wrong(tmp_path / "test.scores")
    split.images.read.clear()
    assert torch.equal(run(tmp_path, model, split), expected)
    assert split.images.read == [0, 1, 2, 3, 4]


def test_a_damaged_row_is_computed_again(tmp_path):
    model, split = make_model(), Split("vilt")
    expected = run(tmp_path, model, split)
    file = tmp_path / "test.scores"
    content = np.fromfile(file, np.uint8)
    content[len(content) * 3 // 5 + 2] ^= 1  # in the scores of image 3
    content.tofile(file)
    split.images.read.clear()
    assert torch.equal(run(tmp_path, model, split), expected)
    assert split.images.read == [2, 3], "in the company that it had before, whose kernels may round otherwise"


def test_an_image_that_cannot_be_read_shifts_no_row(tmp_path):
    model = make_model()
    expected = run(tmp_path / "all", model, Split("vilt"))
    with pytest.raises(BadExampleError, match="row 2: truncated"):
        run(tmp_path / "one", model, Split("vilt", broken=2))
    scores = run(tmp_path / "one", model, Split("vilt", broken=2), allowed=1)
    assert (scores[2] == -torch.inf).all()
    torch.testing.assert_close(scores[[0, 1, 3, 4]], expected[[0, 1, 3, 4]], atol=1e-6, rtol=0)


def test_scores_that_are_no_numbers_are_told(tmp_path):
    model = make_model()
    model.task.head.bias.data.fill_(torch.nan)
    with pytest.raises(UserError, match=r"test: a score is not a number.*engine\.lr"):
        run(tmp_path, model, Split("vilt"))


def test_more_folds_than_images_are_told_before_training(tmp_path):
    model = make_model()
    fabric = Fabric(accelerator="cpu", devices=1)
    of = tiny.session(fabric, model, tmp_path, StopRequest(), split=lambda name: Split("vilt"), collate=COLLATE)
    model.task.folds = 5
    check_splits(of, "retrieval")
    model.task.folds = 6
    with pytest.raises(UserError, match=r"^task\.folds=6 exceeds the 5 images of the split; make it smaller$"):
        check_splits(of, "retrieval")


def test_two_processes_give_the_same_matrix(tmp_path):
    expected = run(tmp_path / "alone", make_model(), Split("vilt"))
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_fork")
    fabric.launch(shared_run, tmp_path)
    shares = []
    for rank in range(2):
        scores, read = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(scores, expected)
        shares += read
    assert sorted(shares) == [0, 1, 2, 3, 4]


def shared_run(fabric, path):
    split = Split("vilt")
    scores = run(path / "together", make_model(), split, fabric=fabric)
    torch.save((scores, split.images.read), path / f"{fabric.global_rank}.pt")
