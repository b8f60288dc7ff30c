import pytest
import torch

from vltune.data.collate import Collate

COLLATE = Collate(pad_id=7, mean=(0.5, 0.25, 0.5), std=(0.5, 0.5, 0.25))


def example(number, height, width, text):
    image = torch.full((3, height, width), 51 * number, dtype=torch.uint8)
    return {"id": number, "text_ids": text, "image": image, "answer_labels": [number], "answer_scores": []}


def test_pads_text_and_pictures():
    batch = COLLATE([example(1, 4, 6, [5, 5]), {"bad": "row 3"}, example(2, 5, 3, [1, 2, 3])])
    assert batch["ids"] == [1, 2]
    assert batch["bad"] == ["row 3"]
    assert batch["answer_labels"] == [[1], [2]]
    assert batch["text_ids"].tolist() == [[5, 5, 7], [1, 2, 3]]
    assert batch["text_mask"].tolist() == [[True, True, False], [True, True, True]]
    assert batch["image_size"].tolist() == [[4, 6], [5, 3]]
    image = batch["image"]
    assert image.shape == (2, 3, 5, 6)
    # (0.2 - 0.5) / 0.5, (0.2 - 0.25) / 0.5, (0.2 - 0.5) / 0.25
    torch.testing.assert_close(image[0, :, :4].amax((1, 2)), torch.tensor([-0.6, -0.1, -1.2]))
    torch.testing.assert_close(image[0, :, :4].amin((1, 2)), torch.tensor([-0.6, -0.1, -1.2]))
    assert (image[0, :, 4:] == 0).all()
    assert (image[1, :, :, 3:] == 0).all()
    assert (image[1, :, :, :3] != 0).all()


def test_equal_sizes():
    batch = COLLATE([example(1, 4, 4, [5]), example(2, 4, 4, [5])])
    assert batch["image"].shape == (2, 3, 4, 4)
    torch.testing.assert_close(batch["image"][:, 0, 0, 0], torch.tensor([-0.6, -0.2]))


def test_nothing_good():
    assert COLLATE([{"bad": "row 3"}]) == {"ids": [], "bad": ["row 3"]}


def test_pairs_of_images_and_labels():
    examples = [
        {"id": n, "image_0": torch.zeros(3, 2 * n, 4, dtype=torch.uint8), "image_1": torch.zeros(3, 2, 2), "label": n}
        for n in (1, 2)
    ]
    batch = COLLATE(examples)
    assert batch.keys() == {"ids", "bad", "image_0", "image_0_size", "image_1", "image_1_size", "label"}
    assert batch["image_0"].shape == (2, 3, 4, 4)
    assert batch["image_0_size"].tolist() == [[2, 4], [4, 4]]
    assert batch["image_1"].shape == (2, 3, 2, 2)
    assert (batch["label"].tolist(), batch["label"].dtype) == ([1, 2], torch.int64)


def test_false_captions_are_padded_apart_from_the_true_ones():
    batch = COLLATE(
        [
            {"id": 1, "text_ids": [1], "false_text_ids": [[1, 2, 3], [4]]},
            {"id": 2, "text_ids": [5, 6], "false_text_ids": [[5], [6, 6]]},
        ]
    )
    assert batch["text_ids"].tolist() == [[1, 7], [5, 6]]
    assert batch["false_text_ids"].tolist() == [[1, 2, 3], [4, 7, 7], [5, 7, 7], [6, 6, 7]]
    assert batch["false_text_mask"].sum(1).tolist() == [3, 1, 1, 2]
    assert batch.keys() == {"ids", "bad", "text_ids", "text_mask", "false_text_ids", "false_text_mask"}


def test_features():
    examples = [
        {
            "id": n,
            "image_features": torch.full((5, 2), float(n)),
            "text_ids": [1] * n,
            "text_features": torch.full((n, 2), float(n)),
            "false_text_ids": [[1] * n, [1]],
            "false_text_features": [torch.full((n, 2), 3.0), torch.full((1, 2), 4.0)],
        }
        for n in (1, 2)
    ]
    batch = COLLATE(examples)
    assert batch["image_features"].shape == (2, 5, 2)
    assert "image_features_size" not in batch
    assert batch["text_features"][..., 0].tolist() == [[1, 0], [2, 2]]
    assert batch["false_text_features"][..., 1].tolist() == [[3, 0], [4, 0], [3, 3], [4, 0]]
    with pytest.raises(RuntimeError, match="equal size"):
        COLLATE([{"id": n, "image_0_features": torch.zeros(n, 2)} for n in (1, 2)])
