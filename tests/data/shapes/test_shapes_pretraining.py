import numpy as np
import pytest
import torch
from reading import things, true

from vltune.data.shapes import scenes
from vltune.data.shapes.pretraining import PretrainingBatches
from vltune.data.shapes.render import render
from vltune.data.shapes.vocabulary import VOCABULARY
from vltune.data.tokenizer import Tokenizer
from vltune.errors import UserError

TOKENS = VOCABULARY.read_text().splitlines()


@pytest.fixture
def stream(tokenizer):
    return PretrainingBatches(seed=4, batch_size=64, tokenizer=tokenizer, max_text_len=20)


@pytest.fixture
def seen(stream, monkeypatch):
    """A batch and the scenes that its images show."""
    drawn = []

    def remember(shown):
        drawn.append(shown)
        return render(shown)

    monkeypatch.setattr("vltune.data.shapes.pretraining.render", remember)
    return stream.batch(3), drawn[0]


def words(ids, mask):
    return [TOKENS[i] for i in ids[mask].tolist()][1:-1]


def test_shapes_and_types(stream):
    batch = stream.batch(0)
    length = batch["text_ids"].shape[1]
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items()} == {
        "text_ids": ((64, length), torch.int64),
        "text_mask": ((64, length), torch.bool),
        "image": ((64, 3, 64, 64), torch.float32),
        "image_size": ((64, 2), torch.int64),
        "match": ((64,), torch.int64),
        "wrong_words": ((64, length), torch.bool),
        "word_labels": ((64, length), torch.int64),
        "attributes": ((64, 16, 3), torch.int64),
    }
    assert length == batch["text_mask"].sum(1).max() <= 20
    assert (batch["image_size"] == 64).all()
    assert batch["image"].min() >= -1
    assert batch["image"].max() <= 1
    assert stream.attribute_classes == (6, 7, 3)


def test_follows_from_seed_and_step(stream, tokenizer):
    again = PretrainingBatches(4, 64, tokenizer, 20)
    other = PretrainingBatches(5, 64, tokenizer, 20)
    one = stream.batch(7)
    assert all(torch.equal(one[key], value) for key, value in again.batch(7).items())
    assert not torch.equal(one["image"], stream.batch(8)["image"])
    assert not torch.equal(one["image"], other.batch(7)["image"])


def test_images_are_normalised(seen):
    batch, drawn = seen
    torch.testing.assert_close(batch["image"], (torch.from_numpy(render(drawn)) / 255 - 0.5) / 0.5)


def test_captions_match_as_labelled(seen, tokenizer):
    batch, drawn = seen
    kinds = {"true": 0, "hard": 0, "easy": 0}
    for row in range(64):
        mask = batch["text_mask"][row]
        caption = words(batch["text_ids"][row], mask)
        assert batch["text_ids"][row][mask].tolist() == tokenizer(" ".join(caption))
        assert (batch["text_ids"][row][~mask] == tokenizer.pad_id).all()
        assert true(" ".join(caption), things(drawn, row)) == bool(batch["match"][row])
        labels, wrong = batch["word_labels"][row], batch["wrong_words"][row]
        assert ((labels == 1) == wrong).all()
        is_word = torch.zeros_like(mask)
        is_word[1 : 1 + len(caption)] = True
        if batch["match"][row]:
            kinds["true"] += 1
            assert labels.tolist() == torch.where(is_word, 0, -100).tolist()
        elif wrong.any():
            kinds["hard"] += 1
            assert wrong.sum() == 1
            assert labels.tolist() == torch.where(is_word, wrong.long(), -100).tolist()
        else:
            kinds["easy"] += 1
            assert (labels == -100).all()
    assert kinds == {"true": 32, "hard": 16, "easy": 16}


def test_wrong_word_can_be_put_right(seen):
    """Some other word in the marked place makes each hard negative true."""
    batch, drawn = seen
    for row in batch["wrong_words"].any(1).nonzero()[:, 0].tolist():
        caption = words(batch["text_ids"][row], batch["text_mask"][row])
        place = int(batch["wrong_words"][row].nonzero()) - 1
        candidates = (
            "above below left right top bottom center",
            " ".join(scenes.SIZES + scenes.COLOURS + scenes.SHAPES),
        )
        repaired = []
        for word in " ".join(candidates).split():
            attempt = " ".join([*caption[:place], word, *caption[place + 1 :]])
            try:
                repaired.append(true(attempt, things(drawn, row)))
            except AttributeError:  # not a caption
                continue
        assert any(repaired)


@pytest.mark.parametrize("patch", [8, 16, 32])
def test_attributes_follow_the_picture(patch, tokenizer, monkeypatch):
    """The object whose pixels, drawn alone, fill most of a patch gives it its attributes."""
    drawn = scenes.draw(np.random.default_rng(2), 40)
    monkeypatch.setattr(scenes, "draw", lambda rng, count, split="train": drawn[:count])
    found = PretrainingBatches(0, 40, tokenizer, 20, patch_size=patch)._attributes(drawn).reshape(40, -1, 3)
    covered = np.zeros((40, 9, 64, 64))
    for cell in range(9):
        alone = np.where(np.arange(9) == cell, 1, 0)
        single = scenes.Scenes(
            *(values * alone for values in (drawn.shape, drawn.colour, drawn.size)),
            drawn.jitter,
            drawn.shade,
            drawn.tint,
        )
        pixels = render(single).astype(int) - drawn.tint[:, :, None, None]
        covered[:, cell] = np.abs(pixels).sum(1) >= 0.5 * np.abs(pixels).sum(1).max((1, 2), keepdims=True)
        covered[:, cell] *= (drawn.shape[:, cell] > 0)[:, None, None]
    side = 64 // patch
    share = covered.reshape(40, 9, side, patch, side, patch).mean((3, 5)).reshape(40, 9, -1)
    for row in range(40):
        for number in range(side**2):
            cell = share[row, :, number].argmax()
            expected = [drawn.shape[row, cell], drawn.colour[row, cell], drawn.size[row, cell]]
            if share[row, cell, number] < 0.05:
                expected = [0, 0, 0]
            close = np.sort(share[row, :, number])[-2:]
            if close[1] - close[0] < 0.03 or abs(close[1] - 0.05) < 0.03:
                continue  # too near for pixels on an edge
            assert found[row, number].tolist() == expected
    assert (found[..., 0] > 0).mean() > 0.2


def test_never_shows_a_layout_of_val_or_test(seen):
    _, drawn = seen
    for split in ("val", "test"):
        other = scenes.draw(np.random.default_rng(0), 3000, split)
        assert not set(drawn.layout.tolist()) & set(other.layout.tolist())


def test_small_batches(tokenizer):
    for size in (1, 2, 5):
        batch = PretrainingBatches(0, size, tokenizer, 12).batch(0)
        assert len(batch["match"]) == size
        assert batch["match"].sum() == size - size // 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"patch_size": 20}, "patch_size=20"), ({"max_text_len": 8}, "max_text_len=8")],
)
def test_settings(tokenizer, settings, message):
    with pytest.raises(UserError, match=message):
        PretrainingBatches(**({"seed": 0, "batch_size": 4, "tokenizer": tokenizer, "max_text_len": 20} | settings))


def test_foreign_vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(token for token in TOKENS if token != "purple"))
    with pytest.raises(UserError, match="splits the caption words purple"):
        PretrainingBatches(0, 4, Tokenizer(path, 20), 20)
