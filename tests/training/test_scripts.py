"""The training as a user runs it: every stage lowers its loss, resumes exactly, and the pieces make a pipeline."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock

from hsunmix import SemiBlindUnmixingPipeline
from hsunmix.cli.main import main
from hsunmix.models import HybridSTU, ResUNet1D, ResUNet2D
from hsunmix.training import assemble, loop, recipe
from hsunmix.training.recipe import load_recipe, stage_command

TRAINING = Path(__file__).parents[2] / "training"
SMALL = "--size 12 --max_endmembers 3 --train_batch_size 1 --dataloader_num_workers 0 --validation_batches 1".split()
ENVIRONMENT = os.environ | {"ACCELERATE_USE_CPU": "true"}


def launch(script, folder, *options, ranks=1):
    """Run a training script in processes of its own."""
    start = [sys.executable]
    if ranks > 1:
        start += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--dynamo_backend", "no"]
        start += ["--mixed_precision", "no", "--num_processes", str(ranks)]
    command = [*start, TRAINING / script, "--output_dir", folder, *SMALL, *map(str, options)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def recipe_folder(tmp_path_factory):
    """One for all processes that share the tests."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "recipe"


@pytest.fixture(scope="module")
def one_at_a_time(recipe_folder):
    return FileLock(f"{recipe_folder}.lock")


@pytest.fixture(scope="module")
def trained(recipe_folder, one_at_a_time):
    """The tiny recipe, run whole by the command line."""
    with one_at_a_time, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        if not (recipe_folder / "done").exists():
            assert main(["train", "--config", "tiny", "-o", str(recipe_folder), "-q"]) == 0
            (recipe_folder / "done").touch()
    return recipe_folder


def validation(folder):
    return [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]


def test_network_of_another_size_validated_before_its_first_checkpoint(tmp_path):
    size = {"block_out_channels": [4, 8], "layers_per_block": 1}
    config = tmp_path / "config.json"
    config.write_text(json.dumps(size))
    options = ["--model_config", config, "--max_train_steps", 2, "--validation_steps", 1]
    launch("train_endmember_diffusion.py", tmp_path / "run", *options)
    assert [record["step"] for record in validation(tmp_path / "run")] == [1, 2]
    assert tuple(ResUNet1D.from_pretrained(tmp_path / "run").config.block_out_channels) == (4, 8)


def test_sizes_are_compared_on_the_same_scenes_and_not_trained_twice(tmp_path):
    options = ["--base", 4, 8, "--max_train_steps", 2, "--validation_steps", 1]
    for _ in range(2):
        launch("compare_sizes.py", tmp_path, *options)
    small, large = json.loads((tmp_path / "sizes.json").read_text())["sizes"]
    assert small["scenes"] == large["scenes"] == [1, 2] and small["parameters"] < large["parameters"]
    assert small["closed_form_rmse"] == large["closed_form_rmse"] and small["rmse"] != large["rmse"]
    assert (tmp_path / "sizes.png").stat().st_size > 5000


@pytest.mark.parametrize("stage", ["encoder", "spectra", "maps", "joint"])
def test_every_stage_is_validated_on_held_out_materials(trained, stage):
    records = validation(trained / stage)
    assert records[-1]["step"] == (10 if stage == "joint" else 20)
    assert all(np.isfinite(value) for record in records for value in record.values())


def test_joint_training_changes_all_three_networks(trained):
    parts = {HybridSTU: "encoder", ResUNet2D: "unet", ResUNet1D: "endmember_unet"}
    before = {HybridSTU: "encoder", ResUNet2D: "maps", ResUNet1D: "spectra"}
    for network, folder in parts.items():
        joint = network.from_pretrained(trained / "joint" / folder).state_dict()
        stagewise = network.from_pretrained(trained / before[network]).state_dict()
        assert all(torch.isfinite(value).all() for value in joint.values())
        assert any(not torch.equal(joint[name], stagewise[name]) for name in joint)


def test_joint_training_of_one_network_leaves_the_others(trained, tmp_path):
    stages = {"encoder": "encoder", "unet": "maps", "endmember_unet": "spectra"}
    networks = [word for name, stage in stages.items() for word in (f"--{name}", trained / stage)]
    options = ["--train", "unet", "--misfit_fraction", "0.5", "--relative_loss", "--max_train_steps", "3"]
    launch("train_joint.py", tmp_path, *networks, *options, "--lr_warmup_steps", "0")
    for kind, name in ((HybridSTU, "encoder"), (ResUNet2D, "unet"), (ResUNet1D, "endmember_unet")):
        before = kind.from_pretrained(trained / stages[name]).state_dict()
        after = kind.from_pretrained(tmp_path / name).state_dict()
        assert (name != "unet") == all(torch.equal(after[key], before[key]) for key in before)
    assert all(np.isfinite(value) for value in validation(tmp_path)[-1].values())


