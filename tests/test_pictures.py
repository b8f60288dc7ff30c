"""Pictures as files: what is written is read again, what follows from something else is not taken for it."""

import numpy as np
import pytest
import torch
from PIL import Image

from vltune.errors import UserError
from vltune.pictures import GAP, LINE, as_bytes, is_of, read_pictures, sheet, write_picture


def picture(number, height=6, width=5):
    numbers = np.random.default_rng(number).integers(0, 256, (3, height, width), dtype=np.uint8)
    return torch.from_numpy(numbers)


def test_numbers_become_bytes():
    values = torch.tensor([-2.0, -1, 0, 1, 2]).expand(1, 3, 1, 5)
    assert as_bytes(values)[0, 0, 0].tolist() == [0, 0, 128, 255, 255]
    kept = picture(0)[None]
    assert torch.equal(as_bytes(kept / 127.5 - 1), kept)


@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
def test_what_is_no_number_is_no_picture(odd):
    with pytest.raises(
        UserError, match=r"^a picture is not of numbers: the training diverged, lower engine\.lr; or try"
    ):
        as_bytes(torch.tensor([0.0, odd]).expand(1, 3, 1, 2))


def test_what_is_written_is_read_again(tmp_path):
    files = [tmp_path / "below" / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        write_picture(file, picture(number))
    assert torch.equal(read_pictures(files), torch.stack([picture(number) for number in range(3)]))
    assert read_pictures([]).shape == (0, 3, 0, 0)
    assert sorted(path.name for path in (tmp_path / "below").iterdir()) == ["0.png", "1.png", "2.png"]


def test_what_a_picture_follows_from(tmp_path):
    file = tmp_path / "a.png"
    assert not is_of(file, "")
    write_picture(file, picture(0), "this")
    assert is_of(file, "this")
    assert not is_of(file, "that")
    file.write_bytes(file.read_bytes()[:-30])
    assert not is_of(file, "this")
    file.unlink()
    file.mkdir()
    assert not is_of(file, "this")


def test_a_sheet_shows_rows_under_their_texts(tmp_path):
    rows = {"a cat": [picture(0), picture(1)], "none of these": [], "a dog": [picture(2)]}
    sheet(tmp_path / "sheet.png", rows, least=12)
    page = np.array(Image.open(tmp_path / "sheet.png"))
    high, wide = LINE + GAP + 12, GAP + 10
    assert page.shape[0] == GAP + 3 * high
    for text, row, column, number in (("a cat", 0, 0, 0), ("a cat", 0, 1, 1), ("a dog", 2, 0, 2)):
        top, left = GAP + row * high + LINE, GAP + column * wide
        found = page[top : top + 12, left : left + 10]
        assert (found == rows[text][number % 2].permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1)).all()
    assert (page[GAP + high + LINE : GAP + 2 * high] == 255).all()  # the row of none
    assert (page[GAP : GAP + LINE] < 128).any()  # its text


def test_a_long_text_is_not_cut_off(tmp_path):
    text = "a photo of a sks stuffed animal on top of green grass with sunflowers around it"
    sheet(tmp_path / "sheet.png", {text: [picture(0)]})
    whole = np.array(Image.open(tmp_path / "sheet.png").convert("L"))
    sheet(tmp_path / "sheet.png", {text: [picture(0)] * 9})
    wider = np.array(Image.open(tmp_path / "sheet.png").convert("L"))
    assert (whole[:LINE] < 128).sum() == (wider[:LINE] < 128).sum()


@pytest.mark.parametrize(("side", "shown"), [(512, 256), (256, 256), (200, 200), (96, 96), (95, 190), (32, 96)])
def test_pictures_of_a_sheet_are_neither_tiny_nor_huge(side, shown, tmp_path):
    sheet(tmp_path / "sheet.png", {"": [picture(0, side, side)]})
    assert Image.open(tmp_path / "sheet.png").size == (shown + 2 * GAP, shown + 2 * GAP + LINE)


def test_a_sheet_of_sizes_and_of_nothing(tmp_path):
    sheet(tmp_path / "sheet.png", {"wide": [picture(0, 100, 400)], "high": [picture(0, 400, 100)]})
    assert Image.open(tmp_path / "sheet.png").size == (256 + 2 * GAP, GAP + 2 * (LINE + GAP + 256))
    sheet(tmp_path / "sheet.png", {"nothing": []})
    sheet(tmp_path / "sheet.png", {})
