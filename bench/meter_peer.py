"""METER, which transformers lacks, of what it has: RoBERTa, CLIP's image tower, BridgeTower's cross layers."""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import BridgeTowerTextConfig, CLIPVisionConfig, CLIPVisionModel, RobertaConfig, RobertaModel
from transformers.models.bridgetower.modeling_bridgetower import BridgeTowerBertCrossLayer, BridgeTowerPooler

from vltune.costs import macs
from vltune.model import Model
from vltune.nn.heads import classifier

WIDTH, LAYERS = 768, 6
SITES = r"(text|image)_layers\..*\.(query|value)"
TRAINED = ["text_pooler", "image_pooler", "token_type", "class_token", "head"]


class MeterPeer(nn.Module):
    """As `vltune.backbones.meter` with `vltune.tasks.vqa`'s head, no dropout, every token in the last layer."""

    def __init__(self, answers: int):
        super().__init__()
        off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "attn_implementation": "sdpa"}
        text = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, **off)
        image = CLIPVisionConfig(patch_size=16, image_size=384, num_hidden_layers=11, attn_implementation="sdpa")
        self.text, self.image = RobertaModel(text, add_pooling_layer=False), CLIPVisionModel(image)
        self.text_projection, self.image_projection = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.class_token, self.token_type = nn.Embedding(1, WIDTH), nn.Embedding(2, WIDTH)
        fusion = BridgeTowerTextConfig(hidden_size=WIDTH, num_attention_heads=12, intermediate_size=4 * WIDTH, **off)
        self.text_layers, self.image_layers = (
            nn.ModuleList(BridgeTowerBertCrossLayer(fusion) for _ in range(LAYERS)) for _ in range(2)
        )
        for layer in (*self.text_layers, *self.image_layers):
            layer.attention.self.is_causal = False  # sdpa masks by it what has no mask; the eager attention does not
        self.text_pooler, self.image_pooler = BridgeTowerPooler(fusion), BridgeTowerPooler(fusion)
        self.head = classifier(2 * WIDTH, 2 * WIDTH, answers)

    def forward(self, text_ids: Tensor, image: Tensor) -> Tensor:
        """-> (B, answers) logits"""
        x = self.text_projection(self.text(text_ids).last_hidden_state)
        y = self.image_projection(self.image.post_layernorm(self.image(image).last_hidden_state))
        x = torch.cat([self.class_token.weight.expand(len(x), 1, -1), x[:, 1:]], dim=1)
        x, y = x + self.token_type.weight[0], y + self.token_type.weight[1]
        for of_text, of_image in zip(self.text_layers, self.image_layers, strict=True):
            x, y = of_text(x, y)[0], of_image(y, x)[0]
        return self.head(torch.cat([self.text_pooler(x), self.image_pooler(y)], dim=1))


def lora(peer: MeterPeer) -> nn.Module:
    """PEFT's LoRA where ours is; trained beside it what METER trains with every method."""
    return get_peft_model(peer, LoraConfig(r=4, target_modules=SITES, lora_dropout=0.1, modules_to_save=TRAINED))


def likeness(ours: Model, batch: dict[str, Tensor]) -> str:
    """How alike ours under LoRA and the peer are: parameters, and MACs of one example in inference."""
    peer = MeterPeer(len(ours.task.answers))
    frozen = sum(each.numel() for each in peer.parameters())  # PEFT keeps copies of what it trains
    theirs = macs.traced(peer, (batch["text_ids"], batch["image"]))
    of_peer = {name: each.numel() for name, each in lora(peer).named_parameters() if each.requires_grad}
    frozen -= sum(count for name, count in of_peer.items() if "lora_" not in name)
    own = [
        sum(each.numel() for each in ours.parameters() if each.requires_grad == trained) for trained in (False, True)
    ]
    counted = sum(macs.count(ours, batch).values())
    with macs.every_token(ours.backbone):
        every = sum(macs.count(ours, batch).values())
    return (
        f"parameters: frozen {own[0]:,}, the peer's {frozen:,}; trained {own[1]:,} and {sum(of_peer.values()):,}\n"
        f"GMACs: {counted / 1e9:.1f}, {every / 1e9:.1f} with every token in the last layer as the peer's {theirs / 1e9:.1f}"
    )
