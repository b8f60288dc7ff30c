"""Subject-driven generation: the loss by hand, what is painted, and what is computed once."""

import re

import pytest
import tiny_diffusion
import torch
from tiny_diffusion import Words, batch, pictures, stable_diffusion, subject

from vltune.errors import UserError
from vltune.judges.wanted import CLASS, SUBJECT
from vltune.methods.custom_diffusion import CustomDiffusion
from vltune.methods.full import Full
from vltune.methods.lora import LoRA
from vltune.methods.textual_inversion import TextualInversion
from vltune.model import Model
from vltune.tasks.subject import Subject

METHODS = {
    "full": Full,
    "lora": lambda: LoRA(2, dropout=0.0),
    "textual_inversion": TextualInversion,
    "custom_diffusion": CustomDiffusion,
}


def model(method="lora", scheduler=(), **more):
    """With pictures of the class, and pictures of the subject in a batch."""
    made = Model(stable_diffusion(scheduler=scheduler), subject(**more), METHODS[method]())
    made.tuning.start(made, lambda steps: [])
    made.task.remember(made.backbone, pictures(3, seed=5))
    return made


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    ("prior", "captions"), [(0.0, None), (0.7, None), (0.7, ["a {class}", "a wet {class} in snow"])], ids=str
)
def test_the_loss_by_hand(kind, prior, captions):
    made = model(scheduler={"prediction_type": kind}, prior_weight=prior, class_captions=captions).train()
    torch.manual_seed(3)
    loss = made.task.loss(made(batch()), batch())

    torch.manual_seed(3)
    backbone, of = made.backbone, made.task
    latents = backbone.encode_picture(batch())
    texts = [of.said(of.caption, "sks")] * 4
    if prior:
        drawn = torch.randint(3, (4,))
        latents = torch.cat([latents, backbone.encode_picture({"image": pictures(3, seed=5)[drawn]})])
        texts += [["a dog", "a wet dog in snow", "a dog"][i] if captions else "a photo of dog" for i in drawn.tolist()]
    steps, noise = torch.randint(1000, (len(latents),)), torch.randn_like(latents)
    kept = backbone.scheduler.alphas_cumprod[steps][:, None, None, None]
    noised = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    words = backbone.text(torch.tensor([Words()(text) for text in texts])).last_hidden_state
    found = backbone.unet(noised, steps, words).sample
    target = {"epsilon": noise, "sample": latents, "v_prediction": kept.sqrt() * noise - (1 - kept).sqrt() * latents}[
        kind
    ]
    errors = (found - target).square().flatten(1).mean(1)
    expected = errors[:4].mean() + (prior * errors[4:].mean() if prior else 0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_exactly_where_the_method_trains(method):
    made = model(method).train()
    made.task.loss(made(batch()), batch()).backward()
    moved = {name for name, parameter in made.named_parameters() if parameter.grad is not None}
    assert moved == {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert moved and not any(name.startswith("backbone.vae") for name in moved)
    if method != "textual_inversion" and method != "custom_diffusion":
        assert not any(name.startswith("backbone.text") for name in moved)


def test_custom_diffusion_trains_keys_and_values_of_cross_attention_and_the_token():
    names = {name for name, parameter in model("custom_diffusion").named_parameters() if parameter.requires_grad}
    layers = {name for name in names if "attn" in name}
    assert layers and all(".attn2.to_k." in name or ".attn2.to_v." in name for name in layers)
    assert [name for name in names - layers if not name.endswith("delta.vector")] == []
    assert len(names - layers) == 1


@pytest.mark.parametrize("method", ["textual_inversion", "custom_diffusion"])
def test_a_learned_token_starts_as_the_class_and_is_read_at_its_place_alone(method):
    made = model(method)
    words, (site,) = Words(), [each for each in made.tuning.sites if each.role == "words"]
    assert torch.equal(site.delta.vector, made.backbone.embed_words(torch.tensor([words("dog")[1]]))[0])
    state = {text: made.task.text_state(made.backbone, text) for text in ("a sks dog", "a dog")}
    with torch.no_grad():
        site.delta.vector += 1
    assert not torch.allclose(made.task.text_state(made.backbone, "a sks dog"), state["a sks dog"])
    assert torch.equal(made.task.text_state(made.backbone, "a dog"), state["a dog"])


def test_a_learned_token_is_saved_with_its_place():
    made, fresh = model("textual_inversion"), Model(stable_diffusion(), subject(), TextualInversion())
    with torch.no_grad():
        made.method_parameters[0].add_(1)
    fresh.load_tuned(made.tuned_state())
    assert torch.equal(
        made.task.text_state(made.backbone, "a sks dog"), fresh.task.text_state(fresh.backbone, "a sks dog")
    )


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: subject(token="sandwich"),
            "task.token=sandwich: is 2 tokens of this vocabulary; choose a word that is one",
        ),
        (lambda: subject(), "method.initial=hedgehog: is 2 tokens of this vocabulary; choose a word that is one"),
    ],
)
def test_a_token_must_be_one(make, told):
    made = Model(stable_diffusion(), make(), TextualInversion(initial="hedgehog"))
    for asked in (lambda: made.tuning.check_start(made), lambda: made.tuning.start(made, lambda steps: [])):
        with pytest.raises(UserError, match=f"^{told}$"):
            asked()


