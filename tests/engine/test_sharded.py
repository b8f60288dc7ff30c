"""`engine.strategy=fsdp`: what `ddp` gives, from shares of each weight, and the same files; or a line that says no.

By two processes on a CPU, over gloo."""

import signal

import pytest
import tiny
import torch
from several import processes
from test_combinations import METHODS
from test_training import Examples, collate, settings
from torch import nn
from torch.distributed.tensor import DTensor

from vltune.engine import sharded
from vltune.engine.source import TrainingData
from vltune.engine.train import Training, train
from vltune.errors import UserError
from vltune.evaluators.evaluate import predictions
from vltune.experiment.setup import make_fabric
from vltune.methods.clip_adapter import ClipAdapter
from vltune.methods.coop import CoOp
from vltune.methods.dora import DoRA
from vltune.methods.full import Full
from vltune.methods.lora import ClipLoRA, LoRA
from vltune.methods.lst import LST
from vltune.methods.peft import Peft
from vltune.model import Model
from vltune.runs.signals import Interrupted, StopRequest
from vltune.settings.engine import Settings
from vltune.sites import Delta, PartSite
from vltune.tasks.vqa import VQA
from vltune.tuning import Method

SHARED = {"compacter": "2x2x2", "fact": "2x32", "das": "32"}  # what several blocks hold together


def make_model(method, dropout=0.1, backbone="vilt"):
    torch.manual_seed(0)
    if backbone == "clip":
        model = Model(tiny.clip(), tiny.classification(), method)
    else:
        wide = {"vilt": 1, "meter": 2}[backbone] * tiny.WIDTH
        model = Model(getattr(tiny, backbone)(dropout=dropout), VQA(wide, tiny.WIDTH, tiny.ANSWERS), method)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return model


def of_strategy(strategy):
    return lambda world: make_fabric(settings(devices=world, strategy=strategy))


class Scored(torch.utils.data.Dataset):
    def __init__(self, examples):
        self.examples = examples

    def __len__(self):
        return 5

    def __getitem__(self, number):
        return self.examples[number, 0]


def trained(fabric, path, model, stop_at=None, examples=None, **more):
    """Of a run: its losses, its tuned weights, its metrics and what it predicts then; of a stopped one its exit status."""
    chosen, validated = settings(eps=1e-4, **more), []  # a gradient of zero but for rounding moves nothing
    examples = examples or Examples()
    data = TrainingData(examples, collate, chosen.batch_size, seed=0, workers=0)

    def log(values, step):
        if step == stop_at:
            signal.raise_signal(signal.SIGTERM)

    def validate():
        validated.append([row["score"] for row in predictions(session, "val")])
        return float(len(validated))

    torch.manual_seed(1)
    with StopRequest() as stop:
        of_data = {"training": lambda: data, "split": lambda name: Scored(examples), "collate": collate}
        session = tiny.session(fabric, model, path, stop, settings=chosen, logger=tiny.Log(log), **of_data)
        try:
            done = train(session, validate)
        except Interrupted as stopped:
            return stopped.exit_code
        rows = predictions(session, "val")
    losses = [point["train/loss"] for point in done.history if "train/loss" in point]
    return losses, {name: tensor.tolist() for name, tensor in model.tuned_state().items()}, validated, rows


def run(path, strategy, method=LoRA, dropout=0.1, **more):
    def work(fabric):
        fabric.launch()
        return trained(fabric, path, make_model(method(), dropout), **more)

    return processes(work, make=of_strategy(strategy))


def close(found, expected):
    losses, tuned, *_ = found
    assert losses == pytest.approx(expected[0], rel=1e-3)
    assert tuned.keys() == expected[1].keys()
    for name, tensor in expected[1].items():
        torch.testing.assert_close(torch.tensor(tuned[name]), torch.tensor(tensor), atol=1e-3, rtol=1e-3, msg=name)
    return True