def test_options_of_a_stage_become_those_of_its_script(tmp_path):
    stage = {"name": "x", "script": "joint", "train": ["unet"], "relative_loss": True, "unet": "maps", "size": 12}
    words = stage_command(stage, [], [], tmp_path, 1, None, 0)
    for option in (["--train", "unet"], ["--relative_loss"], ["--unet", str(tmp_path / "maps")], ["--size", "12"]):
        start = words.index(option[0])
        assert words[start : start + len(option)] == option
    assert "True" not in words


@pytest.fixture
def unchanged(trained, one_at_a_time):
    """The recipe, while no other process writes its results again."""
    with one_at_a_time:
        yield trained


def test_recipe_leaves_a_pipeline_with_its_facts_and_scores(unchanged):
    pipe = SemiBlindUnmixingPipeline.from_pretrained(unchanged / "pipeline")
    out = pipe(torch.rand(8, 8, 40), num_endmembers=3, generator=torch.Generator().manual_seed(0))
    assert out.abundances.shape == (1, 8, 8, 3)
    scores = json.loads((unchanged / "validation.json").read_text())
    assert {score["pipeline"] for score in scores} == {"stagewise", "joint"} and len(scores) == 18
    assert (unchanged / "validation.png").stat().st_size > 10_000
    assert "| joint | perturbed | 10 dB |" in (unchanged / "validation.md").read_text()
    facts = json.loads((unchanged / "pipeline" / "training.json").read_text())
    assert facts["recipe"] == "tiny" and [stage["name"] for stage in facts["stages"]][-1] == "joint"
    assert str(unchanged) not in (unchanged / "pipeline" / "unet" / "config.json").read_text()


def test_finished_stages_are_not_trained_again(unchanged, monkeypatch):
    scores = json.loads((unchanged / "validation.json").read_text())
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("a finished stage was started again"))
    monkeypatch.setattr(recipe, "validate", lambda pipe, name, *_, **__: [s for s in scores if s["pipeline"] == name])
    assert main(["train", "--config", "tiny", "-o", str(unchanged), "-q"]) == 0


def test_stage_is_not_continued_with_other_options(trained, capsys):
    assert main(["train", "--config", "tiny", "-o", str(trained), "--seed", "1"]) == 2
    assert "encoder was trained with other options" in capsys.readouterr().err


