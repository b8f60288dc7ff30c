"""The reader of VQAv2 beside the straightforward one: examples a second of one core, time to start, memory.

    python bench/reader.py [--rows 20000] [--questions 5] [--images 200] [--read 96] [--rounds 5] [--folder DIR]

Writes a file of ViLT's layout with rows x questions examples, about 2.1 GB at the default size, and one of a fifth of the
rows, into a temporary folder.  Images are smooth noise of 640 x 480 as JPEG of quality 90, about 100 kB; they repeat, but
each row has its own bytes.  The straightforward way reads the table's texts into a list and an index of (row, question),
decodes with Pillow, resizes with its bicubic, and normalises each image, as the released code does.

Every reader has a process of its own, one thread, and keeps no image; they read the same examples in turn, as float batches
of 32 at ViLT's 384 px.  Their time is CPU time, so that neighbours disturb little.  Memory is resident memory above that of
the imports: after the start, and (`touched`) once the bytes of every image were read.  Three minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from vltune.data.arrow import write_table
from vltune.data.collate import Collate
from vltune.data.shapes.vocabulary import VOCABULARY
from vltune.data.tokenizer import Tokenizer
from vltune.data.transforms import MinMaxResize
from vltune.data.vqav2.reader import SCHEMA, VQAv2
from vltune.engine.order import Order

SPLIT, BATCH, WIDTH, HEIGHT = "vqav2_train", 32, 640, 480
READERS = ("straightforward", "exact", "fast")
TOKENIZER = Tokenizer(VOCABULARY, 40)


def photo(number: int) -> bytes:
    """Noise of four scales, the finer the fainter."""
    generator, image = np.random.default_rng(number), np.zeros((HEIGHT, WIDTH, 3))
    for rows, height in ((8, 60), (32, 35), (128, 18), (HEIGHT, 6)):
        noise = generator.normal(size=(rows, rows * WIDTH // HEIGHT, 3)).astype(np.float32)
        channels = [Image.fromarray(noise[..., i]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC) for i in range(3)]
        colours = np.stack(channels, -1)
        image += height * (0.7 * colours.mean(-1, keepdims=True) + 0.5 * colours)
    file = BytesIO()
    Image.fromarray(np.clip(image + 128, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def batches(rows: int, questions: int, images: list[bytes]) -> Iterator[pa.RecordBatch]:
    """Questions of as many words as VQAv2's: 6.2 on average, with a standard deviation of 2."""
    generator, words = np.random.default_rng(0), [w for w in VOCABULARY.read_text().split() if w.isalpha()]
    for start in range(0, rows, 64):
        batch = []
        for row in range(start, min(start + 64, rows)):
            lengths = np.clip(generator.normal(6.2, 2, questions).round().astype(int), 2, 20)
            batch.append(
                {
                    "image": images[row % len(images)] + row.to_bytes(8, "little"),
                    "questions": [" ".join(generator.choice(words, length)) + "?" for length in lengths],
                    "answers": [["yes", "no"]] * questions,
                    "answer_labels": [[0, 1]] * questions,
                    "answer_scores": [[1.0, 0.3]] * questions,
                    "image_id": row,
                    "question_id": [1000 * row + i for i in range(questions)],
                    "split": "train",
                }
            )
        yield pa.RecordBatch.from_pylist(batch, SCHEMA)