@pytest.mark.parametrize("method", [Full, LoRA])
@pytest.mark.parametrize(
    "more", [{}, {"clip": 0.5, "micro_batch_size": 2}, {"gradient_checkpointing": True}], ids=["", "parts", "again"]
)
def test_it_trains_what_whole_weights_train(tmp_path, method, more):
    expected, _ = run(tmp_path / "ddp", "ddp", method, **more)
    first, second = run(tmp_path / "fsdp", "fsdp", method, **more)
    assert close(first, expected) and first[:2] == second[:2]
    assert [row["prediction"] for row in first[3]] == [row["prediction"] for row in expected[3]]


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    straight, _ = run(tmp_path / "straight", "fsdp")
    assert run(tmp_path / "stopped", "fsdp", stop_at=5) == [128 + signal.SIGTERM] * 2
    first, second = run(tmp_path / "stopped", "fsdp")
    assert first[:2] == second[:2] == straight[:2]


@pytest.mark.parametrize(("before", "after"), [("fsdp", "ddp"), ("ddp", "fsdp")])
def test_either_goes_on_from_the_other_s_checkpoint(tmp_path, before, after):
    straight, _ = run(tmp_path / "straight", "ddp")
    run(tmp_path / "stopped", before, stop_at=5)
    content = torch.load(tmp_path / "stopped" / "last.pt", weights_only=True)
    tensors = [*content["model"].values(), *(each["exp_avg"] for each in content["optimiser"]["state"].values())]
    assert not [each for each in tensors if isinstance(each, DTensor)]
    assert close(run(tmp_path / "stopped", after)[0], straight)


def test_the_best_on_validation_is_kept(tmp_path):
    """Here the last of two, scored by weights that are whole again."""
    (_, tuned, validated, rows), second = run(tmp_path, "fsdp", select="best", max_steps=8)
    assert len(validated) == 2 and validated[-1] == [row["score"] for row in rows]
    assert second[1] == tuned


def test_each_process_holds_a_share_of_every_weight(tmp_path):
    def work(fabric):
        fabric.launch()
        model, chosen = make_model(Full()), settings()
        data = TrainingData(Examples(), collate, chosen.batch_size, seed=0, workers=0)
        session = tiny.session(fabric, model, tmp_path, StopRequest(), training=lambda: data, settings=chosen)
        training = Training(session, lambda: 0.0)
        training.step()
        held = [parameter.to_local().numel() for parameter in training.model.parameters()]
        means = [each["exp_avg"].to_local().numel() for each in training.optimiser.optimizer.state.values()]
        return sum(held), sum(means), sum(parameter.numel() for parameter in model.parameters())

    (first, of_first, whole), (second, of_second, _) = processes(work, make=of_strategy("fsdp"))
    assert first + second == of_first + of_second == whole
    assert first < 0.6 * whole


class Penalised(LoRA):
    def penalty(self, deltas):
        return deltas[0].up.weight.square().sum()


class Reads(Delta):
    def __init__(self, other):
        super().__init__()
        self._other, self.scale = (other,), nn.Parameter(torch.zeros(1))

    def around(self, part, x):
        return part(x) + self.scale * self._other[0].part.weight.sum()


class Outside(Method):
    """Reads a weight of the first block wherever it acts."""

    kinds, roles = (PartSite,), ("query",)

    def deltas(self, sites):
        return [Reads(sites[0]) for _ in sites]


class Closed(LoRA):
    """The same by a function, whose copy would read what is not trained."""

    def deltas(self, sites):
        made = super().deltas(sites)
        for delta in made:
            delta.around = lambda part, x: part(x) + 0 * sites[0].part.weight.sum()
        return made


