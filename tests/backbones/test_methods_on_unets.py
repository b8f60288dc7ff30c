"""Every method on a UNet and on its text encoder: it trains what it has, and does the same folded."""

import pytest
import torch
from test_combinations import METHODS
from tiny_diffusion import ids, inputs, stable_diffusion

from vltune.errors import UserError

# What cannot act there, and why; the others do.
REFUSED = {
    ("fusion", "das"): "DAS needs the role block",
    ("text", "das"): "DAS needs the role block",
    ("fusion", "bitfit"): "which has no bias",
    ("fusion", "fact"): "which has .* inputs and .* outputs",
    **{("text", name): "has no site keys_values" for name in ("prefix", "mam", "unipelt")},
    ("text", "deep_prompt"): "has no site memory",
    ("text", "shallow_prompt"): "has no site sequence",
}
OWN = ("bitfit", "ln_tuning")  # what they train is the backbone's and stays when they are taken off
NONE = ("full", "classifier_only")  # have no sites


def attached(name, where):
    backbone, method = stable_diffusion(), METHODS[name][0]()
    for each in getattr(method, "methods", [method]):
        each.sites_in = where
    tuning = method.attach(backbone)
    backbone.eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in tuning.trained:
            parameter.add_(0.1 * torch.randn_like(parameter)).requires_grad_(True)
    return backbone, tuning


@pytest.mark.parametrize("name", [name for name in METHODS if name not in NONE])
@pytest.mark.parametrize("where", ["fusion", "text"])
def test_it_trains_what_it_has_and_folds(name, where):
    if told := REFUSED.get((where, name)):
        with pytest.raises(UserError, match=told):
            attached(name, where)
        return
    backbone, tuning = attached(name, where)
    latents, steps, _ = inputs(backbone)

    def denoised():
        return backbone.denoise(latents, steps, backbone.embed_prompt({"text_ids": ids()}))

    plain = denoised()
    plain.square().mean().backward()
    own = {id(parameter) for parameter in tuning.trained}
    assert own == {id(parameter) for parameter in backbone.parameters() if parameter.grad is not None}
    with torch.no_grad():
        with tuning.folded():
            assert torch.allclose(denoised(), plain, atol=2e-5 * plain.abs().max().item())
        with tuning.off():
            assert not torch.allclose(denoised(), plain, atol=1e-4 * plain.abs().max().item()) or name in OWN


@pytest.mark.parametrize("name", ["adaptformer", "scaled_pa", "apt", "convpass"])
def test_what_computes_with_a_sublayers_input_is_refused_where_that_is_ids(name):
    method = METHODS[name][0]()
    method.roles, method.sites_in = ["words"], "text"
    with pytest.raises(UserError) as error:
        method.attach(stable_diffusion())
    begins = (
        f"method.roles=['words']: {type(method).__name__} cannot act at words, where it would read the ids of words"
    )
    assert str(error.value).startswith(begins)
    assert "attention_output" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["adapter", "compacter", "mona"])
def test_what_computes_with_its_output_acts_at_words(name):
    backbone, method = stable_diffusion(), METHODS[name][0]()
    method.roles, method.sites_in = ["words"], "text"
    (site,) = method.attach(backbone).sites
    plain = backbone.embed_prompt({"text_ids": ids()})
    site.delta = None
    assert not torch.equal(backbone.embed_prompt({"text_ids": ids()}), plain)
