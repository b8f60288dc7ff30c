"""Pictures of a class are made once, whoever asks, and whatever stops in between."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vltune.data.subjects.class_pictures import class_pictures
from vltune.errors import UserError
from vltune.pictures import as_bytes

ABOUT = {"weights": "0f", "prompt": "a photo of a dog", "sampler": [25, 2.0]}
SEEDS = [7, 8, 9, 10, 11]


def kept(root, about, seeds, make, **more):
    return class_pictures(root, about, {str(seed): seed for seed in seeds}, make, **more)


def painted(seeds, side=6):
    """(B, 3, side, side), each by its seed alone."""
    return torch.stack([torch.rand(3, side, side, generator=torch.Generator().manual_seed(s)) * 2 - 1 for s in seeds])


class Painter:
    """Counts what it is asked for.  stop: a number of calls after which it fails."""

    def __init__(self, stop=None):
        self.asked, self.stop = [], stop

    def __call__(self, seeds):
        if len(self.asked) == self.stop:
            raise KeyboardInterrupt
        self.asked.append(seeds)
        return painted(seeds)


def test_what_is_kept_is_what_was_made(tmp_path):
    painter = Painter()
    for _ in range(2):
        found = kept(tmp_path, ABOUT, SEEDS, painter, batch=2)
        assert found.dtype == torch.uint8
        assert torch.equal(found, as_bytes(painted(SEEDS)))
    assert painter.asked == [[7, 8], [9, 10], [11]]
    [folder] = tmp_path.iterdir()
    assert json.loads((folder / "about.json").read_text()) == ABOUT
    assert {file.name for file in folder.glob("*.png")} == {f"{seed}.png" for seed in SEEDS}


def test_more_seeds_and_another_order(tmp_path):
    kept(tmp_path, ABOUT, [8, 9], painted)
    painter = Painter()
    found = kept(tmp_path, ABOUT, [9, 7, 8], painter)
    assert painter.asked == [[7]]
    assert torch.equal(found, as_bytes(painted([9, 7, 8])))
    assert kept(tmp_path, ABOUT, [], painter).shape == (0, 3, 0, 0)


def test_another_model_or_prompt_has_its_own(tmp_path):
    for about in (ABOUT, ABOUT | {"weights": "10"}, ABOUT | {"prompt": "a photo of a cat"}):
        painter = Painter()
        kept(tmp_path, about, SEEDS, painter)
        assert painter.asked == [SEEDS]
    assert len([*tmp_path.iterdir()]) == 3
    kept(tmp_path, dict(reversed(ABOUT.items())) | {"sampler": (25, 2)}, SEEDS, Painter(stop=0))


def test_a_stopped_run_goes_on_in_the_same_company(tmp_path):
    stopped, painter, there = Painter(stop=1), Painter(), []
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path, ABOUT, SEEDS, stopped, batch=2)
    assert len([*tmp_path.rglob("*.png")]) == 2
    [folder] = tmp_path.iterdir()
    (folder / ".9.png.0123.tmp").write_bytes(b"half")  # of a process that was killed
    kept(tmp_path, ABOUT, SEEDS, painter, batch=2, step=there.append)
    assert stopped.asked + painter.asked == [[7, 8], [9, 10], [11]]
    assert there == [2, 4, 5]
    assert not [*folder.glob(".*.tmp")]


def test_what_step_raises_ends_it_between_pictures(tmp_path):
    def step(there):
        if there:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        kept(tmp_path, ABOUT, SEEDS, painted, batch=3, step=step)
    painter = Painter()
    kept(tmp_path, ABOUT, SEEDS, painter, batch=3)
    assert painter.asked == [[10, 11]]


@pytest.mark.parametrize("broken", ["half", "other", "swapped", "empty"])
def test_a_damaged_picture_is_made_anew(broken, tmp_path, capsys):
    kept(tmp_path, ABOUT, SEEDS, painted)
    [file] = tmp_path.rglob("9.png")
    whole, swapped = file.read_bytes(), file.with_name("8.png").read_bytes()
    if broken == "other":
        kept(tmp_path / "other", {}, SEEDS, lambda seeds: -painted(seeds))
        whole = next((tmp_path / "other").rglob("9.png")).read_bytes()
    file.write_bytes({"half": whole[: len(whole) // 2], "other": whole, "swapped": swapped, "empty": b""}[broken])
    painter = Painter()
    assert torch.equal(kept(tmp_path, ABOUT, SEEDS, painter), as_bytes(painted(SEEDS)))
    assert painter.asked == [[9]]
    assert capsys.readouterr().err == f"{file}: damaged, or of something else: made anew\n"


def test_a_picture_of_no_numbers_is_never_kept(tmp_path):
    def spoiled(seeds):
        pictures = painted(seeds)
        pictures[1, 0, 0, 0] = torch.nan
        return pictures

    with pytest.raises(UserError, match=r"8\.png: not written, the model gives no numbers for it; try engine\.prec"):
        kept(tmp_path, ABOUT, SEEDS, spoiled)
    assert not [*tmp_path.rglob("*.png")]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be made \(.*\): name another engine\.features_dir"):
        kept(tmp_path / "file", ABOUT, SEEDS, painted)


PROCESS = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_class_pictures import ABOUT, SEEDS, kept, painted

def make(seeds):
    print(*seeds, flush=True)
    time.sleep(0.4)
    return painted(seeds)

assert len(kept(Path(sys.argv[1]), ABOUT, SEEDS, make, batch=1)) == len(SEEDS)
"""


def test_of_processes_that_start_together_one_makes_them(tmp_path):
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "kept"), str(Path(__file__).parent)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], told
    assert sorted(seed for out, _ in told for seed in map(int, out.split())) == SEEDS
    assert sorted(len(out.split()) for out, _ in told) == [0, len(SEEDS)]
