"""The loop: schedule, accumulation, resuming bit for bit, choosing a checkpoint, what ends a run."""

import itertools
import math
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from lightning_fabric import Fabric
from torch import nn

from vltune.engine import memory, seen
from vltune.engine.optimiser import adamw, parameter_groups, schedule
from vltune.engine.order import MicroBatches, Order, accumulation_steps
from vltune.engine.source import BadExamples, TrainingData
from vltune.engine.train import Training, TrainingState, failure, train
from vltune.errors import BadExampleError, UserError
from vltune.methods.lora import LoRA
from vltune.model import Model
from vltune.nn import attend
from vltune.runs.signals import Interrupted, StopRequest
from vltune.settings.engine import Settings
from vltune.tasks.vqa import VQA


class Examples(torch.utils.data.Dataset):
    """48 examples, each with its own image."""

    def __len__(self):
        return 48

    def __getitem__(self, key):
        index, _ = key
        example = {name: value[0] for name, value in tiny.batch(((64, 80),), seed=index).items()}
        return example | {"ids": index, "answer_labels": [index % 4], "answer_scores": [1.0]}


def collate(examples):
    columns = {key: [example[key] for example in examples] for key in examples[0]}
    return {key: torch.stack(column) if torch.is_tensor(column[0]) else column for key, column in columns.items()}


def make_model(method=None, dropout=0.1):
    torch.manual_seed(0)
    backbone = tiny.vilt(dropout=dropout)
    return Model(backbone, VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), method or LoRA(rank=2))


def settings(**more):
    return Settings(**{"lr": 1e-2, "batch_size": 8, "max_steps": 12, "accelerator": "cpu", **more})


def run(path, stop_at=None, model=None, validate=None, allowed=0, data_takes=None, **more):
    """Trains; `stop_at`: raises the flag of a signal once that step has been logged.  data_takes: examples of a step, where
    they are fewer than asked for."""
    chosen = settings(**more)
    fabric = Fabric(accelerator="cpu", devices=1)
    model = model or make_model()
    torch.manual_seed(1)
    with StopRequest() as stop:

        def log(values, step):
            if step == stop_at:
                signal.raise_signal(signal.SIGTERM)

        lengths = np.arange(48) % 7 if chosen.group_by_length else None
        data = TrainingData(Examples(), collate, data_takes or chosen.batch_size, seed=0, workers=0, lengths=lengths)
        more = {
            "training": lambda: data,
            "settings": chosen,
            "logger": tiny.Log(log),
            "label": "test",
            "allowed": allowed,
        }
        trained = train(tiny.session(fabric, model, path, stop, **more), validate or (lambda: 0.0))
    return model, trained


def test_schedule_is_warm_up_then_linear_decay_to_zero():
    factor = schedule("linear", 0.1, 100)
    assert [factor(step) for step in (0, 5, 10, 55, 99, 100)] == pytest.approx([0, 0.5, 1, 0.5, 1 / 90, 0])


def test_or_stays():
    factor = schedule("constant", 0.1, 100)
    assert [factor(step) for step in (5, 10, 50, 99)] == [0.5, 1, 1, 1]


def test_or_a_half_wave_of_a_cosine():
    factor = schedule("cosine", 0.1, 100)
    third = (1 + math.cos(math.pi / 3)) / 2
    assert [factor(step) for step in (0, 5, 10, 40, 55, 70, 100)] == pytest.approx(
        [0, 0.5, 1, third, 0.5, 1 - third, 0]
    )


def test_lone_numbers_do_not_decay():
    model = nn.Linear(2, 3)
    model.scale = nn.Parameter(torch.tensor(2.0))
    found = parameter_groups(model, [(1.0, ())], 0.05)
    assert {id(p): group["weight_decay"] for group in found for p in group["params"]} == {
        id(model.weight): 0.05,
        id(model.bias): 0.0,
        id(model.scale): 0.0,
    }


def test_norms_of_groups_do_not_decay_either():
    found = parameter_groups(nn.GroupNorm(1, 2), [(1.0, ())], 0.05)
    assert [group["weight_decay"] for group in found] == [0.0]