def test_texts_are_computed_once_where_nothing_in_them_is_tuned(monkeypatch):
    calls = []
    for method, kept in (("lora", True), ("textual_inversion", False)):
        made = model(method, prior_weight=0.0).train()
        own = made.backbone.text_features
        monkeypatch.setattr(made.backbone, "text_features", lambda *given, own=own: calls.append(1) or own(*given))
        calls.clear()
        for _ in range(3):
            made.task.loss(made(batch()), batch()).backward()
        assert len(calls) == (1 if kept else 3)


def test_each_prompt_is_painted_with_its_token_and_without_for_each_seed():
    wanted = subject().wanted()
    assert [(each.id, each.about, each.prompt, each.seed) for each in wanted] == [
        (0, SUBJECT, "a sks dog in snow", 0),
        (1, SUBJECT, "a sks dog in snow", 7),
        (2, SUBJECT, "a dog beside a sks dog", 0),
        (3, SUBJECT, "a dog beside a sks dog", 7),
        (0, CLASS, "a dog in snow", 0),
        (1, CLASS, "a dog in snow", 7),
        (2, CLASS, "a dog beside a dog", 0),
        (3, CLASS, "a dog beside a dog", 7),
    ]
    assert len({each.name for each in wanted}) == len(wanted)
    assert subject().without_token(wanted[2]) == "a dog beside a dog"
    assert {each.seed for each in subject(class_pictures=5).of_class()}.isdisjoint({0, 7})


def test_pictures_of_the_class_are_called_by_turns():
    of_class = subject(class_captions=["a {class}", "a wet {class}"]).of_class()
    assert [each.prompt for each in of_class] == ["a dog", "a wet dog", "a dog"]
    assert len({each.seed for each in of_class}) == 3
    assert {each.prompt for each in subject(class_captions=None).of_class()} == {"a photo of dog"}


def test_what_is_shown_of_a_subject_of_five_pictures():
    assert [each.id for each in subject(shown="real").shows(5)] == [0, 1, 2, 3, 4]
    assert {each.about for each in subject(shown="copied").shows(5)} == {SUBJECT}
    assert len(subject().shows(5)) == 8


def test_a_picture_is_painted_alone_as_in_company():
    made = model().eval()
    wanted = made.task.wanted()
    with made.settled():
        together = made.task.paint(made.backbone, wanted)
        for place in (0, 5):
            alone = made.task.paint(made.backbone, wanted[place : place + 1])
            assert torch.allclose(alone[0], together[place], atol=1e-4)
    assert together.shape == (8, 3, 16, 16) and together.abs().max() <= 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"shown": "drawn"}, "task.shown=drawn: must be one of painted, real, copied"),
        ({"token": "two words"}, "task.token='two words': must be one word"),
        (
            {"caption": "a dog"},
            "task.caption='a dog': has no {token}, so that nothing in it says which subject is meant",
        ),
        (
            {"caption": "a {token}'s {class}"},
            'task.caption="a {token}\'s {class}": put spaces around {token}: judges read the prompt without that word',
        ),
        (
            {"caption": "a red {token} {class}", "token": "red"},
            "task.token=red: is a word of 'a red {token} {class}' as well, which judges would read without it",
        ),
        (
            {"class_captions": ["a {class}", "a dog"]},
            "task.class_captions='a dog': must say {class} and no {token}, the subject's",
        ),
        (
            {"class_captions": ["a {token} {class}"]},
            "task.class_captions='a {token} {class}': must say {class} and no {token}, the subject's",
        ),
        (
            {"caption": "a photo of {token} {noun}"},
            "task.caption='a photo of {token} {noun}': has a brace that is of neither {token} nor {class}; leave it out",
        ),
        (
            {"class_captions": ["a {class} {x}"]},
            "task.class_captions='a {class} {x}': has a brace that is of neither {token} nor {class}; leave it out",
        ),
    ],
)
def test_what_a_subject_cannot_be_is_told_in_one_line(more, told):
    with pytest.raises(UserError) as error:
        subject(**more)
    assert str(error.value) == told


