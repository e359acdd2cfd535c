"""The benchmark protocol: what each track gives away, what least squares starts from, how runs are grouped."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hsunmix import physics
from hsunmix.cli import options
from hsunmix.cli.benchmark import METHODS, TRACK_NAMES
from hsunmix.cli.main import main
from hsunmix.data import read_library, write_library
from hsunmix.evaluation import benchmark, comparison, evaluate, perturb_endmembers, summary
from hsunmix.simulation import parametric_spectra

from ..pipelines.tiny import tiny_pipeline

BANDS = np.linspace(420.0, 2400.0, 50)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    spectra = parametric_spectra(60, torch.from_numpy(BANDS), torch.Generator().manual_seed(0)).numpy()
    path = tmp_path_factory.mktemp("library") / "minerals"
    return write_library(path, spectra, [f"m{i}" for i in range(60)], BANDS)


@pytest.fixture(scope="module")
def scene(library):
    whole = benchmark.simulated_reference_scene(library, 3)
    part = np.s_[:24, :24]
    return replace(whole, cube=whole.cube[part], abundances=whole.abundances[part])


@pytest.fixture(scope="module")
def scores(scene):
    pipe = tiny_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return {one.track: one for one in benchmark.run(pipe, [scene], (*benchmark.TRACKS, "library"), [40.0], range(1))}


def test_library_track_starts_from_spectra_of_the_library(scores, scene, library):
    spectra = read_library(library).spectra
    nearest = [
        np.linalg.norm(spectra / np.linalg.norm(spectra, axis=1)[:, None] - one, axis=1).min()
        for one in scene.endmembers / np.linalg.norm(scene.endmembers, axis=1)[:, None]
    ]
    assert max(nearest) < 1e-4, "the scene is not made of the library"
    assert scores["library"].coarse_sad < 0.2 < np.pi / 2
    with pytest.raises(ValueError, match="needs a spectral library"):
        benchmark.run(tiny_pipeline(), [replace(scene, library=None)], ("library",), [40.0], range(1))


def test_least_squares_starts_from_the_spectra_as_they_were_perturbed(scores, scene):
    given = perturb_endmembers(scene.endmembers)
    observed = benchmark.add_noise(scene.cube, 40.0)
    truth = {"cube": scene.cube, "endmembers": scene.endmembers, "abundances": scene.abundances}
    mode = scores["perturbed"].brightness
    start = given / given.max(axis=1, keepdims=True) if mode == "free" else given
    expected = evaluate(start, benchmark.closed_form(observed, start, mode), truth)["abundance_rmse"]
    assert scores["perturbed"].nnls_rmse == pytest.approx(expected, rel=0.1)  # up to the level of the brightness
    assert scores["perturbed"].coarse_sad < np.deg2rad(5) and scores["given"].coarse_sad < 1e-6


def test_seeds_of_simulated_scenes_are_one_cell(scores):
    blind = scores["blind"]
    runs = [replace(blind, scene=f"simulated linear minerals {seed}", refined_rmse=0.1 * seed) for seed in (1, 2, 4)]
    runs += [replace(blind, scene="jasper_ridge"), replace(blind, scene="dc1"), replace(blind, scene="dc2")]
    grouped = benchmark.cells(runs)
    assert [key[0] for key in grouped] == ["simulated linear minerals", "jasper_ridge", "dc1", "dc2"]
    assert benchmark.median(grouped["simulated linear minerals", "blind", 40.0], "refined_rmse") == pytest.approx(0.2)
    assert "| 0.2000 | 0.100-0.400 |" in benchmark.as_markdown(runs)


def test_the_summary_counts_cells_that_got_worse(scores):
    """Ratios of medians, of cells and not of runs but for angles; where nothing compares, nothing is said."""
    blind = replace(scores["blind"], coarse_sad=0.02, coverage=0.9)
    ours, others = [], []
    for number, purity, ratio in ((3, "0.8", 0.5), (5, "1", 0.75), (8, "1", 1.25)):
        kind = f"simulated linear minerals R={number} purity {purity}"
        for seed, (error, angle) in enumerate(zip((0.1, 0.4, 0.9), (0.01, 0.01, 0.32 * ratio), strict=True)):
            angles = {"coarse_sad": 0.02, "refined_sad": angle}
            ours.append(
                replace(blind, scene=f"{kind} {seed}", coarse_rmse=error, refined_rmse=error * ratio, **angles)
            )  # medians are .4 and .01
        rmse = {"free": 0.8, "fixed": 0.4}
        others.append(comparison.MethodScore(f"{kind} 0", "blind", 40.0, 0, "vca", rmse, 0.1, {}, 1.0))
    for seed in range(2):  # one that was right has no ratio of its own
        ours.append(replace(ours[-1], scene="samson", seed=seed, coarse_sad=(0.02, 1e-9)[seed], refined_sad=0.005))
    ours.append(replace(ours[-1], scene="dc1", track="given", coarse_sad=0.0, refined_sad=0.0, coverage=0.5))
    *_, simulated, right, given = summary.as_markdown(ours, comparison.rows(ours, others)).splitlines()
    assert simulated == (
        "| simulated linear minerals | blind | 3 | 0.75, 1.25 (1 above 1) | 0.50, 0.50 | 1.44, 1.71 (3 above 1) "
        "| 0.75, 1.25 (1 above 1.05) | 90%, 90% to 90% |"
    )
    assert "| 0.50, 0.50 | 1.12, 1.12 (1 above 1) |" in right  # .25, and .005 over the least angle that counts
    assert given == "| dc1 | given | 1 | 1.25, 1.25 (1 above 1) |  |  |  | 50%, 50% to 50% |"
    assert summary.as_markdown(ours).splitlines()[-3].split(" | ")[6] == ""


def test_command(library, tmp_path, capsys):
    command = ["benchmark", "--library", str(library), "--simulated", "1", "--track", "library", "--snr", "30"]
    assert main([*command, "--seeds", "2", "-o", str(tmp_path / "out"), "--quiet"]) == 0
    runs = json.loads((tmp_path / "out" / "benchmark.json").read_text())["runs"]
    assert [(one["track"], one["seed"]) for one in runs] == [("library", 0), ("library", 1)]
    assert "| simulated linear minerals | library | 30 dB |" in (tmp_path / "out" / "benchmark.md").read_text()
    assert main(["benchmark", "scene.hdr", "--track", "library", "-o", str(tmp_path / "no")]) == 2
    assert "--track library needs --library" in capsys.readouterr().err


def test_options_of_the_sampler_reach_it(library, tmp_path, monkeypatch):
    seen = {}

    def look(*grid, report, known, **settings):
        seen.update(settings)
        raise ValueError("seen enough")

    monkeypatch.setattr(benchmark, "run", look)
    options = ["--steps", "3", "--ensemble", "2", "--mixing-model", "bilinear", "--no-facets", "-o", str(tmp_path)]
    assert main(["benchmark", "--library", str(library), "--simulated", "1", *options]) == 2
    assert seen == {"num_inference_steps": 3, "ensemble_size": 2, "mixing_model": "bilinear", "facets": False}


def test_other_methods_beside_it_and_resumed(library, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "out"
    command = ["benchmark", "--library", str(library), "--simulated", "1", "--track", "library", "--snr", "30"]
    command += ["--seeds", "1", "--methods", "sunsal", "-o", str(folder), "--quiet"]
    assert main(command) == 0
    table = (folder / "benchmark.md").read_text()
    assert "| library: RMSE / SAD, brightness | SNR | hsunmix | sunsal |" in table
    assert (folder / "benchmark.png").stat().st_size > 5000

    log = folder / "runs.jsonl"
    lines = log.read_text().splitlines()
    assert len(lines) == 3  # what it depends on, one run of each
    log.write_text("\n".join([*lines[:2], lines[2][:50]]))  # stopped while the last run was written
    monkeypatch.setattr(benchmark, "_score", None)  # the first run must not be measured again
    assert main([*command, "--resume"]) == 0
    assert json.loads((folder / "benchmark.json").read_text())["methods"][0]["method"] == "sunsal"
    assert log.read_text().splitlines()[:2] == lines[:2] and len(log.read_text().splitlines()) == 3
    assert main([*command, "--resume", "--first-seed", "1"]) == 2
    assert "measured with other options" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0"], "at least one run"),
        (["--snr", "loud"], "--snr takes numbers in dB, or inf for no noise, but got 'loud'"),
        (["--snr", "nan"], "--snr takes numbers"),
        (["--track", "blind", "--methods", "sunsal"], "--methods sunsal runs on the library track only"),
        (["--track", "given", "--methods", "vca"], "--methods vca runs on the blind track only"),
    ],
)
def test_options_that_make_no_benchmark(library, tmp_path, capsys, options, message):
    command = ["benchmark", "--library", str(library), "--simulated", "1", "-o", str(tmp_path / "out"), *options]
    assert main(command) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_stopped_benchmark_says_how_to_go_on(library, tmp_path, capsys):
    (tmp_path / "runs.jsonl").touch()
    assert main(["benchmark", "--library", str(library), "--simulated", "1", "-o", str(tmp_path)]) == 2
    assert "--resume or --overwrite" in capsys.readouterr().err


def test_the_command_offers_what_there_is():
    assert METHODS == comparison.METHODS and set(TRACK_NAMES) == {*benchmark.TRACKS, "library"}
    assert options.MIXING_MODELS == physics.MIXING_MODELS