def test_of_two_rates_for_a_parameter_the_first_counts():
    model = nn.Linear(2, 3, bias=False)
    found = parameter_groups(model, [(0.5, [model.weight]), (2.0, [model.weight]), (1.0, ())], 0.0)
    assert [group["lr"] for group in found] == [0.5]


def test_each_step_is_told_to_the_method_and_logged_with_the_rate_that_it_took(tmp_path, monkeypatch):
    told, model = [], make_model()
    monkeypatch.setattr(model.tuning, "at", lambda step, total: told.append((step, total)))
    _, trained = run(tmp_path, model=model, warmup=0.5, schedule="linear")
    assert told == [(step, 12) for step in range(12)]
    factors = [step / 6 if step < 6 else (12 - step) / 6 for step in range(12)]
    assert [point["train/lr"] for point in trained.history] == pytest.approx([1e-2 * factor for factor in factors])
    assert [point["step"] for point in trained.history] == [*range(1, 13)]


@pytest.mark.parametrize("micro_batch_size", [8, 4, 2])
def test_accumulation_changes_neither_the_schedule_nor_the_gradient(tmp_path, micro_batch_size):
    """ViLT issue 19: a schedule counted in micro-batches ends too early."""
    whole, reference = run(tmp_path / "whole", model=without_dropout())
    parts, trained = run(tmp_path / "parts", micro_batch_size=micro_batch_size, model=without_dropout())
    assert [point["train/lr"] for point in trained.history] == [point["train/lr"] for point in reference.history]
    assert trained.step == 12
    for (name, a), b in zip(parts.tuned_state().items(), whole.tuned_state().values(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-2, msg=name)


def without_dropout():
    model = make_model()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


class Few(Examples):
    def __len__(self):
        return 3


def test_where_there_are_fewer_examples_than_a_batch_a_step_takes_as_many_as_the_data_says(tmp_path):
    data = TrainingData(Few(), collate, 3, seed=0, workers=0)
    chosen = settings(batch_size=8, max_steps=2)
    with StopRequest() as stop:
        more = {
            "training": lambda: data,
            "settings": chosen,
            "logger": tiny.Log(print),
            "label": "test",
        }
        session = tiny.session(Fabric(accelerator="cpu", devices=1), make_model(), tmp_path, stop, **more)
        assert train(session, lambda: 0.0).step == 2


@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_a_stopped_run_resumes_bit_for_bit(tmp_path, stop_at):
    """Dropout, shuffling and the optimiser's state are all in it; 12 steps are two epochs."""
    straight, expected = run(tmp_path / "straight")
    with pytest.raises(Interrupted) as stop:
        run(tmp_path / "stopped", stop_at=stop_at)
    assert stop.value.exit_code == 128 + signal.SIGTERM
    resumed, trained = run(tmp_path / "stopped")
    assert trained.history == expected.history
    for (name, a), b in zip(resumed.tuned_state().items(), straight.tuned_state().values(), strict=True):
        assert torch.equal(a, b), name


class Crowded(Model):
    """Needs more memory than there is for more than `room` examples."""

    room = 2

    def forward(self, batch):
        if len(batch["image"]) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(batch)


def crowded(room):
    model = without_dropout()
    model.__class__, model.room = Crowded, room
    return model


def test_out_of_memory_halves_the_micro_batch_and_gives_the_same(tmp_path, capsys):
    expected, reference = run(tmp_path / "roomy", model=without_dropout())
    model, trained = run(tmp_path / "crowded", model=crowded(room=3))
    assert trained.halved == [{"step": 1, "micro_batch": 4}, {"step": 1, "micro_batch": 2}]
    assert "out of memory, going on with 2 examples at a time" in capsys.readouterr().err
    assert [point["train/loss"] for point in trained.history] == pytest.approx(
        [point["train/loss"] for point in reference.history], rel=1e-3
    )
    for (name, a), b in zip(model.tuned_state().items(), expected.tuned_state().values(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-2, msg=name)


def test_a_resumed_run_keeps_the_micro_batch_that_fitted(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, stop_at=5, model=crowded(room=4))
    _, trained = run(tmp_path, model=crowded(room=4))
    assert trained.halved == [{"step": 1, "micro_batch": 4}]
    assert trained.step == 12


def counted(model):
    """-> how many examples each forward pass takes, as it takes them."""
    sizes, forward = [], model.forward
    model.forward = lambda batch: sizes.append(len(batch["image"])) or forward(batch)
    return sizes


def test_parts_divide_the_batch_that_few_examples_leave(tmp_path):
    """Nobody typed that."""
    sizes = counted(model := make_model())
    run(tmp_path, model=model, data_takes=30, batch_size=64, micro_batch_size=16, max_steps=1)
    assert sizes == [15, 15]


def test_parts_divide_the_share_of_a_device_where_they_were_halved_on_fewer(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, stop_at=1, model=crowded(room=6), batch_size=24, max_steps=2)
    sizes = counted(model := make_model())
    run(tmp_path, model=model, data_takes=8, batch_size=24, max_steps=2)
    assert sizes == [4, 4]


def test_no_memory_for_one_example_is_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"out of memory at step 1 with 1 examples at a time: lower"):
        run(tmp_path, model=crowded(room=0))


def test_a_batch_that_is_computed_as_a_whole_is_never_halved(tmp_path):
    model = crowded(room=3)
    model.task.whole_batches = True
    told = (
        r"out of memory at step 1 with 8 examples at a time: lower engine\.batch_size, which is computed as a whole, so"
    )
    with pytest.raises(UserError, match=told):
        run(tmp_path, model=model)


def test_a_look_at_the_training_examples_that_does_not_fit_names_what_to_lower(tmp_path):
    def look(backbone, batches):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    model = make_model()
    model.task.looks_at_data, model.task.look = True, look
    with pytest.raises(UserError, match=r"^test: out of memory with engine\.eval_batch_size=2: lower it and give"):
        run(tmp_path, model=model)


def test_another_error_of_the_model_is_not_taken_for_that(tmp_path):
    model = make_model()
    model.forward = lambda batch: torch.ones(2, 3) @ torch.ones(2, 3)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run(tmp_path, model=model)


def test_a_run_with_batches_grouped_by_length_resumes_in_the_middle_of_an_epoch(tmp_path):
    straight, expected = run(tmp_path / "straight", group_by_length=True)
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", stop_at=8, group_by_length=True)
    resumed, trained = run(tmp_path / "stopped", group_by_length=True)
    assert trained.history == expected.history
    assert trained.history != run(tmp_path / "shuffled")[1].history
    for (name, a), b in zip(resumed.tuned_state().items(), straight.tuned_state().values(), strict=True):
        assert torch.equal(a, b), name


def test_what_is_frozen_stays_as_it_was(tmp_path):
    model = make_model()
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    trained = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
    run(tmp_path, model=model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, (frozen | trained)[name]) == (name in frozen), name


def test_best_keeps_the_best_on_validation(tmp_path):
    scores = itertools.count(5, -1)
    states = []
    model = make_model()

    def validate():
        states.append({name: p.clone() for name, p in model.tuned_state().items()})
        return float(next(scores))

    _, trained = run(tmp_path, model=model, validate=validate, select="best")
    assert trained.best["metric"] == 5.0
    assert trained.best["step"] == 6
    for name, tensor in model.tuned_state().items():
        assert torch.equal(tensor, states[0][name]), name


@pytest.mark.parametrize(("every", "at"), [(1, [6, 12, 18]), (2, [12, 18]), (5, [18])])
def test_it_is_scored_each_so_many_epochs_and_at_the_end_and_of_equals_the_first_is_kept(every, at, tmp_path):
    _, trained = run(tmp_path, validate=lambda: 3.0, select="best", val_every=every, max_steps=18)
    assert [point["step"] for point in trained.history if "val/vqa_score" in point] == at
    assert trained.best["step"] == at[0]


def test_a_run_stopped_while_it_validates_validates_again(tmp_path):
    def scores(*values):
        values = iter(values)

        def validate():
            value = next(values)
            if value is None:
                raise Interrupted(signal.SIGTERM)
            return value

        return validate

    straight, expected = run(tmp_path / "straight", validate=scores(3.0, 2.0), select="best")
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", validate=scores(None), select="best")
    resumed, trained = run(tmp_path / "stopped", validate=scores(3.0, 2.0), select="best")
    assert trained.history == expected.history
    assert trained.best["step"] == expected.best["step"] == 6
    for (name, a), b in zip(resumed.tuned_state().items(), straight.tuned_state().values(), strict=True):
        assert torch.equal(a, b), name


def test_what_ends_a_validation_loses_no_step(tmp_path):
    def validate():
        with memory.evaluating("test, val", 2):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    _, expected = run(tmp_path / "straight", validate=lambda: 3.0, select="best")
    with pytest.raises(UserError, match="it goes on from what is trained"):
        run(tmp_path / "ended", validate=validate, select="best")
    assert torch.load(tmp_path / "ended" / "last.pt")["training"]["step"] == 6
    _, trained = run(tmp_path / "ended", validate=lambda: 3.0, select="best")
    assert trained.history == expected.history


def test_an_image_that_ends_a_validation_may_be_repaired(tmp_path):
    """A checkpoint would hold it as seen, and the same command would end again."""

    def validate():
        raise BadExampleError("shard row 7: broken")

    with pytest.raises(BadExampleError):
        run(tmp_path, validate=validate, select="best")
    assert not (tmp_path / "last.pt").exists()


def test_rates_and_decay_by_identity():
    model = make_model()
    pooler = list(model.backbone.pooler.parameters())
    groups = parameter_groups(model, [(10.0, model.head_parameters), (5.0, pooler), (1.0, [])], weight_decay=0.01)
    of = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert of[id(model.task.head[0].weight)] == (10.0, 0.01)
    assert of[id(model.task.head[0].bias)] == (10.0, 0.0)
    assert of[id(model.task.head[1].weight)] == (10.0, 0.0)
    assert of[id(model.method_parameters[0])] == (1.0, 0.01)
    assert of[id(model.backbone.pooler.dense.bias)] == (5.0, 0.0)
    assert len(of) == sum(p.requires_grad for p in model.parameters())


def test_what_is_trained_at_the_fusion_rate():
    """METER's fusion layers, projections and poolers, and the methods' parameters there; not towers and token types."""
    model = Model(tiny.meter(), VQA(2 * tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), LoRA(rank=2))
    multiplied = {id(parameter) for parameter in model.fusion_parameters}
    assert {id(parameter) for parameter in model.method_parameters} <= multiplied
    assert id(model.backbone.text_pooler.dense.weight) in multiplied
    assert id(model.backbone.text_projection.weight) in multiplied
    assert not multiplied & {id(parameter) for parameter in model.backbone.text.parameters()}
    assert not multiplied & {id(model.backbone.token_type.weight), id(model.backbone.class_token)}


def test_order_is_a_permutation_of_each_epoch_and_starts_anywhere():
    order = Order(20, 4, seed=3)
    steps = list(order.steps(0, 10))
    first, second = ([i for step in steps[k : k + 5] for i, _ in step] for k in (0, 5))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert list(order.steps(7, 10)) == steps[7:]
    assert len({seed for step in steps for _, seed in step}) == 40
    assert list(Order(20, 4, seed=4).steps(0, 1)) != steps[:1]


LENGTHS = np.random.default_rng(0).integers(3, 40, 4100).astype(np.int16)


def padded(step):
    lengths = LENGTHS[[example for example, _ in step]]
    return len(step) * int(lengths.max()) - int(lengths.sum())


def test_grouping_by_length_reads_every_example_once_and_pads_little():
    grouped, shuffled = Order(4100, 20, 3, LENGTHS), Order(4100, 20, 3)
    first, second = (list(grouped.steps(epoch * 205, (epoch + 1) * 205)) for epoch in (0, 1))
    for epoch in (first, second):
        assert sorted(example for step in epoch for example, _ in step) == list(range(4100))
    assert first != second
    assert list(Order(4100, 20, 3, LENGTHS).steps(190, 220)) == first[190:] + second[:15]
    plain = list(shuffled.steps(0, 205))
    assert sum(map(padded, first)) < 0.1 * sum(map(padded, plain))
    assert {pair for step in first for pair in step} == {pair for step in plain for pair in step}


def test_batches_grouped_by_length_come_in_random_order():
    means = [LENGTHS[[example for example, _ in step]].mean() for step in Order(4100, 20, 3, LENGTHS).steps(0, 205)]
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.25
    assert abs(np.corrcoef(means, range(205))[0, 1]) < 0.25


def test_processes_share_a_step_without_overlap():
    order = Order(24, 8, seed=0)
    shares = [list(MicroBatches(order, 0, 3, 2, rank, 2)) for rank in (0, 1)]
    for step, whole in enumerate(order.steps(0, 3)):
        seen = [pair for share in shares for micro in share[2 * step : 2 * step + 2] for pair in micro]
        assert sorted(seen) == sorted(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "engine.batch_size=0"),
        ({"micro_batch_size": 3}, "engine.micro_batch_size=3: must be at least 1 and divide the 8 examples"),
        ({"micro_batch_size": -8}, "engine.micro_batch_size=-8"),
        ({"batch_size": 64}, "engine.batch_size=64 exceeds the 48 training examples"),
        ({"max_steps": 0}, "engine.max_steps=0"),
        ({"select": "first"}, "engine.select=first: must be one of last, best"),
        ({"evaluate": ["train"]}, "engine.evaluate=[train]: must be a list of val, test, or [] for none"),
        ({"evaluate": "val"}, "engine.evaluate=val: must be a list"),
        ({"betas": [0.9]}, "engine.betas=[0.9]: must be a list of 2, each a number from 0 to below 1"),
        ({"threads": 0}, "engine.threads=0: must be a whole number from 1 to 1024, or null"),
        ({"checkpoint_seconds": "x"}, "engine.checkpoint_seconds=x: must be a number"),
        ({"accelerator": "tpuu"}, "engine.accelerator=tpuu: must be one of auto, cpu, gpu"),
        ({"batch_size": True}, "engine.batch_size=true: must be a whole number of at least 1"),
        ({"workers": -1}, "engine.workers=-1: must be a whole number from 0 to 1024, or null for as many as suit"),
        ({"group_by_length": "yes"}, "engine.group_by_length=yes: must be true or false"),
        ({"lr": "fast"}, "engine.lr=fast: must be a number"),
        ({"lr": float("nan")}, "engine.lr=nan"),
        (
            {"lr": 1e30},
            "the loss is nan at step 3 with the rate 9.09091e+29 (engine.lr=1e+30), in a batch of the examples",
        ),
        ({"eps": 0}, "engine.eps=0: must be a number above 0"),
        ({"clip": 0}, "engine.clip=0: must be a number above 0, or null for no clipping"),
        ({"max_steps": 10**30}, ": must be a whole number of at least 1, or null to train engine.epochs, at most 9007"),
        ({"precision": "half"}, "engine.precision=half: must be one of auto, 32-true, bf16-mixed"),
    ],
)
def test_wrong_settings_are_told_in_one_line(tmp_path, change, message):
    with pytest.raises(UserError) as error:
        run(tmp_path, **change)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


