"""Memory and time of a training step of CLIP B/16 with many classes, whole and in chunks, frozen parts kept and not.

    python bench/clip_classes.py [CLASSES]     1,000 unless said; random weights, one image a step; 10 minutes on two cores

Each line is a process of its own.  `texts` trains LoRA in the text tower on prompts of 20 tokens, with the images' features
as stored or computed; `images` trains LoRA in the image tower, with the classes computed once or in every step."""

import subprocess
import sys
import time

CASES = {
    "texts, whole": ("text", 10_000, True),
    "texts, chunks of 128": ("text", 128, True),
    "texts, chunks of 128, images computed": ("text", 128, False),
    "images, classes kept": ("image", 128, True),
    "images, classes computed": ("image", 128, False),
}
LENGTH, STEPS = 20, 2


def measure(where: str, chunk: int, kept: bool, classes: int) -> None:
    import torch

    from vltune.backbones.clip import Clip
    from vltune.costs.usage import peak_memory_bytes, reset_peak_memory
    from vltune.methods.lora import LoRA
    from vltune.model import Model
    from vltune.tasks.image_classification import ImageClassification

    text = {"width": 512, "layers": 12, "heads": 8, "hidden": 2048, "vocabulary_size": 49408, "positions": 77}
    image = {"width": 768, "layers": 12, "heads": 12, "hidden": 3072, "patch_size": 16, "image_size": 224}
    sizes = {"text": {**text, "end_of_text": 49407}, "image": image, "dim": 512}
    method = LoRA(rank=2, dropout=0.0)
    method.sites_in = where
    words = type("Words", (), {"max_length": 77, "__call__": lambda self, text: [49406] + [320] * 18 + [49407]})()
    task = ImageClassification(512, [str(i) for i in range(classes)], ["{}"], words)
    model = Model(Clip({"b16": sizes}, "b16", text_chunk=chunk), task, method).train()
    if where == "image" and not kept:
        task.meet(False)
    batch = {"ids": [0], "label": torch.tensor([0]), "image": torch.randn(1, 3, 224, 224)}
    if where == "text" and kept:
        batch["image_features"] = torch.randn(1, 1, 512)
    cpu = torch.device("cpu")
    reset_peak_memory(cpu)
    before, times = peak_memory_bytes(cpu), []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        task.loss(model(batch), batch).backward()
        times.append(time.perf_counter() - began)
    print(f"{(peak_memory_bytes(cpu) - before) / 2**30:>9.2f} GiB {min(times[1:]):>9.2f} s{times[0]:>9.2f} s")


def main() -> None:
    classes = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"{f'{classes} classes':<42}{'memory':>9}{'step':>15}{'first':>11}")
    for name, case in CASES.items():
        command = [sys.executable, __file__, "one", *map(str, case), str(classes)]
        done = subprocess.run(command, capture_output=True, text=True)
        print(f"{name:<42}{done.stdout.rstrip() or f'failed: exit status {done.returncode}'}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        where, chunk, kept, classes = sys.argv[2:]
        measure(where, int(chunk), kept == "True", int(classes))
    else:
        main()
