"""Training of a diffusion model: noise, steps and pictures of the class are drawn from the run's random state."""

import signal

import pytest
import tiny
import torch
from lightning_fabric import Fabric
from tiny_diffusion import pictures, stable_diffusion, subject

from vltune.engine.source import TrainingData
from vltune.engine.train import train
from vltune.methods.custom_diffusion import CustomDiffusion
from vltune.methods.lora import LoRA
from vltune.model import Model
from vltune.runs.signals import Interrupted, StopRequest
from vltune.settings.engine import Settings

SETTINGS = Settings(lr=1e-2, accelerator="cpu", workers=0, batch_size=2, max_steps=6, precision="32-true")


def run(folder, method, stop_at=None):
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.seed_everything(0, verbose=False)
    model = Model(stable_diffusion(), subject(), method())
    model.task.remember(model.backbone, pictures(3, seed=5))
    shown = [{"id": number, "image": picture} for number, picture in enumerate(pictures(5))]

    def collate(examples):
        return {"ids": [each["id"] for each in examples], "image": torch.stack([each["image"] for each in examples])}

    class Own(torch.utils.data.Dataset):
        def __len__(self):
            return len(shown)

        def __getitem__(self, key):
            return shown[key[0]]

    with StopRequest() as stop:

        def log(values, step):
            if step == stop_at:
                signal.raise_signal(signal.SIGTERM)

        data = TrainingData(Own(), collate, 2, seed=0, workers=0)
        train(
            tiny.session(fabric, model, folder, stop, training=lambda: data, settings=SETTINGS, logger=tiny.Log(log)),
            None,
        )
    return model.tuned_state()


@pytest.mark.parametrize("method", [lambda: LoRA(2), CustomDiffusion])
def test_a_stopped_run_resumes_bit_for_bit(tmp_path, method):
    straight = run(tmp_path / "straight", method)
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", method, stop_at=3)
    resumed = run(tmp_path / "stopped", method)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
