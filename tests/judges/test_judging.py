"""What judges say of pictures, by a judge whose figures can be computed by hand."""

import re
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from vltune.errors import UserError
from vltune.judges.clip import ClipJudge
from vltune.judges.dino import Dino
from vltune.judges.folder import check_folder
from vltune.judges.judge import Judge, alike, check_settings, together
from vltune.judges.judging import AT_A_TIME, Judged, rows_of
from vltune.judges.wanted import CLASS, SUBJECT, Wanted
from vltune.metrics.metric import figures
from vltune.tasks.subject import measures


class Colours(Judge):
    """A picture is its mean colour; it shows its prompt where that names its strongest channel."""

    pictures = "hue"
    texts = "named"
    texts_unit = "share"
    identity = "colours"

    def embed(self, pictures):
        return F.normalize(pictures.float().mean((2, 3)), dim=-1)[:, None]

    def agreement(self, pictures, prompts):
        strongest = pictures.float().mean((2, 3)).argmax(1).tolist()
        named = [("red", "green", "blue")[each] in prompt for each, prompt in zip(strongest, prompts, strict=True)]
        return torch.tensor(named).float()


class Later(Colours):
    pictures = "later"
    texts = None


RED, GREEN, BLUE, YELLOW = (torch.tensor(of, dtype=torch.uint8) for of in ([9, 0, 0], [0, 9, 0], [0, 0, 9], [9, 9, 0]))


def pictures(*colours):
    return torch.stack([colour[:, None, None].expand(3, 2, 2) for colour in colours])


@pytest.fixture
def judged():
    wanted = [Wanted(0, SUBJECT, "a z red", 0), Wanted(1, SUBJECT, "a z red", 1), Wanted(0, CLASS, "a red", 0)]
    base = {0: pictures(GREEN)[0]}
    return Judged(wanted, pictures(RED, YELLOW, BLUE), ["a red", "a red", "a red"], base, pictures(RED, GREEN))


def by_measure(rows):
    found = {}
    for row in rows:
        found.setdefault(row["measure"], []).append(row["score"])
    return found


def test_every_measure_by_hand(judged):
    found = by_measure(rows_of(judged, {"colours": Colours}, {"colours": Colours()}))
    half = 0.5**0.5
    assert found["hue"] == pytest.approx([0.5, half])  # the mean over the subject's own two
    assert found["named"] == [1, 1]
    assert found["drift"] == pytest.approx([0.5])  # blue, which was green
    assert found["prior"] == pytest.approx([0.0])
    assert found["diversity"] == pytest.approx([1 - half, 1 - half])


def test_the_subjects_own_pictures_are_compared_with_each_other_alone(judged):
    own = Judged([Wanted(i, SUBJECT, "z", 0) for i in range(2)], judged.real, ["", ""], {}, judged.real, among=True)
    found = by_measure(rows_of(own, {"colours": Colours}, {"colours": Colours()}))
    assert found == {"hue": [0, 0]}


def test_a_single_own_picture_has_no_other_to_be_compared_with(judged):
    one = judged.real[:1]
    own = Judged([Wanted(0, SUBJECT, "z", 0)], one, [""], {}, one, among=True)
    assert by_measure(rows_of(own, {"colours": Colours}, {"colours": Colours()})) == {"hue": [None]}


def test_a_judge_that_is_not_here_leaves_its_rows_without_a_score(judged):
    kinds = {"colours": Colours, "later": Later}
    rows = rows_of(judged, kinds, {"colours": Colours()})
    assert by_measure(rows)["later"] == [None, None]
    assert {row["measure"] for row in rows_of(judged, kinds, {})} == {row["measure"] for row in rows}
    assert figures(measures([*kinds.values()], seeds=2), rows).keys() == {
        *("hue", "named", "balance", "drift", "prior", "diversity")
    }


