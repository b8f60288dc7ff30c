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