class Few(Words):
    def cuts(self, text):
        return len(text.split()) > 6

    max_length = 8


LONG = "a photo of {token} {class} on the beach"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, None),
        (
            {"caption": LONG},
            "task.caption='a photo of sks dog on the beach': is longer than the 8 tokens that are read",
        ),
        (
            {"class_captions": ["a {class} and a cat on a beach"]},
            "task.class_captions='a dog and a cat on a beach': is lon",
        ),
        ({"class_captions": ["a {class} and a cat on a beach"], "prior_weight": 0.0}, None),
        (
            {"prompts": ["a {token} {class}", LONG]},
            "dataset.prompts='a photo of sks dog on the beach': is longer than the 8",
        ),
        ({"prompts": [], "caption": LONG}, None),  # as for pictures beside a run
    ],
)
def test_a_text_whose_end_would_not_be_read_is_refused(more, told):
    given = {
        "noun": "dog",
        "prompts": ["a {token} {class}"],
        "tokenizer": Few(),
        "class_pictures": 3,
        "sampler_steps": 3,
    }
    task, backbone = Subject(**given | more), stable_diffusion()
    if told is None:
        task.begin(backbone)
    else:
        with pytest.raises(UserError, match=f"^{re.escape(told)}"):
            task.begin(backbone)


def test_more_steps_of_the_sampler_than_there_are_are_told():
    backbone = stable_diffusion()
    subject(sampler_steps=1000).begin(backbone)
    with pytest.raises(
        UserError, match=r"^task\.sampler_steps=1001: the backbone was trained on 1000; give so many at"
    ):
        subject(sampler_steps=1001).begin(backbone)


def test_as_many_steps_of_the_sampler_as_there_are_with_an_offset():
    """The first of them would lie behind the last that there is."""
    made = model(scheduler={"num_train_timesteps": 6, "steps_offset": 1}, sampler_steps=6).eval()
    assert made.task.paint(made.backbone, made.task.wanted()[:1]).isfinite().all()


def test_a_run_draws_the_same_whether_it_is_judged_or_not():
    task = subject(judges={"shapes": {}})
    before = torch.get_rng_state()
    assert [*task.judges_here()] == ["shapes"]
    assert torch.equal(torch.get_rng_state(), before)


@torch.no_grad()
def test_in_bfloat16_each_step_adds_as_much_noise_as_in_float32():
    backbone, steps = stable_diffusion(), torch.tensor([0, 1, 2, 8])
    with torch.autocast("cpu", torch.bfloat16):
        latents = backbone.train().encode_picture(batch(4))
        noised = backbone.noised(latents, noise := torch.randn_like(latents), steps)
    expected = backbone.kept(steps)[:, None, None, None]
    torch.testing.assert_close(noised, expected.sqrt() * latents + (1 - expected).sqrt() * noise)


def test_costs_are_those_of_one_call_and_one_prompt():
    made = model()
    parts = made.task.counted(made.backbone, {"text_ids": tiny_diffusion.ids(1)})
    assert parts["call"]().shape == (1, *made.backbone.latent_shape)
    assert parts["prompt"]().shape == (1, tiny_diffusion.TEXT, tiny_diffusion.WIDTH)


def test_each_picture_of_the_class_is_read_with_its_own_caption(monkeypatch):
    made = model(prior_weight=1.0, class_captions=["a {class}", "a wet {class} in snow"]).train()
    read, drawn = [], torch.tensor([0, 1, 2, 1])
    monkeypatch.setattr(torch, "randint", lambda *size: drawn)
    monkeypatch.setattr(made.backbone, "errors", lambda latents, texts: read.append(texts) or latents[:, 0, 0, 0])
    made(batch())
    captions = ["a dog", "a wet dog in snow", "a dog", "a wet dog in snow"]
    assert [made.task.class_caption(number) for number in drawn.tolist()] == captions
    expected = torch.cat([made.task.text_state(made.backbone, text) for text in captions])
    assert torch.equal(read[0][4:], expected)
    assert not torch.equal(expected[0], expected[1])