def test_resumed_run_equals_the_uninterrupted_one_and_the_limit_holds(tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    steps = ("--max_train_steps", 4, "--checkpointing_steps", 2, "--checkpoints_total_limit", 2)
    launch("train_endmember_diffusion.py", whole, *steps)
    shutil.copytree(whole / "checkpoint-2", resumed / "checkpoint-2")
    steps = ("--max_train_steps", 4, "--checkpointing_steps", 1, "--checkpoints_total_limit", 1)
    launch("train_endmember_diffusion.py", resumed, *steps, "--resume_from_checkpoint", "latest")
    expected = ResUNet1D.from_pretrained(whole).state_dict()
    for name, value in ResUNet1D.from_pretrained(resumed).state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert [path.name for path in resumed.glob("checkpoint*")] == ["checkpoint-4"]


def test_echoes_use_every_batch_several_times_and_resume_between_them():
    one = {"cube": torch.arange(24.0).view(1, 2, 3, 4), "wavelengths": None}
    args = SimpleNamespace(max_train_steps=7, gradient_accumulation_steps=1, echoes=3, dataloader_num_workers=0)
    accelerator = SimpleNamespace(process_index=0, num_processes=1, device="cpu")

    def stream(first):
        def batches(length):
            return [one | {"index": torch.tensor(i)} for i in range(length)]

        return [(int(b["index"]), b["cube"].tolist()) for b in loop._batches(accelerator, args, first, batches)]

    whole = stream(0)
    assert [index for index, _ in whole] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert whole[0][1] != whole[1][1] != whole[2][1] != whole[0][1] and whole[0][1] == whole[3][1]
    assert stream(4) == whole[4:]


def test_batches_that_never_come_are_an_error(monkeypatch):
    class Never:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            time.sleep(60)

    monkeypatch.setattr(loop, "_PATIENCE", 0.5)
    args = SimpleNamespace(max_train_steps=1, gradient_accumulation_steps=1, echoes=1, dataloader_num_workers=1)
    accelerator = SimpleNamespace(process_index=0, num_processes=1, device="cpu")
    with pytest.raises(RuntimeError, match="timed out"):
        next(loop._batches(accelerator, args, 0, lambda length: Never()))


def test_two_ranks_end_with_the_same_parameters(tmp_path):
    """Rank 0 saves; a second rank that drifted would show as soon as both save."""
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import sys, torch, hsunmix.training.loop as loop\n"
        "from accelerate import PartialState\n"
        "from hsunmix.training.scripts import train_hybrid_stu\n"
        "save = loop._save\n"
        "def save_all(accelerator, args, model, ema, step):\n"
        "    save(accelerator, args, model, ema, step)\n"
        "    rank = PartialState().process_index\n"
        "    torch.save(accelerator.unwrap_model(model).state_dict(), args.output_dir / f'rank{rank}.pt')\n"
        "loop._save = save_all\n"
        "train_hybrid_stu(sys.argv[1:])\n"
    )
    launch(probe, tmp_path / "out", "--max_train_steps", 3, ranks=2)
    first, second = (torch.load(tmp_path / "out" / f"rank{r}.pt", weights_only=True) for r in (0, 1))
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_labelled_patches_are_trained_on(tmp_path):
    rng = np.random.default_rng(0)
    abundances = rng.dirichlet([0.5] * 3, (16, 14))
    endmembers = rng.uniform(0.1, 0.9, (3, 40))
    np.save(tmp_path / "scene.npy", abundances @ endmembers)
    np.savez(tmp_path / "scene_reference.npz", abundances=abundances, endmembers=endmembers)
    options = ("--labelled", tmp_path / "scene.npy", "--labelled_fraction", 1.0, "--max_train_steps", 30)
    launch("train_hybrid_stu.py", tmp_path / "out", *options, "--validation_steps", 30)
    assert HybridSTU.from_pretrained(tmp_path / "out").config.hidden_channels == 32


@pytest.mark.parametrize(
    "content,message",
    [
        (None, "no configuration 'nothing'"),
        ("stages: []", "needs `stages`"),
        ("stages: [{name: a, script: b}]\npipelines: {p: {}}", "Stage 'a'"),
        ("stages: [{name: a, script: abundance_diffusion, encoder: z}]\npipelines: {p: {}}", "no earlier stage"),
        ("stages: [{name: a, script: hybrid_stu}]\npipelines: {p: {encoder: a}}", "Pipeline 'p'"),
    ],
)
def test_bad_recipes_are_refused(tmp_path, capsys, content, message):
    config = "nothing"
    if content is not None:
        (tmp_path / "recipe.yaml").write_text(content)
        config = str(tmp_path / "recipe.yaml")
    assert main(["train", "--config", config, "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_pipelines_of_several_stages_have_the_mean_of_their_weights(tmp_path):
    networks = []
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        networks.append(ResUNet2D(block_out_channels=(8, 8)))
        networks[-1].save_pretrained(tmp_path / name)
    HybridSTU().save_pretrained(tmp_path / "encoder")
    ResUNet1D(block_out_channels=(8, 8)).save_pretrained(tmp_path / "spectra")
    pipe = assemble(tmp_path / "encoder", [tmp_path / "a", tmp_path / "b"], tmp_path / "spectra")
    for mean, first, second in zip(pipe.unet.parameters(), *(n.parameters() for n in networks), strict=True):
        torch.testing.assert_close(mean, (first + second) / 2)


def test_a_recipe_may_list_stages_for_a_network(tmp_path):
    stages = "stages: [{name: a, script: joint}, {name: b, script: joint}]\n"
    path = tmp_path / "recipe.yaml"
    path.write_text(stages + "pipelines: {p: {encoder: a/encoder, unet: [a/unet, b/unet], endmember_unet: b/unet}}")
    assert load_recipe(path).pipelines["p"]["unet"] == ["a/unet", "b/unet"]
    path.write_text(stages + "pipelines: {p: {encoder: a/encoder, unet: [a/unet, z/unet], endmember_unet: b/unet}}")
    with pytest.raises(ValueError, match="Pipeline 'p'"):
        load_recipe(path)
