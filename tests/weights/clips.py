"""A CLIP of odd sizes with random weights, as transformers has it and in every layout that is read."""

import json

import torch
from torch import nn

TEXT = {"width": 24, "layers": 2, "heads": 2, "hidden": 40, "vocabulary_size": 99, "positions": 20, "end_of_text": 98}
IMAGE = {"width": 40, "layers": 3, "heads": 2, "hidden": 72, "patch_size": 8, "image_size": 40}
SIZES = {"text": TEXT, "image": IMAGE, "dim": 20}
BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
    "encoder.layers": "transformer.resblocks",
}
OPENAI = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "vision_model.": "visual.",
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.": "",
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
}


def transformers_clip(sizes=SIZES, activation="quick_gelu"):
    """Rough, since norms and biases start at 1 and 0, where a mistake does not show."""
    from transformers import CLIPConfig, CLIPModel

    text, image = sizes["text"], sizes["image"]
    config = CLIPConfig(
        text_config={
            "vocab_size": text["vocabulary_size"],
            "max_position_embeddings": text["positions"],
            "bos_token_id": text["end_of_text"] - 1,
            "eos_token_id": text["end_of_text"],
            "pad_token_id": 0,
            **common(text, activation),
        },
        vision_config={
            "patch_size": image["patch_size"],
            "image_size": image["image_size"],
            **common(image, activation),
        },
        projection_dim=sizes["dim"],
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() and "norm" not in name:
                nn.init.normal_(parameter, std=0.15)
            elif parameter.dim():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def common(tower, activation):
    return {
        "hidden_size": tower["width"],
        "intermediate_size": tower["hidden"],
        "num_hidden_layers": tower["layers"],
        "num_attention_heads": tower["heads"],
        "hidden_act": activation,
    }


def openai_state(model):
    """The same weights under OpenAI's names, written down here and not by the map that is tested."""
    state = {}
    for key, tensor in model.state_dict().items():
        name = key
        for theirs, openais in {**OPENAI, **BLOCK}.items():
            name = name.replace(theirs, openais, 1) if name.startswith(theirs) or theirs in BLOCK else name
        state[name] = tensor
    for key in [key for key in state if ".self_attn.q_proj." in key]:
        before, kind = key.split(".self_attn.q_proj.")
        parts = [state.pop(f"{before}.self_attn.{part}_proj.{kind}") for part in "qkv"]
        state[f"{before}.attn.in_proj_{kind}"] = torch.cat(parts)
    for key in ("text_projection", "visual.proj"):
        state[key] = state[key].t().contiguous()
    return state


def custom_text(state):
    """As open_clip's convert_to_custom_text_state_dict names them."""
    parts = ("text_projection", "positional_embedding", "token_embedding", "transformer", "ln_final")
    return {f"text.{key}" if key.startswith(parts) else key: tensor for key, tensor in state.items()}


class Holder(nn.Module):
    """Modules and parameters by dotted names, which TorchScript can save."""

    def __init__(self, state):
        super().__init__()
        beneath = {}
        for key, tensor in state.items():
            name, _, rest = key.partition(".")
            if rest:
                beneath.setdefault(name, {})[rest] = tensor
            elif tensor.is_floating_point():
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        for name, inner in beneath.items():
            self.add_module(name, Holder(inner))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def script(state, file, dtype=torch.float32):
    """OpenAI's archive, with the three whole numbers that it holds beside the weights."""
    beside = {"input_resolution": 40, "context_length": 20, "vocab_size": 99}
    held = {key: tensor.to(dtype) for key, tensor in state.items()}
    held |= {name: torch.tensor(value) for name, value in beside.items()}
    torch.jit.save(torch.jit.script(Holder(held)), str(file))


def open_clip_config(sizes=SIZES, **more):
    text, image = sizes["text"], sizes["image"]
    vision = {"image_size": image["image_size"], "patch_size": image["patch_size"], "layers": image["layers"]}
    vision |= {"width": image["width"], "head_width": image["width"] // image["heads"]}
    words = {"context_length": text["positions"], "vocab_size": text["vocabulary_size"], "heads": text["heads"]}
    words |= {"width": text["width"], "layers": text["layers"], "mlp_ratio": text["hidden"] / text["width"]}
    vision |= {"mlp_ratio": image["hidden"] / image["width"]}
    model = {"embed_dim": sizes["dim"], "vision_cfg": vision, "text_cfg": words, **more}
    return {"model_cfg": model, "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}}


def write_json(file, content):
    file.write_text(json.dumps(content))


def texts(vocabulary=99, end=98, rows=7, longest=12):
    """(rows, longest) ids, each text with its end at another place, and zeros behind."""
    torch.manual_seed(1)
    ids = torch.randint(1, end - 1, (rows, longest))
    for row in range(rows):
        at = 3 + row % (longest - 3)
        ids[row, at], ids[row, at + 1 :] = end, 0
    return ids