class Straightforward(torch.utils.data.Dataset):
    """After `vilt/datasets/base_dataset.py`: the column of texts as lists, and a list of (row, question)."""

    def __init__(self, folder: Path):
        self.table = pa.ipc.RecordBatchFileReader(pa.memory_map(str(folder / f"{SPLIT}.arrow"))).read_all()
        self.texts = self.table["questions"].to_pylist()
        self.labels, self.scores = (self.table[f"answer_{name}"].to_pylist() for name in ("labels", "scores"))
        self.places = [(row, place) for row, texts in enumerate(self.texts) for place in range(len(texts))]
        self.transform = MinMaxResize()

    def __len__(self) -> int:
        return len(self.places)

    def content(self, row: int) -> bytes:
        return self.table["image"][row].as_py()

    def pictures(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict:
        row, place = self.places[index]
        image = Image.open(BytesIO(self.content(row))).convert("RGB")
        image = image.resize(self.transform.size(*image.size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return {
            "image": (pixels - 0.5) / 0.5,
            "text_ids": TOKENIZER(self.texts[row][place]),
            "labels": self.labels[row][place],
            "scores": self.scores[row][place],
        }

    def collate(self, examples: list[dict]) -> dict:
        texts = [torch.tensor(example["text_ids"]) for example in examples]
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        sizes = torch.tensor([example["image"].shape for example in examples])
        image = torch.zeros(len(examples), *sizes.amax(0).tolist())
        for row, example in zip(image, examples, strict=True):
            _, height, width = example["image"].shape
            row[:, :height, :width] = example["image"]
        return {"image": image, "text_ids": ids}


def open_reader(name: str, folder: Path) -> tuple:
    """The reader and its collate function."""
    if name == "straightforward":
        return (reader := Straightforward(folder)), reader.collate
    transform = MinMaxResize(decode=name)
    reader = VQAv2(folder, [SPLIT], TOKENIZER, transform, image_cache_bytes=0)
    return reader, Collate(TOKENIZER.pad_id, transform.mean, transform.std)


def resident() -> float:
    """MB of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def serve(name: str, folder: Path) -> None:
    """Opens a reader, and reads what it is told on its standard input; each line of output is what that took."""
    torch.set_num_threads(1)
    before, began = resident(), time.perf_counter()
    reader, collate = open_reader(name, folder)
    print(json.dumps({"start": time.perf_counter() - began, "memory": resident() - before}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked == "touch":
            for picture in range(reader.pictures()):
                zlib.adler32(reader.content(picture))
            print(json.dumps(resident() - before), flush=True)
            continue
        began = time.process_time()
        for start in range(0, len(asked), BATCH):
            collate([reader[index] for index in asked[start : start + BATCH]])
        print(json.dumps(time.process_time() - began), flush=True)


class Served:
    """A reader in a process of its own.  opened: what opening it took."""

    def __init__(self, name: str, folder: Path):
        command = [sys.executable, __file__, "--serve", name, "--folder", str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.opened = json.loads(self.process.stdout.readline())

    def ask(self, what: list[int] | str) -> float:
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def throughput(folder: Path, examples: int, read: int, rounds: int) -> None:
    """Prints examples a second of a core, and the median of the ratios round by round."""
    generator = np.random.default_rng(1)
    served = {name: Served(name, folder) for name in READERS}
    seconds: dict[str, list[float]] = {name: [] for name in READERS}
    for turn in range(rounds + 1):
        asked = generator.integers(examples, size=read).tolist()
        for name, reader in served.items():
            took = reader.ask(asked)
            if turn:  # the first one warms up
                seconds[name].append(took)
    print(f"\n{'':16}{'examples/s of a core':>22}{'x straightforward':>20}")
    for name, reader in served.items():
        reader.close()
        ratio = statistics.median(a / b for a, b in zip(seconds[READERS[0]], seconds[name], strict=True))
        print(f"{name:16}{read / statistics.median(seconds[name]):22.1f}{ratio:20.2f}")


def starts(folders: dict[int, Path]) -> None:
    """Prints the time to start and the memory of each reader, by how many examples there are."""
    print(f"{'':16}{'examples':>10}{'first start, s':>16}{'start, s':>10}{'memory, MB':>12}{'touched, MB':>13}")
    for name in READERS[:2]:
        for examples, folder in folders.items():
            first, second = (Served(name, folder) for _ in range(2))
            touched, opened = second.ask("touch"), second.opened
            print(
                f"{name:16}{examples:10,}{first.opened['start']:16.2f}{opened['start']:10.3f}"
                f"{opened['memory']:12.0f}{touched:13.0f}"
            )
            first.close()
            second.close()


def padding(folder: Path, batch_size: int) -> None:
    lengths = open_reader("exact", folder)[0].lengths
    print(f"\npadding of text in batches of {batch_size}, share of all places:", end="")
    for name, given in (("shuffled", None), ("grouped by length", lengths)):
        chosen = [[i for i, _ in step] for step in Order(len(lengths), batch_size, 0, given).steps(0, 50)]
        real = sum(int(lengths[step].sum()) for step in chosen)
        places = sum(int(lengths[step].max()) * len(step) for step in chosen)
        print(f" {1 - real / places:.1%} {name}", end="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--questions", type=int, default=5)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--read", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--serve", choices=READERS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve, chosen.folder)
    else:
        compare(chosen.rows, chosen.questions, chosen.images, chosen.read, chosen.rounds, chosen.folder)


def compare(rows: int, questions: int, images: int, read: int, rounds: int, folder: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        pictures, folders = [photo(number) for number in range(images)], {}
        for part in (rows // 5, rows):
            folders[part * questions] = whole = Path(temporary) / str(part)
            write_table(whole / f"{SPLIT}.arrow", SCHEMA, batches(part, questions, pictures))
        size = (whole / f"{SPLIT}.arrow").stat().st_size
        print(f"{rows * questions:,} examples, {size / 1e9:.2f} GB, images of {WIDTH} x {HEIGHT}\n")
        starts(folders)
        throughput(whole, rows * questions, read, rounds)
        for batch_size in (32, 256):
            padding(whole, batch_size)
        print()


if __name__ == "__main__":
    main()
