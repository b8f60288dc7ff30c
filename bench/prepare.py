"""How fast raw VQAv2 becomes what runs read, and in how much memory: `python bench/prepare.py [--questions 100000]`.

Makes a raw tree in the official layout, of the real data's proportions: 5.4 questions an image in train and val, ten
answers a question; its images are hard links of a few JPEGs of noise of about the real size.  Then prepares it with the
command that users give and adds up the memory of that process and all its children, four times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = {"train2014": 0.4, "val2014": 0.2, "test2015": 0.4}  # of the questions, about as in the real data
PER_IMAGE = {"train2014": 5.4, "val2014": 5.3, "test2015": 5.5}
WORDS = ("what", "color", "is", "the", "left", "small", "dog", "on", "a", "table", "near", "how", "many", "people")
JPEGS, SIZE = 8, (640, 480)


def write_raw(raw: Path, questions: int) -> None:
    """`questions` in all, of them test-dev has the first quarter of test's."""
    rng = np.random.default_rng(0)
    answers = np.array([f"answer {number}" for number in range(4000)] + ["yes", "no", "2"])
    likely = np.concatenate([1 / np.arange(10, 4010), [3, 2, 1]])
    first_image = 1
    for subtype, share in SPLITS.items():
        count = round(questions * share)
        images = round(count / PER_IMAGE[subtype])
        (raw / subtype).mkdir()
        jpegs = [write_jpeg(raw / f"{subtype}-{number}.jpg", rng) for number in range(2 * JPEGS)]
        held_out = first_image + images - 1000  # of val, which may share no image with the rest
        for image in range(first_image, first_image + images):
            os.link(
                jpegs[image % JPEGS + JPEGS * (image >= held_out)], raw / subtype / f"COCO_{subtype}_{image:012d}.jpg"
            )
        asked = [first_image + number % images for number in range(count)]
        keys = [{"image_id": image, "question_id": 100 * image + n // images} for n, image in enumerate(asked)]
        texts = rng.choice(WORDS, (count, 6))
        entries = [key | {"question": f"{' '.join(words)}?"} for key, words in zip(keys, texts.tolist(), strict=True)]
        write_json(raw / f"v2_OpenEnded_mscoco_{subtype}_questions.json", "questions", entries)
        if subtype == "test2015":
            write_json(raw / "v2_OpenEnded_mscoco_test-dev2015_questions.json", "questions", entries[: count // 4])
        else:
            drawn = rng.choice(answers, (count, 3), p=likely / likely.sum()).tolist()
            annotations = (key | annotation(three) for key, three in zip(keys, drawn, strict=True))
            write_json(raw / f"v2_mscoco_{subtype}_annotations.json", "annotations", annotations)
        first_image += images


def write_jpeg(path: Path, rng: np.random.Generator) -> Path:
    coarse = Image.fromarray(rng.integers(0, 256, (SIZE[1] // 4, SIZE[0] // 4, 3), dtype=np.uint8))
    coarse.resize(SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
    return path


def annotation(three: list[str]) -> dict:
    humans = [three[0]] * 6 + [three[1]] * 3 + [three[2]]
    return {
        "question_type": "what",
        "answer_type": "other",
        "multiple_choice_answer": three[0],
        "answers": [{"answer": a, "answer_confidence": "yes", "answer_id": n} for n, a in enumerate(humans, 1)],
    }


def write_json(path: Path, key: str, entries: Iterator[dict] | list[dict]) -> None:
    """Entry by entry: this process is not what is measured, but it need not hold all."""
    with path.open("w") as file:
        file.write(f'{{"info": {{}}, "{key}": [')
        for number, entry in enumerate(entries):
            file.write(", " * bool(number) + json.dumps(entry))
        file.write("]}")


def family(pid: int) -> list[int]:
    """A process and all that come from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(each for child in children for each in family(int(child)))]


def memory(pid: int, kind: str) -> int:
    """Bytes of a process: `Rss` counts what processes share in each, `Pss` shares it out."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))


def measure(command: list[str]) -> tuple[float, dict[str, int], int]:
    """Seconds, the peak of each kind of memory in bytes, the most processes at once."""
    began, peak, most = time.perf_counter(), {"Rss": 0, "Pss": 0}, 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            pids = family(process.pid)
            most = max(most, len(pids))
            peak = {kind: max(before, sum(memory(pid, kind) for pid in pids)) for kind, before in peak.items()}
            time.sleep(0.25)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - began, peak, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument("--readers", type=int, help="processes; by the machine unless given")
    parser.add_argument("--folder", type=Path, help="where to make it all, in a folder that is deleted afterwards")
    options = parser.parse_args()
    vltune = str(Path(sys.executable).parent / "vltune")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        raw, out = Path(folder, "raw"), Path(folder, "out")
        raw.mkdir()
        write_raw(raw, options.questions)
        images = sum(len([*path.iterdir()]) for path in raw.iterdir() if path.is_dir())
        readers = ["--readers", str(options.readers)] if options.readers else []
        command = [vltune, "prepare", "vqav2", "--raw", str(raw), "--out", str(out), *readers]
        seconds, peak, processes = measure(command)
        written = sum(path.stat().st_size for path in out.glob("*.arrow"))
        shards = len([*out.glob("*.arrow")])
        print(f"{options.questions:,} questions about {images:,} images; {shards} shards, {written / 1e9:.2f} GB")
        print(
            f"{seconds:.1f} s in all, {options.questions / seconds:,.0f} questions/s, {images / seconds:,.0f} images/s"
        )
        told = ", ".join(f"{kind.upper()} {size / 1e6:.0f} MB" for kind, size in peak.items())
        print(f"peak memory of {processes} processes together: {told}")
        seconds, _, _ = measure([vltune, "check", str(out)])
        print(f"vltune check: {seconds:.1f} s")


if __name__ == "__main__":
    main()
