"""Time and memory of a training step of Stable Diffusion 1.5's UNet at 512 pixels, by method.

    python bench/diffusion_step.py [METHOD ...]     each in a process of its own, random weights; a minute each on two cores

A step is one picture and, as in DreamBooth, one of the class.  `additional` is what the process took at most beyond the
model: gradients, activations and the optimizer's two numbers a parameter, with every block kept and with blocks computed
again (`backbone.gradient_checkpointing`)."""

import subprocess
import sys
import time
from pathlib import Path

METHODS = ("lora", "apt", "adapter", "scaled_pa", "deep_prompt", "custom_diffusion")
STEPS = 2
ROOT = Path(__file__).resolve().parents[1]


def measure(method: str, checkpointing: bool) -> None:
    import torch

    from vltune.assemble.factory import build, build_method
    from vltune.costs.usage import peak_memory_bytes, reset_peak_memory
    from vltune.engine.precision import settle
    from vltune.nn.dropout import quicken
    from vltune.sweep.compose import configurations

    chosen = ["backbone=stable_diffusion", "task=subject", f"method={method}"]
    chosen = [*chosen, f"backbone.gradient_checkpointing={checkpointing}"]
    config = settle(configurations(ROOT, [chosen])[0])
    backbone = build(config["backbone"])
    tuned = build_method(config["method"]).attach(backbone).trained
    backbone.train().requires_grad_(False)
    for parameter in tuned:
        parameter.requires_grad_(True)
    quicken(backbone)
    optimizer = torch.optim.AdamW(tuned)
    latents, states = torch.randn(2, *backbone.latent_shape), torch.randn(2, 77, backbone.width)
    cpu = torch.device("cpu")
    reset_peak_memory(cpu)
    before, times = peak_memory_bytes(cpu), []
    for _ in range(STEPS):
        began = time.perf_counter()
        backbone.denoise(latents, torch.tensor([300, 700]), states).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - began)
    print(f"{sum(each.numel() for each in tuned):>14,}{min(times):>10.1f} s", end="")
    print(f"{(peak_memory_bytes(cpu) - before) / 2**30:>12.2f} GiB{before / 2**30:>12.2f} GiB")


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        return measure(sys.argv[2], sys.argv[3] == "True")
    print(f"{'method':<34}{'parameters':>14}{'step':>12}{'additional':>16}{'model':>16}")
    for method in sys.argv[1:] or METHODS:
        for checkpointing in (False, True):
            command = [sys.executable, __file__, "one", method, str(checkpointing)]
            done = subprocess.run(command, capture_output=True, text=True)
            name = f"{method}, {'blocks computed again' if checkpointing else 'whole'}"
            print(f"{name:<34}{done.stdout.rstrip() or f'failed: exit status {done.returncode}'}", flush=True)
    return None


if __name__ == "__main__":
    main()