LONG = {"max_steps": 400}  # eight steps between two points of the log


def reads(monkeypatch):
    """After which steps figures are read from the device."""
    found, read = [], Training.read

    def counted(self):
        if self.unread:
            found.append(self.state.step)
        return read(self)

    monkeypatch.setattr(Training, "read", counted)
    return found


def test_figures_are_read_at_the_points_of_the_log_alone(tmp_path, monkeypatch):
    found = reads(monkeypatch)
    _, trained = run(tmp_path, max_steps=100)
    assert found == [*range(2, 101, 2)] == [point["step"] for point in trained.history]
    assert len(trained.step_ms) == 100


def test_figures_are_read_before_anything_is_saved(tmp_path, monkeypatch):
    found = reads(monkeypatch)
    run(tmp_path, max_steps=100, checkpoint_seconds=0.0)
    assert found == [*range(1, 101)]


def test_a_stop_between_two_points_of_the_log_is_answered_after_the_step(tmp_path, monkeypatch):
    straight, expected = run(tmp_path / "straight", max_steps=100)
    step, taken = Training.step, itertools.count(1)

    def step_and_signal(self):
        if next(taken) == 5:
            signal.raise_signal(signal.SIGTERM)
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", step_and_signal)
        with pytest.raises(Interrupted):
            run(tmp_path / "stopped", max_steps=100)
    assert torch.load(tmp_path / "stopped" / "last.pt")["training"]["step"] == 5
    resumed, trained = run(tmp_path / "stopped", max_steps=100)
    assert trained.history == expected.history
    for (name, a), b in zip(resumed.tuned_state().items(), straight.tuned_state().values(), strict=True):
        assert torch.equal(a, b), name


