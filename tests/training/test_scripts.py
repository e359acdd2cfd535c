"""The training scripts, run as a user runs them: they train, resume exactly, keep the limit, and fit together."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hsunmix.models import HybridSTU, ResUNet1D, ResUNet2D

TRAINING = Path(__file__).parents[2] / "training"
SMALL = "--size 12 --max_endmembers 3 --train_batch_size 1 --dataloader_num_workers 0 --validation_batches 1".split()


def launch(script, folder, *options):
    """Run a training script in a process of its own."""
    command = [sys.executable, TRAINING / script, "--output_dir", folder, *SMALL, *map(str, options)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("training")
    steps = ("--max_train_steps", 4, "--checkpointing_steps", 2, "--checkpoints_total_limit", 2)
    launch("train_hybrid_stu.py", root / "encoder", "--max_train_steps", 2)
    launch("train_abundance_diffusion.py", root / "maps", "--encoder", root / "encoder", "--max_train_steps", 2)
    launch("train_endmember_diffusion.py", root / "spectra", *steps)
    return root


def test_networks_come_out_trained_and_finite(trained):
    networks = {HybridSTU: "encoder", ResUNet2D: "maps", ResUNet1D: "spectra"}
    for network, folder in networks.items():
        model = network.from_pretrained(trained / folder)
        assert all(torch.isfinite(p).all() for p in model.parameters())
        assert (trained / folder / "validation.jsonl").read_text().count("\n") == 1
        torch.manual_seed(0)
        fresh = network()
        assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))


def test_resumed_run_equals_the_uninterrupted_one_and_the_limit_holds(trained, tmp_path):
    folder = tmp_path / "spectra"
    shutil.copytree(trained / "spectra" / "checkpoint-2", folder / "checkpoint-2")
    steps = ("--max_train_steps", 4, "--checkpointing_steps", 1, "--checkpoints_total_limit", 1)
    launch("train_endmember_diffusion.py", folder, *steps, "--resume_from_checkpoint", "latest")
    resumed = ResUNet1D.from_pretrained(folder).state_dict()
    for name, value in ResUNet1D.from_pretrained(trained / "spectra").state_dict().items():
        torch.testing.assert_close(resumed[name], value, msg=name)
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-4"]


def test_the_three_make_a_pipeline_that_unmixes(trained, tmp_path):
    from hsunmix import SemiBlindUnmixingPipeline

    parts = ["--encoder", trained / "encoder", "--unet", trained / "maps", "--endmember_unet", trained / "spectra"]
    command = [sys.executable, TRAINING / "assemble_pipeline.py", *parts, "--output_dir", tmp_path / "pipeline"]
    subprocess.run(command, check=True, timeout=200)
    pipe = SemiBlindUnmixingPipeline.from_pretrained(tmp_path / "pipeline")
    out = pipe(torch.rand(8, 8, 40), num_endmembers=3, generator=torch.Generator().manual_seed(0))
    assert out.abundances.shape == (1, 8, 8, 3)
