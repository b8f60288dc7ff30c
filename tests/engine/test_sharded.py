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

from vltune.engine.source import TrainingData
from vltune.engine.train import Training, train
from vltune.errors import UserError
from vltune.evaluators.evaluate import predictions
from vltune.experiment.setup import make_fabric
from vltune.methods.full import Full
from vltune.methods.lora import LoRA
from vltune.model import Model
from vltune.runs.signals import Interrupted, StopRequest
from vltune.tasks.vqa import VQA

REFUSED = {  # method -> what is said of it
    "compacter": "several blocks share a parameter (2x2x2)",
}


def make_model(method, dropout=0.1):
    torch.manual_seed(0)
    model = Model(tiny.vilt(dropout=dropout), VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), method)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return model


def of_strategy(strategy):
    return lambda world: make_fabric(settings(devices=world, strategy=strategy))


def trained(fabric, path, model, stop_at=None, **more):
    """Of a run: its losses, its tuned weights, its metrics and what it predicts then; of a stopped one its exit status."""
    chosen, validated = settings(eps=1e-4, **more), []  # a gradient of zero but for rounding moves nothing
    data = TrainingData(Examples(), collate, chosen.batch_size, seed=0, workers=0)

    def log(values, step):
        if step == stop_at:
            signal.raise_signal(signal.SIGTERM)

    def validate():
        validated.append([row["score"] for row in predictions(session, "val")])
        return float(len(validated))

    torch.manual_seed(1)
    with StopRequest() as stop:
        of_data = {"training": lambda: data, "split": lambda name: Scored(), "collate": collate}
        session = tiny.session(fabric, model, path, stop, settings=chosen, logger=tiny.Log(log), **of_data)
        try:
            done = train(session, validate)
        except Interrupted as stopped:
            return stopped.exit_code
        rows = predictions(session, "val")
    losses = [point["train/loss"] for point in done.history if "train/loss" in point]
    return losses, {name: tensor.tolist() for name, tensor in model.tuned_state().items()}, validated, rows


class Scored(Examples):
    def __len__(self):
        return 5

    def __getitem__(self, number):
        return super().__getitem__((number, 0))


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
    if name in REFUSED:
        assert found == f"engine.strategy=fsdp: {REFUSED[name]}; set engine.strategy=ddp"
        return
    fabric = make_fabric(settings())
    assert close(found, trained(fabric, tmp_path, make_model(METHODS[name][0](), 0.0), max_steps=4))