def never():
    raise AssertionError("validates what is no number any more")


def test_a_loss_that_is_no_number_is_told_of_its_own_step_and_nothing_is_saved(tmp_path):
    """It is read later, here before validation: the step, the rate and the examples are those of the loss."""
    (ids,) = ([number for number, _ in step] for step in Order(48, 8, seed=0).steps(2, 3))
    message = (
        rf"the loss is nan at step 3 with the rate 5e\+28 .*in a batch of the examples {', '.join(map(str, ids))}:"
    )
    with pytest.raises(UserError, match=message):
        run(tmp_path, lr=1e30, select="best", validate=never, **LONG)
    assert not list(tmp_path.iterdir())


class Steep(Model):
    """Its loss is a number, and the slope of that is none."""

    def forward(self, batch):
        output = super().forward(batch)
        return output + (self.head_parameters[0].sum() * 0).sqrt()


def test_gradients_that_cannot_be_clipped_are_told(tmp_path):
    model = make_model()
    model.__class__ = Steep
    with pytest.raises(UserError, match="the gradients' norm is nan at step 1 with the rate 0 "):
        run(tmp_path, model=model, clip=1.0, **LONG)
    assert not list(tmp_path.iterdir())


def test_a_micro_batch_larger_than_the_batch_is_the_batch():
    assert accumulation_steps(8, 32, 1) == 1


