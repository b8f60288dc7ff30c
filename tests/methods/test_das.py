"""Dynamic architecture skipping: its released forward pass, its search, and what it saves."""

import itertools
import math

import pytest
import tiny
import torch
import torch.nn.functional as F
from engine.test_training import Examples, collate, run, settings
from lightning_fabric import Fabric
from methods.oracles import IMAGE, LAYERS, TEXT, TOKENS, WIDTH, additional_macs, assert_agree, off_its_start, states
from several import processes

from vltune.engine.precision import hold
from vltune.engine.source import TrainingData
from vltune.engine.train import train
from vltune.errors import UserError
from vltune.methods.das import DAS, Bandit, InsteadOfBlock, by_step, leave_out, losses
from vltune.methods.lora import LoRA
from vltune.methods.lst import LST
from vltune.model import Model
from vltune.runs.signals import StopRequest
from vltune.tasks.vqa import VQA
from vltune.tuning import Stack

HIDDEN, NORM = 64, 5 * WIDTH


def tuned(layers=4, **settings):
    torch.manual_seed(0)
    return Model(tiny.vilt(layers=layers), VQA(WIDTH, WIDTH, tiny.ANSWERS), DAS(bottleneck=3, **settings))


def blocks_of(model):
    return [block.at_block.delta for block in model.backbone.blocks]


def left_out(model):
    return {i for i, block in enumerate(blocks_of(model)) if block.slot >= 0}


