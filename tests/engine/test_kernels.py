"""Arithmetic that is the same on other processors: when it is chosen, and that it is what a run gets."""

import os
import subprocess
import sys

import pytest
import torch
from test_run import QUICK, WORLD, run

from vltune.engine import kernels, processor
from vltune.errors import UserError
from vltune.records import record as records

INTEL, AMD = "vendor_id : GenuineIntel\nflags : fpu avx2 fma\n", "vendor_id : AuthenticAMD\nflags : fpu avx2 fma\n"


@pytest.fixture
def intel(monkeypatch, tmp_path):
    """A processor that can, in a process that has not computed yet."""
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    processor.CPUINFO.write_text(INTEL)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        torch.backends.cpu, "get_cpu_capability", lambda: os.environ.get("ATEN_CPU_CAPABILITY", "avx512").upper()
    )
    monkeypatch.setattr(kernels, "_chosen", False)
    for name in kernels.VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("asked", ["auto", True])
def test_one_thread_on_such_a_processor_computes_portably(asked, intel):
    kernels.choose(asked, "cpu", 1)
    assert kernels.used() == "portable"
    assert {name: os.environ[name] for name in kernels.VARIABLES} == kernels.VARIABLES


@pytest.mark.parametrize("maker", [INTEL, AMD])
def test_compatible_is_for_every_maker(maker, intel):
    processor.CPUINFO.write_text(maker)
    kernels.choose("compatible", "cpu", 1)
    assert kernels.used() == "compatible"
    assert os.environ["MKL_CBWR"] == "COMPATIBLE" and os.environ["ATEN_CPU_CAPABILITY"] == "avx2"


def test_what_earlier_processes_took_is_told_too(intel):
    """Of a run that was stopped on one processor and went on on another."""
    kernels.choose("auto", "cpu", 1)
    kernels.note("portable")
    assert kernels.used() == "portable"
    kernels.note("AVX512 and portable")
    assert kernels.used() == "AVX512 and portable"
    kernels.choose("auto", "cpu", 1)
    assert kernels.used() == "portable", "another run"


def test_false_leaves_the_processor_its_own(intel):
    kernels.choose(False, "cpu", 1)
    assert kernels.used() == "AVX512"


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("gpu", "set engine.accelerator=cpu"),
        ("threads", "set engine.threads=1"),
        ("amd", "needs an Intel processor with AVX2"),
        ("no mkl", "a torch with MKL"),
        ("environment", "the environment says MKL_CBWR=COMPATIBLE; unset it"),
        ("late", "has computed with other kernels already"),
    ],
)
def test_where_it_cannot_be_auto_leaves_it_and_true_says_why(what, told, intel):
    accelerator, threads = ("gpu" if what == "gpu" else "auto"), (None if what == "threads" else 1)
    if what == "amd":
        processor.CPUINFO.write_text(AMD)
    if what == "no mkl":
        intel.setattr(torch.backends.mkl, "is_available", lambda: False)
    if what == "environment":
        intel.setenv("MKL_CBWR", "COMPATIBLE")
    if what == "late":
        intel.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    kernels.choose("auto", accelerator, threads)
    assert kernels.used() != "portable"
    with pytest.raises(UserError, match=told):
        kernels.choose(True, accelerator, threads)


PRODUCTS = """
import hashlib, sys, torch
from vltune.engine import kernels, processor
kernels.choose(sys.argv[1], "cpu", 1)
torch.set_num_threads(1)
x = torch.randn(64, 96, 64, generator=torch.Generator().manual_seed(0))
weight = torch.randn(7, 64, generator=torch.Generator().manual_seed(1))
y = torch.nn.functional.gelu(x @ weight.T).softmax(-1)
print(kernels.used(), hashlib.sha256(y.numpy().tobytes()).hexdigest())
"""


@pytest.mark.parametrize(
    ("asked", "name", "variables"),
    [("auto", "portable", kernels.VARIABLES), ("compatible", "compatible", kernels.COMPATIBLE)],
)
def test_a_process_that_chooses_rounds_like_one_that_was_started_so(asked, name, variables):
    """What torch has imported, and computed nothing with, is no matter."""
    if reason := kernels.obstacle("cpu", 1, asked == "compatible"):
        pytest.skip(reason)
    bare = {name: value for name, value in os.environ.items() if name not in variables}
    chosen, started = (
        subprocess.run(
            [sys.executable, "-c", PRODUCTS, asked], env=of, capture_output=True, text=True, check=True
        ).stdout
        for of in (bare, bare | variables)
    )
    assert chosen.startswith(f"{name} ")
    assert chosen == started


@pytest.mark.skipif(not kernels.is_intel_with_avx2(), reason="needs an Intel processor with AVX2")
def test_a_small_backbones_run_is_portable_and_its_record_says_so(tmp_path, monkeypatch):
    for name in kernels.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    places = [f"dataset.data_dir={tmp_path / 'shapes'}", f"results_dir={tmp_path}", f"engine.features_dir={tmp_path}"]
    told = []
    for more in ([], ["engine.threads=2", "force=true"], ["engine.portable=false", "force=true"]):
        run(*QUICK, *places, f"dataset.generate={WORLD}", "engine.evaluate=[]", *more)
        (file,) = tmp_path.glob("records/**/*.json")
        told.append(records.read(file)["provenance"]["kernels"])
    assert told[0] == "portable" and "portable" not in told[1:]


@pytest.mark.skipif(not kernels.is_intel_with_avx2(), reason="needs an Intel processor with AVX2")
def test_a_portable_run_is_scored_again_by_portable_kernels(tmp_path, monkeypatch):
    """They are chosen before the data is read, which computes."""
    for name in kernels.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    places = [f"dataset.data_dir={tmp_path / 'shapes'}", f"results_dir={tmp_path}", f"engine.features_dir={tmp_path}"]
    run(*QUICK, *places, f"dataset.generate={WORLD}", "engine.evaluate=[val]", "engine.portable=true")
    (file,) = tmp_path.glob("records/**/*.json")
    assert "recorded" in run("mode=eval", f"from={file}").stdout
