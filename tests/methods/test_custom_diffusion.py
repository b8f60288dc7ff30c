"""Custom Diffusion acts in cross-attention alone, and says so where nothing it was asked for lies there."""

import pytest
import tiny
import tiny_diffusion

from vltune.errors import UserError
from vltune.methods.custom_diffusion import CustomDiffusion
from vltune.model import Model
from vltune.tuning import OneToken

LAYERS = "query, key, value, projection"


@pytest.mark.parametrize(
    ("make", "roles", "where", "message"),
    [
        (
            tiny_diffusion.stable_diffusion,
            ["feed_forward_up"],
            "all",
            f"StableDiffusion has no feed_forward_up there|{LAYERS}",
        ),
        (tiny_diffusion.stable_diffusion, ["norm"], "all", f"StableDiffusion has no norm there|{LAYERS}"),
        (
            tiny_diffusion.stable_diffusion,
            ["key", "norm", "words"],
            "all",
            f"StableDiffusion has no norm there|{LAYERS}",
        ),
        (tiny_diffusion.stable_diffusion, ["key", "words"], "text", f"StableDiffusion has no key there|{LAYERS}"),
        (tiny.meter, ["key", "value"], "all", "Meter has no key there|no layer"),
        (tiny.vilt, ["key", "value"], "fusion", "Vilt has no key there|no layer"),
        (tiny.clip, ["norm"], "all", "Clip has no norm there|no layer"),
    ],
)
def test_a_role_that_is_not_in_cross_attention_is_refused_in_one_line(make, roles, where, message):
    method = CustomDiffusion(roles=roles)
    method.sites_in = where
    with pytest.raises(UserError) as error:
        method.attach(make())
    absent, offered = message.split("|")
    assert str(error.value).startswith(f"method.roles={roles}: CustomDiffusion trains layers in the cross-attention of")
    assert str(error.value).endswith(f"and {absent} with method.sites_in={where}; it has {offered} there")


def test_without_words_no_token_is_looked_for():
    method = CustomDiffusion(roles=["key", "value"])
    model = Model(tiny_diffusion.stable_diffusion(), tiny_diffusion.subject(), method)
    assert model.tuning.sites and not any(isinstance(site.delta, OneToken) for site in model.tuning.sites)
    del model.task.tokenizer
    model.tuning.start(model, lambda steps: [])