def test_is_the_released_forward():
    """DoubtedSteam/DAS, ViLT/vilt/modules/vilt_module_train.py and Adapter_Layer of vision_transformer_PA.py."""
    model = tuned(share=0.5).eval()
    for block in model.backbone.blocks:
        for part in (block, block.attention, block.feed_forward):
            off_its_start((part.at_block if part is block else part.at_output).delta, 0.02)
    leave_out(blocks_of(model), {0, 2})
    parameters = [*model.method_parameters]
    (x,) = states((2, 5, WIDTH))

    def ours():
        y = x
        for block in model.backbone.blocks:
            y = block(y, None)
        return y

    instead, beside = blocks_of(model)[0].adapters, model.backbone.blocks[0].attention.at_output.delta.adapters
    results = [ours()]
    model.tuning.detach()

    def added(adapter, h):
        h = F.layer_norm(h, (WIDTH,), adapter.norm.weight, adapter.norm.bias)
        h = F.linear(h, adapter.down.weight, adapter.down.bias).relu()
        return F.linear(h, adapter.up.weight, adapter.up.bias)

    def released():
        y = x
        for i, block in enumerate(model.backbone.blocks):
            if i in (0, 2):
                y = y + added(instead[i // 2], y)
                continue
            first, second = beside[i // 2]
            h = block.norm1(y)
            y = y + block.attention(h, h, None) + added(first, h)
            h = block.norm2(y)
            y = y + block.feed_forward(h) + added(second, h)
        return y

    assert_agree(lambda: results[0], released, x, *parameters)


def test_blocks_left_out_lie_evenly_without_a_search():
    assert left_out(tuned(layers=12)) == {2, 5, 8, 11}
    assert left_out(tuned(layers=4)) == {3}


def bandit(count, of, samples):
    blocks = [InsteadOfBlock(torch.nn.ModuleList(torch.nn.Identity() for _ in range(count))) for _ in range(of)]
    return Bandit(blocks, samples)


def test_a_comparison_moves_preferences_as_released():
    """vilt_module_search.py: each selection's exp(-loss) less their mean, times p (1 - p), on what it leaves out."""
    search = bandit(2, of=4, samples=3)
    search.scores[:] = torch.tensor([0.5, -0.5, 0.0, 1.0])
    seen = []

    def loss():
        seen.append({i for i, block in enumerate(search.blocks) if block.slot >= 0})
        return torch.tensor(0.1 * len(seen))

    before = search.scores.clone()
    search.look(loss)
    assert len({*map(frozenset, seen)}) == 3
    rewards = [math.exp(-0.1 * number) for number in (1, 2, 3)]
    share, expected = before.sigmoid(), before.clone()
    for selection, reward in zip(seen, rewards, strict=True):
        for i in selection:
            expected[i] += (reward - sum(rewards) / 3) * share[i] * (1 - share[i])
    torch.testing.assert_close(search.scores, expected, atol=1e-6, rtol=1e-6)


def test_a_search_finds_what_is_worth_least():
    torch.manual_seed(0)
    search = bandit(2, of=6, samples=10)
    worth = torch.tensor([1.0, 0.1, 1.0, 1.0, 0.0, 1.0])
    for _ in range(20):
        search.look(lambda: sum(worth[i] for i, block in enumerate(search.blocks) if block.slot >= 0))
    assert search.best() == {1, 4}


def test_of_few_blocks_every_selection_is_compared_once():
    search, losses = bandit(1, of=3, samples=10), []
    search.look(lambda: torch.tensor(float(len(losses))) if losses.append(1) is None else None)
    assert len(losses) == 3


def test_a_search_that_diverges_is_told_and_chooses_nothing():
    search = bandit(1, of=3, samples=2)
    with pytest.raises(UserError, match=r"not a number in DAS's search: lower method\.search_lr"):
        search.look(lambda: torch.tensor(torch.nan))
    assert search.scores.isfinite().all()


def test_a_search_decides_the_blocks_and_nothing_else(tmp_path):
    """All that is trained starts the run as without a search, bit for bit."""
    settings = {"search_steps": 12, "search_lr": 1e-2, "turn": 3, "samples": 4}
    model, seen = tuned(**settings), []
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.tuning.at = lambda step, total: seen.append({name: each.clone() for name, each in model.state_dict().items()})
    run(tmp_path, model=model, max_steps=2)
    others = [name for name in start if not name.endswith(".slot")]
    assert all(torch.equal(seen[0][name], start[name]) for name in others)
    again, _ = run(tmp_path / "again", model=tuned(**settings), max_steps=2)
    assert left_out(again) == left_out(model)
    for (name, one), other in zip(model.tuned_state().items(), again.tuned_state().values(), strict=True):
        assert torch.equal(one, other), name


class Counted(torch.optim.AdamW):
    steps = 0

    def step(self, *arguments, **options):
        Counted.steps += 1
        return super().step(*arguments, **options)


def test_a_search_takes_the_same_steps_in_whatever_parts(tmp_path, monkeypatch):
    """micro_batch_size is not in a run's hash."""
    monkeypatch.setattr(torch.optim, "AdamW", Counted)
    compared, found = [], []
    look = Bandit.look
    monkeypatch.setattr(Bandit, "look", lambda search, loss: compared[-1].append(loss().item()) or look(search, loss))
    for size in (8, 2):
        compared.append([])
        Counted.steps, model = 0, tuned(layers=6, search_steps=5, search_lr=1e-2, turn=2, samples=4)
        run(tmp_path / str(size), model=model, max_steps=6, micro_batch_size=size)
        found.append((left_out(model), Counted.steps))
    assert found[0] == found[1]
    assert found[0][1] in (5, 5 + 6), "of the search, and where training has the same class, its own"
    assert len(compared[0]) == 2
    assert compared[1] == pytest.approx(compared[0], rel=1e-4)


def test_parts_of_a_step_weigh_as_many_examples_as_they_have():
    model, whole = tuned(), tiny.batch()
    first, second = tiny.batch(), tiny.batch()
    for part, rows in ((first, slice(0, 2)), (second, slice(2, 3))):
        part |= {key: value[rows] for key, value in whole.items() if not key.startswith("false")}
    assert [*by_step([first | {"left": 1}, second | {"left": 0}, whole])] == [
        [first | {"left": 1}, second | {"left": 0}],
        [whole],
    ]
    of_parts = sum(losses(model, [first, second]))
    (of_all,) = losses(model, [whole])
    assert torch.equal(of_all, model.task.loss(model(whole), whole))
    torch.testing.assert_close(of_parts, of_all)


def test_a_search_that_compared_nothing_leaves_blocks_out_evenly_and_says_so(capsys):
    model = tuned(layers=12, search_steps=3, turn=5)
    leave_out(blocks_of(model), {0, 1, 2, 3})
    model.tuning.start(model, lambda steps: iter([tiny.batch()] * steps))
    assert left_out(model) == {2, 5, 8, 11}
    said = (
        "das: no selection was compared in 5 steps or fewer, blocks are left out evenly: raise method.search_steps or"
    )
    assert capsys.readouterr().err.startswith(said)


def test_a_search_computes_in_the_precision_of_training(tmp_path):
    """Frozen weights are held in bfloat16, by which no number of float32 is multiplied."""
    model = tuned(search_steps=2)
    hold(model, "bf16-mixed")
    data = TrainingData(Examples(), collate, 8, seed=0, workers=0)
    with StopRequest() as stop:
        more = {"training": lambda: data, "settings": settings(max_steps=2)}
        fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
        assert train(tiny.session(fabric, model, tmp_path, stop, **more), lambda: 0.0).step == 2


def test_no_block_is_left_out_where_another_method_acts():
    Stack([DAS(bottleneck=3), LST()]).attach(tiny.vilt())
    with pytest.raises(UserError, match=r"DAS cannot act at block, where another method acts, .*: put das before it"):
        Stack([LST(), DAS(bottleneck=3)]).attach(tiny.vilt())


def test_all_processes_take_what_the_first_one_found(tmp_path):
    """Dropout draws other numbers in each, so that each for itself may end elsewhere."""

    def work(fabric):
        fabric.launch()
        model = tuned(layers=6)

        def start(*given):
            leave_out(blocks_of(model), {fabric.global_rank, 5})
            with torch.no_grad():
                for parameter in model.method_parameters:
                    parameter += fabric.global_rank

        model.tuning.start = start
        data = TrainingData(Examples(), collate, 8, seed=0, workers=0)
        with StopRequest() as stop:
            more = {"training": lambda: data, "settings": settings(max_steps=2)}
            train(tiny.session(fabric, model, tmp_path, stop, **more), lambda: 0.0)
        return left_out(model), {name: tensor.tolist() for name, tensor in model.tuned_state().items()}

    first, second = processes(work)
    assert first[0] == {0, 5}
    assert second == first


def test_what_was_searched_is_read_back():
    model, other = tuned(), tuned()
    leave_out(blocks_of(model), {1})
    other.load_tuned(model.tuned_state())
    assert left_out(other) == {1}


@torch.no_grad()
def test_any_blocks_of_two_streams_can_be_left_out():
    """METER computes the first blocks' own before its streams meet, whichever are left out."""
    model = Model(tiny.meter(), VQA(2 * WIDTH, WIDTH, tiny.ANSWERS), DAS(bottleneck=3, share=0.75)).eval()
    blocks = [site.delta for site in model.tuning.sites if isinstance(site.delta, InsteadOfBlock)]
    batch = tiny.batch(tiny.SQUARE)
    seen = []
    for chosen in itertools.combinations(range(len(blocks)), round(0.75 * len(blocks))):
        leave_out(blocks, {*chosen})
        seen.append(model(batch))
    assert all(torch.isfinite(output).all() for output in seen)
    assert len({output.numpy().tobytes() for output in seen}) == len(seen) > 3


def test_a_search_goes_on_where_something_trained_has_no_part_in_the_loss():
    torch.manual_seed(0)
    methods = [DAS(bottleneck=3, share=0.5, search_steps=2), LoRA(rank=2)]
    model = Model(tiny.vilt(layers=4), VQA(WIDTH, WIDTH, tiny.ANSWERS), Stack(methods)).train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.tuning.start(model, lambda steps: iter([tiny.batch()] * steps))
    assert len(left_out(model)) == 2
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_inference_costs_less_than_the_frozen_model(backbone):
    beside, instead = 2 * WIDTH * 3 + NORM, 2 * WIDTH * 6 + NORM
    block = TOKENS * (4 * WIDTH**2 + 2 * WIDTH * HIDDEN + 2 * NORM) + 2 * TOKENS**2 * WIDTH
    vilt = TOKENS * instead - block + 2 * TOKENS * beside
    attention = IMAGE * 6 * WIDTH**2 + TEXT * 2 * WIDTH**2 + 2 * IMAGE * (IMAGE + TEXT) * WIDTH
    block = attention + IMAGE * (2 * WIDTH * HIDDEN + 3 * NORM)
    meter = IMAGE * instead - block + 3 * (LAYERS * TEXT + IMAGE) * beside
    expected = {"vilt": vilt, "meter": meter}[backbone]
    assert expected < 0
    assert additional_macs(backbone, DAS(bottleneck=3)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bottleneck": 0}, "method.bottleneck=0: must be a whole number at least 1"),
        *(({name: 0}, f"method.{name}=0: must be a whole number") for name in ("search_steps", "turn", "samples")),
        ({"share": 0.1}, "method.share=0.1: must leave out at least one of 2 blocks, and not all"),
        ({"share": 1.0}, "method.share=1.0: must leave out at least one of 2 blocks, and not all"),
        ({"share": "half"}, "method.share=half: must leave out at least one of 2 blocks, and not all"),
        (
            {"roles": ["attention_output"]},
            "DAS needs the role block, where a block's own site comes first",
        ),
        ({"roles": ["block", "query"]}, "DAS cannot act at query, which is a layer"),
    ],
)
def test_wrong_settings_are_told_in_one_line(settings, message):
    with pytest.raises(UserError) as error:
        DAS(**settings).attach(tiny.vilt())
    assert message in str(error.value)
    assert "\n" not in str(error.value)