def test_pictures_are_judged_alone_as_among_others():
    many = torch.randint(256, (AT_A_TIME + 3, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted = [Wanted(i, SUBJECT, str(i), 0) for i in range(len(many))]
    together_ = rows_of(Judged(wanted, many, [""] * len(many), {}, many[:2]), {"c": Colours}, {"c": Colours()})
    for i in (0, AT_A_TIME, len(many) - 1):
        alone = rows_of(
            Judged(wanted[i : i + 1], many[i : i + 1], [""], {}, many[:2]), {"c": Colours}, {"c": Colours()}
        )
        assert alone[0]["score"] == pytest.approx(together_[i]["score"])


class Counted(Colours):
    """seen: how many pictures it embedded."""

    seen = 0

    def embed(self, pictures):
        self.seen += len(pictures)
        return super().embed(pictures)


def test_a_judge_sees_the_pictures_alone_that_it_is_asked_about(judged):
    judges = {"first": Counted(), "second": Counted()}
    rows_of(judged, dict.fromkeys(judges, Counted), judges)
    first, second = (judge.seen for judge in judges.values())
    assert first == 3 + 1 + 2, "all, what the class was, and the subject's own"
    assert second == 2 + 2, "of the subject, and its own"


def test_the_most_alike_regions_count_and_empty_ones_do_not():
    one = torch.tensor([[[1.0, 0], [0, 0]]])
    other = torch.tensor([[[0.0, 0], [0.6, 0.8]]])
    assert alike(one, other).item() == pytest.approx(0.6)
    assert together(one, one).item() == pytest.approx(1)
    empty = torch.zeros_like(one)
    assert together(empty, empty).item() == 1, "a picture of nothing has not moved where it still is one"
    assert together(one, empty).item() == together(empty, one).item() == 0
    many = torch.nn.functional.normalize(torch.randn(100, 1, 96, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert together(many, many).max() <= 1 and alike(many, many).max() <= 1  # what is the same has not moved
    assert together(one, other).item() == pytest.approx(0)


def test_of_nothing_that_was_painted_nothing_is_said(judged):
    nothing = Judged([], judged.pictures[:0], [], {}, judged.real)
    assert rows_of(nothing, {"colours": Colours}, {"colours": Colours()}) == []


class OfFolder(Colours):
    def __init__(self, folder, size=224):
        super().__init__()


@pytest.mark.parametrize(
    ("kind", "given", "told"),
    [
        (Colours, {}, None),
        (OfFolder, {"folder": None, "size": 96}, None),
        (Colours, {"folder": None}, "task.judges.mine.folder: there is no such setting"),
        (OfFolder, {"foldr": "x"}, "task.judges.mine.foldr: there is no such setting; did you mean folder?"),
        (OfFolder, {}, "task.judges.mine.folder: is missing; give it, or task.judges.mine=null not to ask it"),
    ],
)
def test_a_judge_is_given_what_it_takes(kind, given, told):
    with nullcontext() if told is None else pytest.raises(UserError, match=f"^{re.escape(told)}"):
        check_settings("mine", kind, given)


def test_a_judge_s_folder_may_be_below_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "dino").mkdir()
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (tmp_path / "dino" / name).touch()
    assert check_folder("~/dino", "task.judges.dino.folder") == tmp_path / "dino"


def test_a_judge_s_folder_may_have_what_transformers_writes_since_its_version_5(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"has no preprocessor_config\.json; give a folder"):
        check_folder(str(tmp_path), "task.judges.dino.folder")
    (tmp_path / "processor_config.json").touch()
    assert check_folder(str(tmp_path), "task.judges.dino.folder") == tmp_path


@pytest.fixture
def clip_folder(tmp_path):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision, text = sizes | {"image_size": 8, "patch_size": 4}, sizes | {"vocab_size": 8, "max_position_embeddings": 9}
    text |= {"pad_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(tmp_path / "clip")
    size = {"crop_size": {"height": 8, "width": 8}, "size": {"shortest_edge": 8}}
    CLIPImageProcessor(**size).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def with_words(folder):
    (folder / "vocab.json").write_text('{"a</w>": 0, "b</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}')
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def test_a_judge_that_reads_needs_a_tokenizer(clip_folder):
    """transformers makes an empty one of nothing, for which all texts are alike."""
    with pytest.raises(UserError, match=r"task\.judges\.clip\.folder=.*: has no tokenizer\.json; give a folder"):
        ClipJudge(str(clip_folder))
    judge = ClipJudge(str(with_words(clip_folder))).eval()
    pictures = torch.randint(0, 255, (1, 3, 8, 8), dtype=torch.uint8).repeat(2, 1, 1, 1)
    one, other = judge.agreement(pictures, ["a", "b"]).tolist()
    assert one != other


def test_a_picture_is_looked_at_once_for_both_figures(clip_folder, judged):
    judge, seen = ClipJudge(str(with_words(clip_folder))).eval(), []
    judge.model.vision_model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    found = by_measure(rows_of(judged, {"first": Colours, "clip": ClipJudge}, {"clip": judge}))
    assert seen == [2, 2], "the subject's pictures, and its own"
    anew = [judge.agreement(picture[None], ["a red"]).item() for picture in judged.pictures[:2]]
    assert found["clip_t"] == pytest.approx(anew, abs=1e-6)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_judge_computes_in_float32_however_it_was_saved(kind, clip_folder):
    from transformers import CLIPModel

    CLIPModel.from_pretrained(clip_folder, dtype=kind).save_pretrained(clip_folder)
    judge = ClipJudge(str(with_words(clip_folder)))
    assert {parameter.dtype for parameter in judge.parameters()} == {torch.float32}


def test_weights_that_lack_a_part_are_no_judge(clip_folder):
    """transformers draws it at random."""
    file = with_words(clip_folder) / "model.safetensors"
    whole = load_file(file)
    lacking = {name: tensor for name, tensor in whole.items() if not name.startswith("text_model.encoder")}
    save_file(lacking, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"model\.safetensors has no text_model\.encoder.* more, which CLIPModel needs"):
        ClipJudge(str(clip_folder))


def test_what_reads_texts_too_is_no_dino(clip_folder):
    with pytest.raises(UserError, match=r"is a CLIPModel, which reads texts; give one of DINO"):
        Dino(str(clip_folder))


def test_figures_of_what_is_less_are_declared_so():
    of = {metric.name: metric for metric in measures([Colours], seeds=4)}
    assert [name for name, metric in of.items() if metric.better == "less"] == ["drift", "prior"]
    assert [name for name, metric in of.items() if metric.primary] == ["balance"]
    assert [metric.name for metric in measures([Later], seeds=1) if metric.primary] == ["later"]
    assert of["named"].unit == "share" and of["hue"].unit == "cosine" and of["hue"].cluster == 4


PICTURES = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_dino_is_the_class_token_of_length_one(tmp_path):
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    ViTModel(ViTConfig(**sizes, image_size=8, patch_size=4), add_pooling_layer=False).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    judge = Dino(str(tmp_path)).eval()
    tokens = judge.model(PICTURES / 127.5 - 1).last_hidden_state
    torch.testing.assert_close(judge.embed(PICTURES), F.normalize(tokens[:, :1], dim=-1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_clips_figures_are_cosines_of_what_the_whole_model_gives(clip_folder):
    judge, texts = ClipJudge(str(with_words(clip_folder))).eval(), ["a", "b", "a b"]
    pixels = judge.processor(images=list(PICTURES), return_tensors="pt").pixel_values
    whole = judge.model(pixel_values=pixels, **judge.tokenizer(texts, padding=True, return_tensors="pt"))
    torch.testing.assert_close(judge.embed(PICTURES)[:, 0], whole.image_embeds, atol=1e-5, rtol=0)
    expected = (whole.image_embeds * whole.text_embeds).sum(1)
    torch.testing.assert_close(judge.agreement(PICTURES, texts), expected, atol=1e-5, rtol=0)