def test_too_many_bad_examples_end_a_run():
    bad = BadExamples(1)
    bad.note({"bad": ["a.arrow row 3 image_id 7: cannot identify image"]})
    bad.note({"bad": ["a.arrow row 3 image_id 7: cannot identify image"]})
    with pytest.raises(BadExampleError, match=r"a\.arrow row 4.*dataset\.max_bad_examples=2"):
        bad.note({"bad": ["a.arrow row 4 image_id 8: truncated"]})


class Unreadable(Examples):
    """Its seventh example cannot be read."""

    def __getitem__(self, key):
        return {"bad": "a.arrow row 7"} if key[0] == 7 else super().__getitem__(key)


def collate_read(examples, columns=collate):
    read = [example for example in examples if "bad" not in example]
    bad = [example["bad"] for example in examples if "bad" in example]
    return (columns(read) if read else {"ids": []}) | {"bad": bad}


def run_on_unreadable(path, monkeypatch, **more):
    monkeypatch.setitem(globals(), "Examples", Unreadable)
    monkeypatch.setitem(globals(), "collate", collate_read)
    return run(path, allowed=1, **more)


@pytest.mark.parametrize("micro_batch_size", [4, 2, 1])
def test_what_can_be_read_counts_the_same_in_whatever_parts(tmp_path, monkeypatch, micro_batch_size):
    with monkeypatch.context() as patched:
        whole, reference = run_on_unreadable(tmp_path / "whole", patched, model=without_dropout())
    more = {"micro_batch_size": micro_batch_size, "model": without_dropout()}
    with monkeypatch.context() as patched:
        parts, trained = run_on_unreadable(tmp_path / "parts", patched, **more)
    assert [point["train/loss"] for point in trained.history] == pytest.approx(
        [point["train/loss"] for point in reference.history], rel=1e-3
    )
    for (name, a), b in zip(parts.tuned_state().items(), whole.tuned_state().values(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-2, msg=name)


def test_a_resumed_run_tells_what_all_its_processes_saw(tmp_path, monkeypatch):
    """Of the seventh example, read in the first epoch by the one and in the second by the other."""
    steps = [[number for number, _ in step] for step in Order(48, 8, seed=0).steps(0, 6)]
    (at,) = [number for number, step in enumerate(steps, 1) if 7 in step]
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        run_on_unreadable(tmp_path, patched, stop_at=at, max_steps=at + 1)
    seen = torch.load(tmp_path / "last.pt")["training"]["seen"]
    assert seen["bad"] == ["a.arrow row 7"]
    peak = seen["peak_memory"]["cpu"]
    monkeypatch.setattr("vltune.costs.usage.peak_memory_bytes", lambda device: peak - 1)
    attend.choose("auto")  # as a new process does
    with monkeypatch.context() as patched:
        _, trained = run_on_unreadable(tmp_path, patched, max_steps=at + 1)
    assert trained.seen["bad"] == ["a.arrow row 7"]
    assert trained.seen["peak_memory"] == {"cpu": peak}
    assert trained.seen["attention"]["training"] == seen["attention"]["training"]


def test_times_are_of_the_last_machine_and_the_others_are_told(tmp_path, monkeypatch):
    for cpu, stop_at, steps in (
        ("AMD EPYC", 3, 3),
        ("Intel Xeon", 5, 2),
        ("Intel Xeon", 9, 6),
        ("Intel Xeon", None, 9),
    ):
        monkeypatch.setattr(seen, "hardware", lambda cpu=cpu: {"cpu": cpu, "cores": 2, "gpus": [], "platform": cpu})
        if stop_at:
            with pytest.raises(Interrupted):
                run(tmp_path, stop_at=stop_at)
            state = torch.load(tmp_path / "last.pt")["training"]
            assert len(state["step_ms"]) == steps
    _, trained = run(tmp_path)
    assert len(trained.step_ms) == steps
    assert [each["cpu"] for each in seen.elsewhere(trained.seen)] == ["AMD EPYC"]


@pytest.mark.parametrize("raised", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator")])
def test_memory_that_the_optimiser_lacks_is_told(tmp_path, monkeypatch, raised):
    def step(self, closure=None):
        raise raised

    monkeypatch.setattr("torch.optim.AdamW.step", step)
    with pytest.raises(UserError, match="out of memory for the model and AdamW's two moments"):
        run(tmp_path)


def test_a_damaged_checkpoint_is_never_trusted(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"PK\x03\x04 not whole")
    with pytest.raises(UserError, match=r"last\.pt: damaged .*delete it to start over"):
        run(tmp_path)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    run(tmp_path)
    torch.manual_seed(0)
    other = Model(tiny.vilt(), VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), LoRA(rank=3))
    with pytest.raises(UserError, match="is of another run"):
        run(tmp_path, model=other)


@pytest.mark.parametrize(
    ("losses", "chance", "ended"),
    [
        ([5.0] * 18 + [0.5, 0.9], 1.0, None),  # of twenty the last two count
        ([0.1] * 18 + [1.0, 1.2], 1.0, "1.10"),
        ([0.1, None, 1.0], 1.0, "1.00"),
        ([0.1] * 18 + [1.0, 1.2], None, None),
        ([None], 1.0, None),
    ],
)
def test_a_start_failed_where_the_last_tenth_of_the_losses_is_no_less_than_chance(losses, chance, ended):
    state = TrainingState(history=[{"step": 0, "val/accuracy": 9.0}, *({"train/loss": loss} for loss in losses)])
    told = failure(SimpleNamespace(model=SimpleNamespace(task=SimpleNamespace(chance_loss=chance))), state)
    assert told is None if ended is None else told.startswith(f"failed start: the loss ended at {ended}, and is 1.00 ")


def test_no_epoch_of_a_seed_has_the_order_of_another_seeds():
    assert len({tuple(Order(20, 4, seed).epoch(number).tolist()) for seed in range(4) for number in range(4)}) == 16


def test_what_is_set_of_adamw_is_what_it_takes():
    optimiser = adamw([{"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1, "weight_decay": 0.0}], [0.7, 0.8], 1e-3)
    (group,) = optimiser.param_groups
    assert (group["betas"], group["eps"], group["lr"], group["weight_decay"]) == ((0.7, 0.8), 1e-3, 0.1, 0.0)


def test_the_heads_rate_is_its_own_or_so_many_times_the_others():
    assert Settings(lr=1e-2, head_lr_multiplier=5.0).rate_of_head == pytest.approx(5e-2)
    assert Settings(lr=1e-2, head_lr_multiplier=5.0, head_lr=3e-3).rate_of_head == 3e-3
    assert Settings(lr=1e-2, head_lr=0.0).rate_of_head == 0.0
