"""What a folder in diffusers' layout says of a text-to-image model, in the words of `backbone`.

Sizes are its tensors' own; the number of heads, activations, the noise schedule and what the UNet predicts leave no trace
in these and are read from the configurations beside them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vltune.errors import UserError
from vltune.weights.architecture import WORDS, content_of
from vltune.weights.finding import CONFIG, left_aside

PARTS = {
    "unet": f"unet/{CONFIG}",
    "text": f"text_encoder/{CONFIG}",
    "vae": f"vae/{CONFIG}",
    "scheduler": "scheduler/scheduler_config.json",
}
TEXT = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "hidden_act", "layer_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id"),
)
UNTOLD = {
    "unet": (
        *("attention_head_dim", "num_attention_heads", "act_fn", "norm_num_groups", "norm_eps", "freq_shift"),
        *("flip_sin_to_cos", "center_input_sample", "downsample_padding", "mid_block_scale_factor"),
        *("time_embedding_act_fn", "timestep_post_act", "only_cross_attention"),
    ),
    "text": ("hidden_act", "num_attention_heads", "layer_norm_eps"),
    "vae": ("scaling_factor", "shift_factor", "act_fn", "norm_num_groups"),
    "scheduler": (
        *("prediction_type", "beta_schedule", "beta_start", "beta_end", "num_train_timesteps"),
        *("rescale_betas_zero_snr", "trained_betas"),
    ),
}
"""What its tensors cannot tell, but for how a sampler takes its steps: the backbone has its own."""
UNSAID: dict[str, Any] = {
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "center_input_sample": False,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "time_embedding_act_fn": "none",
    "timestep_post_act": "none",
    "only_cross_attention": False,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "shift_factor": 0,
    "rescale_betas_zero_snr": False,
    "trained_betas": (),
}
"""What is meant where one of these is not there, in diffusers and transformers."""
NEEDED = {"vae": ("block_out_channels",), "text": ("vocab_size", "max_position_embeddings")}
"""What a configuration has to say, as sizes of the whole model follow from it."""
EPSILON = {"prediction_type": "epsilon"}
KNOWN = {
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
}
"""What the backbone's noise can be; where betas are listed, no schedule gives them."""
STEPS = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
"""How a sampler takes its steps, whichever the folder was saved with: as the published models were."""
HIGHEST = 2  # the end of a text in early configurations, which means the highest id
TOKENS = ("tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json")


def settings(path: Path) -> dict[str, Any]:
    """An entry of `backbone.pipelines`.  path: the list of a folder's parts.  UserError where one has no configuration."""
    folder = path.parent
    found = {part: of_part(part, folder / file) for part, file in PARTS.items()}
    text = found["text"]
    if text.get("eos_token_id") == HIGHEST:
        text["eos_token_id"] = min(text["vocab_size"], WORDS) - 1
    shrinks = 2 ** (len(found["vae"]["block_out_channels"]) - 1)
    latents = side(folder / PARTS["unet"], found["unet"].get("sample_size"))
    return found | {"image_size": latents * shrinks, "padding": padding(folder)}


def side(file: Path, size: Any) -> int:
    """Of square latents, of which a configuration may give both."""
    sides = size if isinstance(size, list) else [size]
    if not all(type(each) is int for each in sides) or len(set(sides)) != 1:
        raise UserError(f"{file}: sample_size={size}: must be the side of square latents; write such as 64")
    return sides[0]


def of_part(part: str, file: Path) -> dict[str, Any]:
    if (content := content_of(file)) is None:
        raise UserError(f"{file}: no such file; copy or download the whole model")
    for name in NEEDED.get(part, ()):
        if content.get(name) is None:
            raise UserError(f"{file}: says no {name}; copy or download the whole configuration")
    if part == "scheduler":
        return of_scheduler(content, file)
    known = arguments(part)
    return {name: value for name, value in content.items() if name in known}


def of_scheduler(content: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The noise, as the file says it, and how a sampler steps, as `STEPS` says.  UserError where it is another kind of
    noise, flow matching say."""
    for name, known in KNOWN.items():
        value = content.get(name) or EPSILON.get(name)
        if value not in known and not (name == "beta_schedule" and content.get("trained_betas")):
            raise UserError(f"{file}: {name}={value}: noise that the backbone has not, which is of {', '.join(known)}")
    kept = UNTOLD["scheduler"]
    if content.get("rescale_betas_zero_snr"):
        kept += ("timestep_spacing",)  # without signal in the last step, a sampler has to begin with it
    said = {name: content[name] for name in kept if content.get(name) not in (None, UNSAID.get(name))}
    return EPSILON | said | STEPS


def arguments(part: str) -> tuple[str, ...]:
    """What a part of the model with weights can be built from."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
    return TEXT if part == "text" else (*inspect.signature(kinds[part].__init__).parameters,)


def padding(folder: Path) -> str:
    """The token that fills a text, as transformers has it: by the map, unless the configuration lists added tokens."""
    first, other = TOKENS
    told = "added_tokens_decoder" in (content_of(folder / first) or {})
    for file in (first, other) if told else (other, first):
        token = (content_of(folder / file) or {}).get("pad_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            return token
    return "<|endoftext|>"


def check_pipeline(path: Path, own: Mapping[str, Mapping[str, Any]], model: str) -> None:
    """UserError where a folder was trained in another way than the model that it is read for is built; tells on standard
    error what of it is left aside, such as a safety checker, and where texts were filled with another token.

    own: of each part, what it is built from, and `padding`."""
    if aside := left_aside(path):
        print(f"{path.parent}: {', '.join(aside)} is left aside, no run uses it", file=sys.stderr)
    theirs, folder = settings(path), path.parent
    said = [
        (folder / PARTS[part], name, *(of_model(each[part], name) for each in (theirs, own)))
        for part, names in UNTOLD.items()
        for name in names
    ]
    for file, name, told, ours in said:
        if None not in (told, ours) and told != ours:
            raise UserError(
                f"{file}: says {name}={told}, and backbone.model={model} has {ours}; "
                "backbone.model=checkpoint takes the folder's own"
            )
    fills, ours = theirs["padding"], own.get("padding", theirs["padding"])
    if fills != ours and any((folder / name).is_file() for name in TOKENS):
        told = f"fills texts with {fills}, and backbone.model={model} with {ours}, which the UNet sees"
        print(f"{folder / TOKENS[0]}: {told}; backbone.model=checkpoint takes the folder's own", file=sys.stderr)


def of_model(part: Mapping[str, Any], name: str) -> Any:
    """A setting, or what is meant without it; the same of every block is said once."""
    value = UNSAID.get(name) if part.get(name) is None else part[name]
    return value[0] if isinstance(value, list) and value and value.count(value[0]) == len(value) else value
