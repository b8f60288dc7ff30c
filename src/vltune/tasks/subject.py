"""Subject-driven generation: a diffusion model learns from a few pictures what a token stands for (DreamBooth, Ruiz et al.
2022, arXiv 2208.12242).

    loss = w_t |f(z_t, t, "a photo of sks dog") - target|^2 + prior_weight w_t |f(z'_t, t, "a photo of a dog") - target|^2

z: latents of the subject's pictures, z': of pictures that the model painted of the class before it was tuned, which keep it
from taking every dog for this one (prior preservation, eq. 2 there).  f, w_t and the target are the backbone's: noise,
velocity or the picture itself, as its scheduler says.

What is judged are pictures of fixed prompts and seeds, each prompt with its token and without: of the first, how alike the
subject they are and how well they show what the prompt says; of the second, how far they have moved from what the untuned
model paints of the same noise (drift), and how alike the subject they have become (prior).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vltune.backbones.backbone import DENOISING, Backbone
from vltune.batch import Batch
from vltune.data.subjects.prompts import has_other_brace
from vltune.errors import UserError
from vltune.judges.judge import Judge, check_settings, find, opened
from vltune.judges.wanted import CLASS, SUBJECT, Wanted
from vltune.metrics.metric import Metric
from vltune.tasks.task import KeptTexts, RowColumn, Task

SHOWN = ("painted", "real", "copied")
SHARE = "share"
CLASS_SEED = 1_000_000  # of the first picture of the class, far from those that are judged


def measures(judges: Sequence[type[Judge]], seeds: int) -> tuple[Metric, ...]:
    """What the judges measure.  Pictures of a prompt are taken as one by tests.

    Where the first judge reads texts, rates are chosen by the balance of both its figures, their harmonic mean: by likeness
    alone a model that paints the subject whatever is asked for would be the best."""
    found, balanced = [], bool(judges) and judges[0].texts is not None
    for judge in judges:
        found.append(of(judge.pictures, primary=not (found or balanced), cluster=seeds))
        if judge.texts:
            found.append(of(judge.texts, unit=judge.texts_unit, cluster=seeds))
    if balanced:
        found.append(Metric("balance", unit=SHARE, primary=True, harmonic_of=(judges[0].pictures, judges[0].texts)))
    if found:
        found += [
            of("drift", better="less", cluster=seeds),
            of("prior", better="less", cluster=seeds),
            of("diversity", cluster=seeds),
        ]
    return tuple(found)


def of(measure: str, unit: str = "cosine", **more: Any) -> Metric:
    return Metric(measure, unit=unit, rows={"measure": measure}, **more)


class Subject(KeptTexts, Task):
    """noun: the subject's class.  prompts: with `{token}` and `{class}`, those that are judged.
    tokenizer: gives a text's token ids; None, where no data is read: prompts are stand-ins.
    token: what stands for the subject.  caption: what its pictures are called in training.
    prior_weight: 0 for none.  class_pictures: how many of the class, painted before training.
    class_captions: what those are called, by turns, with `{class}`; None: as the subject's, without the token.
    seeds: of the pictures of each prompt.
    sampler_steps: steps of the sampler, DDIM, for a picture.
    guidance: how far the prompt leads away from the empty one; 1: not at all.
    shown: which pictures are judged: those that are `painted`; the subject's `real` ones, a ceiling; or one of them again
    and again, `copied`, which says what the judge makes of a model that does as much.
    judges: {module of vltune.judges: its settings, or null where it is not asked}.  The first one measures drift, prior and
    diversity.

    base: what the untuned backbone painted of the class, by `Wanted.name`, (3, H, W) uint8, given before training.
    """

    needs = DENOISING
    recalls = True
    evaluator = "painted"
    metrics = measures([find("dino"), find("clip")], seeds=1)
    columns = (
        RowColumn("measure", "text"),
        RowColumn("about", "text"),
        RowColumn("seed", "number"),
        RowColumn("picture", "image"),
        RowColumn("beside", "image"),
    )

    def __init__(
        self,
        noun: str,
        prompts: Sequence[str],
        tokenizer: Callable[[str], list[int]] | None = None,
        token: str = "sks",
        caption: str = "a photo of {token} {class}",
        prior_weight: float = 1.0,
        class_pictures: int = 200,
        class_captions: Sequence[str] | None = None,
        seeds: Sequence[int] = (0, 1, 2, 3),
        sampler_steps: int = 50,
        guidance: float = 7.5,
        shown: str = "painted",
        judges: Mapping[str, Mapping[str, Any] | None] | None = None,
    ):
        super().__init__()
        if shown not in SHOWN:
            raise UserError(f"task.shown={shown}: must be one of {', '.join(SHOWN)}")
        if token.split() != [token]:
            raise UserError(f"task.token={token!r}: must be one word")
        for name, text in (("task.caption", caption), *(("dataset.prompts", prompt) for prompt in prompts)):
            self.check_prompt(name, text, token, noun)
        for text in class_captions or ():
            if "{class}" not in text or "{token}" in text:
                raise UserError(f"task.class_captions={text!r}: must say {{class}} and no {{token}}, the subject's")
            self.check_braces("task.class_captions", text)
        self.noun, self.prompts, self.tokenizer = noun, list(prompts), tokenizer
        self.token, self.caption = token, caption
        self.class_captions = [self.said(text, "") for text in class_captions or (caption,)]
        self.prior_weight, self.class_pictures = prior_weight, class_pictures if prior_weight else 0
        self.seeds, self.sampler_steps, self.guidance, self.shown = list(seeds), sampler_steps, guidance, shown
        self.judges = {name: dict(given) for name, given in (judges or {}).items() if given is not None}
        self.kinds = {name: find(name) for name in self.judges}
        for name, given in self.judges.items():
            check_settings(name, self.kinds[name], given)
        self.metrics = measures([*self.kinds.values()], len(self.seeds))
        self.identities: dict[str, str | None] = dict.fromkeys(self.judges)
        self.base: dict[str, Tensor] = {}
        self._ids: dict[str, Tensor] = {}
        self.register_buffer("class_latents", None, persistent=False)

    @staticmethod
    def check_prompt(name: str, text: str, token: str, noun: str) -> None:
        """UserError where the token is no word by itself, or one of the others: judges read the prompt without it."""
        words = text.replace("{class}", noun).split()
        if "{token}" not in text:
            raise UserError(f"{name}={text!r}: has no {{token}}, so that nothing in it says which subject is meant")
        if text.count("{token}") != words.count("{token}"):
            raise UserError(f"{name}={text!r}: put spaces around {{token}}: judges read the prompt without that word")
        if token in words:
            raise UserError(f"task.token={token}: is a word of {text!r} as well, which judges would read without it")
        Subject.check_braces(name, text)

    @staticmethod
    def check_braces(name: str, text: str) -> None:
        """UserError where something else stands in braces."""
        if has_other_brace(text):
            raise UserError(f"{name}={text!r}: has a brace that is of neither {{token}} nor {{class}}; leave it out")

    def said(self, text: str, token: str) -> str:
        """A prompt in words; without its token where that is empty."""
        return " ".join(text.replace("{token}", token).replace("{class}", self.noun).split())

    def wanted(self) -> list[Wanted]:
        """What is painted to be judged."""
        found = []
        for about, token in ((SUBJECT, self.token), (CLASS, "")):
            for number, prompt in enumerate(self.prompts):
                text = self.said(prompt, token)
                found += [Wanted(number * len(self.seeds) + i, about, text, seed) for i, seed in enumerate(self.seeds)]
        return found

    def shows(self, real: int) -> list[Wanted]:
        """What is judged, of a subject of so many `real` pictures."""
        if self.shown == "painted":
            return self.wanted()
        if self.shown == "real":
            return [Wanted(number, SUBJECT, self.said(self.caption, self.token), 0) for number in range(real)]
        return [each for each in self.wanted() if each.about == SUBJECT]

    def without_token(self, wanted: Wanted) -> str:
        """What a judge reads: it knows the word for the class alone."""
        return " ".join(word for word in wanted.prompt.split() if word != self.token)

    def judges_here(self) -> dict[str, Judge]:
        """Those of which no setting is null."""
        here = {name: given for name, given in self.judges.items() if None not in given.values()}
        found = {name: opened(self.kinds[name], **given) for name, given in here.items()}
        self.identities = dict.fromkeys(self.judges) | {name: each.identity for name, each in found.items()}
        return found

    def begin(self, backbone: Backbone) -> None:
        backbone.check_sampler(self.sampler_steps)
        if self.prompts:  # else it paints what is asked for beside the run
            self.check_lengths()

    def check_lengths(self) -> None:
        """UserError where the text encoder would read the beginning of a text alone."""
        captions = [("task.caption", self.said(self.caption, self.token))]
        captions += [("task.class_captions", text) for text in self.class_captions if self.class_pictures]
        for name, text in [*captions, *(("dataset.prompts", self.said(each, self.token)) for each in self.prompts)]:
            if self.is_cut(text):
                length = self.tokenizer.max_length
                raise UserError(
                    f"{name}={text!r}: is longer than the {length} tokens that are read of a text; shorten it"
                )

    def is_cut(self, text: str) -> bool:
        """Whether it is longer than what the text encoder reads; False where the tokenizer does not say."""
        return getattr(self.tokenizer, "cuts", lambda text: False)(text)

    def declaration(self) -> dict[str, Any]:
        return super().declaration() | {"judges": self.identities}

    def of_class(self) -> list[Wanted]:
        """What the untuned backbone paints for training."""
        return [Wanted(i, CLASS, self.class_caption(i), CLASS_SEED + i) for i in range(self.class_pictures)]

    def class_caption(self, number: int) -> str:
        """Of a picture of the class."""
        return self.class_captions[number % len(self.class_captions)]

    @torch.no_grad()
    def paint(self, backbone: Backbone, wanted: Sequence[Wanted]) -> Tensor:
        """(B, 3, H, W) in [-1, 1].  A picture is the same in any company, to what kernels round."""
        texts = self.text_states(backbone, [each.prompt for each in wanted])
        empty, noise = self.text_state(backbone, ""), backbone.noise([each.seed for each in wanted])
        return backbone.paint(texts, empty, noise, self.sampler_steps, self.guidance)

    def text_states(self, backbone: Backbone, texts: Sequence[str]) -> Tensor:
        """(N, T, width)"""
        if self.keeps_texts:
            return torch.cat([self.text_state(backbone, text) for text in texts])
        return backbone.embed_prompt({"text_ids": self.ids(texts).to(self.device(backbone))})

    def text_state(self, backbone: Backbone, text: str) -> Tensor:
        """(1, T, width)"""
        if (kept := self._kept.get(text)) is not None and kept.device == self.device(backbone):
            return kept
        state = backbone.embed_prompt({"text_ids": self.ids([text]).to(self.device(backbone))})
        if self.keeps_texts:
            self._kept[text] = state = state.detach()
        return state

    def ids(self, texts: Sequence[str]) -> Tensor:
        """(N, T) int64, on the host"""
        for text in texts:
            if text not in self._ids:
                self._ids[text] = torch.tensor([self.tokenizer(text)])
        return torch.cat([self._ids[text] for text in texts])

    @staticmethod
    def device(backbone: Backbone) -> torch.device:
        return next(backbone.parameters()).device

    @torch.no_grad()
    def remember(self, backbone: Backbone, pictures: Tensor) -> None:
        """Takes the pictures of the class that `of_class` asks for, (N, 3, H, W) in [-1, 1]."""
        found = [backbone.image_features(part.to(self.device(backbone))) for part in pictures.split(8)]
        self.class_latents = torch.cat(found)

    def forward(self, backbone: Backbone, batch: Batch) -> Tensor:
        """-> (B, 1) the weighted squared error of each picture, and with prior preservation (B, 2): that of as many
        pictures of the class, drawn at random, beside it"""
        latents = backbone.encode_picture(batch)
        count = len(latents)
        if self.tokenizer is None:
            texts = backbone.embed_prompt(batch)
        else:
            texts = self.text_state(backbone, self.said(self.caption, self.token)).expand(count, -1, -1)
        if self.class_pictures and self.training:
            drawn = torch.randint(len(self.class_latents), (count,))
            latents = torch.cat([latents, backbone.encode_picture({"image_features": self.class_latents[drawn]})])
            of_class = self.text_states(backbone, self.class_captions)
            texts = torch.cat([texts, of_class[drawn % len(of_class)]])
        return backbone.errors(latents, texts).view(-1, count).t()

    def counted(self, backbone: Backbone, batch: Batch) -> dict[str, Callable[[], Tensor]]:
        """One call of the denoising network, and one prompt."""
        ids = batch["text_ids"]
        latents = torch.zeros(1, *backbone.latent_shape, device=ids.device)
        steps = torch.zeros(1, dtype=torch.int64, device=ids.device)
        texts = torch.zeros(*ids.shape, backbone.width, device=ids.device)
        return {
            "call": lambda: backbone.denoise(latents, steps, texts),
            "prompt": lambda: backbone.embed_prompt(batch),
        }

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        errors = output.mean(0)
        return errors[0] + self.prior_weight * errors[1:].sum()