PENALTY = "this method's penalty reads weights outside of their block; set engine.strategy=ddp"
OUTSIDE = "this method or backbone reads weights outside of their block; set engine.strategy=ddp"
CLOSED = "LowRank.around is a function of its own, which may hold weights; set engine.strategy=ddp"
COMPILED = "shards are not compiled; set engine.compile=false, or engine.strategy=ddp"
HOOKED = "has a hook on its gradient, which a copy loses; set engine.strategy=ddp"
NUMBER = "backbone.logit_scale is one number, and trained; set engine.strategy=ddp"


@pytest.mark.parametrize(
    ("method", "backbone", "more", "told"),
    [
        (Penalised, "vilt", {}, PENALTY),
        (Outside, "vilt", {}, OUTSIDE),
        (Closed, "vilt", {}, CLOSED),
        (LoRA, "vilt", {"compile": True}, COMPILED),
        (Full, "clip", {}, NUMBER),
    ],
)
def test_what_it_cannot_do_is_told_in_one_line(tmp_path, method, backbone, more, told):
    def work(fabric):
        fabric.launch()
        try:
            trained(fabric, tmp_path, make_model(method(), backbone=backbone), **more)
        except UserError as error:
            return str(error)

    assert processes(work, make=of_strategy("fsdp")) == [f"engine.strategy=fsdp: {told}"] * 2


def test_hooks_on_gradients_which_a_copy_loses_are_told():
    """PEFT's OSF projects gradients so."""
    with pytest.raises(UserError, match=rf"^engine.strategy=fsdp: .* {HOOKED}$"):
        sharded.copy_of(make_model(Peft("osf")), Settings(lr=1e-3))


class Square(Examples):
    """Images as towers take them."""

    def __getitem__(self, key):
        index, _ = key
        example = {name: value[0] for name, value in tiny.batch(tiny.SQUARE[:1], seed=index).items()}
        return example | {
            "ids": index,
            "answer_labels": [index % 4],
            "answer_scores": [1.0],
            "label": torch.tensor(index % 3),
        }


def in_towers():
    method = ClipLoRA(rank=2)
    method.sites_in = "towers"
    return method


# Blocks called in parts, weights in no block, one number that stays, and what begins by reading weights or data.
ELSEWHERE = {
    "meter": [Full, lambda: DoRA(rank=2), lambda: LST(head_width=4, side_heads=2)],
    "clip": [in_towers, ClipAdapter, lambda: CoOp(prompts=2)],
}


@pytest.mark.parametrize("backbone", ELSEWHERE)
def test_other_backbones_too(tmp_path, backbone):
    def work(fabric):
        fabric.launch()
        models = [make_model(make(), 0.0, backbone) for make in ELSEWHERE[backbone]]
        folder = tmp_path / str(fabric.world_size)
        return [
            trained(fabric, folder / str(n), model, examples=Square(), max_steps=4) for n, model in enumerate(models)
        ]

    first, second = processes(work, make=of_strategy("fsdp"))
    for one, other, expected in zip(first, second, work(make_fabric(settings())), strict=True):
        assert close(one, expected) and one[:2] == other[:2]


@pytest.fixture(scope="module")
def of_methods(tmp_path_factory):
    """{method: what two processes train of it, or what they say}"""
    folder = tmp_path_factory.mktemp("methods")

    def work(fabric):
        fabric.launch()
        found = {}
        for name, (make, *_) in METHODS.items():
            try:
                found[name] = trained(fabric, folder / name, make_model(make(), 0.0), max_steps=4)
            except UserError as error:
                found[name] = str(error)
        return found

    first, second = processes(work, make=of_strategy("fsdp"))
    assert first.keys() == second.keys()
    return first


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_so_or_is_refused_in_one_line(of_methods, tmp_path, name):
    found = of_methods[name]
    if name in SHARED:
        assert (
            found == f"engine.strategy=fsdp: several blocks share a parameter ({SHARED[name]}); set engine.strategy=ddp"
        )
        return
    fabric = make_fabric(settings())
    assert close(found, trained(fabric, tmp_path, make_model(METHODS[name][0](), 0.0), max_steps=4))
