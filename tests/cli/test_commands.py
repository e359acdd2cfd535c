import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hsunmix.cli import demo, unmix
from hsunmix.cli.main import build_parser, main
from hsunmix.cli.results import FILES
from hsunmix.data import read_cube, read_library, write_cube, write_library
from hsunmix.simulation import PARAMETRIC_FAMILIES

from ..pipelines.tiny import tiny_pipeline, tiny_scene
from .fake import FakePipeline

CENTERS = np.linspace(400, 2400, 41)


@pytest.fixture
def scene(tmp_path):
    """Path of a small cube with a bad band and a nodata pixel."""
    data = np.random.default_rng(0).uniform(0.1, 0.8, (6, 8, 41)).astype(np.float32)
    data[0, 0] = np.nan
    mask = np.ones(41, bool)
    mask[20] = False
    return write_cube(tmp_path / "scene", data, CENTERS, band_mask=mask, metadata={"map info": ["UTM", "1", "1"]})


@pytest.fixture
def pipeline(monkeypatch):
    fake = FakePipeline()
    for module in (unmix, demo):
        monkeypatch.setattr(module, "load_pipeline", lambda *_: fake)
    return fake


def test_unmix_writes_everything(scene, tmp_path, pipeline, capsys):
    out = tmp_path / "out"
    options = ["-r", "4", "--uncertainty", "--seed", "3", "--mask-bands", "file"]
    assert main(["unmix", str(scene), *options, "-o", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(
        "abundances.hdr abundances.img abundances.png brightness.hdr brightness.img composite.png endmembers.hdr "
        "endmembers.png endmembers.sli quality.hdr quality.img residual.hdr residual.img residual.png results.npz "
        "summary.json uncertainty.hdr uncertainty.img".split()
    )
    maps = read_cube(out / "abundances.hdr")
    assert maps.shape == (6, 8, 4) and maps.nodata_mask[0, 0] and maps.metadata["map info"][0] == "UTM"
    assert maps.metadata["band names"] == [f"endmember {i}" for i in range(1, 5)]
    library = read_library(out / "endmembers.sli")
    assert library.names == maps.metadata["band names"] and np.isnan(library.spectra[:, 20]).all()
    np.testing.assert_allclose(library.wavelengths, CENTERS)
    with np.load(out / "results.npz", allow_pickle=False) as archive:
        assert {"abundances", "endmembers", "abundance_uncertainty", "noise", "wavelengths", "names"} <= set(archive)
        np.testing.assert_array_equal(archive["abundances"], maps.data)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["settings"]["seed"] == 3 and summary["num_endmembers"] == 4
    assert sum(entry["mean_abundance"] for entry in summary["endmembers"]) == pytest.approx(1, abs=1e-5)
    assert summary["brightness_mode"] == "fixed" and summary["residual_rms"] == pytest.approx(0.01)
    assert summary["snr_db"] > 20 and summary["cube"]["nodata_pixels"] == 1 and summary["seconds"]["unmix"] >= 0
    assert "4 endmembers" in capsys.readouterr().out


def test_arguments_reach_the_pipeline(scene, tmp_path, pipeline):
    options = "-r 3 --steps 7 --strength 0.4 --brightness free --mixing-model bilinear --ensemble 5"
    options = f"{options} --no-facets --uncertainty --seed 9".split()
    assert main(["unmix", str(scene), *options, "-q", "-o", str(tmp_path / "out")]) == 0
    (call,) = pipeline.calls
    assert call.num_endmembers == 3 and call.num_inference_steps == 7 and call.strength == 0.4
    assert (
        call.mixing_model == "bilinear"
        and call.brightness == "free"
        and call.ensemble_size == 5
        and not call.facets
        and call.output_uncertainty
    )
    assert call.generator.initial_seed() == 9
    assert call.cube.wavelengths is not None


def test_spectra_of_the_scene_are_not_corrected(scene, tmp_path, pipeline):
    path = write_library(tmp_path / "own", np.eye(3, len(CENTERS)), ["a", "b", "c"], CENTERS)
    options = ["--endmembers", str(path), "--no-correction", "-q", "-o", str(tmp_path / "out")]
    assert main(["unmix", str(scene), *options]) == 0
    assert not pipeline.calls[-1].correct_endmembers


def test_known_spectra_are_resampled_and_give_their_names(scene, tmp_path, pipeline):
    fine = np.arange(350.0, 2501.0, 2.0)
    spectra = np.stack([0.2 + fine / 5000, 0.9 - fine / 5000, 0.4 + 0.2 * np.sin(fine / 200)])
    path = write_library(tmp_path / "known", spectra, ["soil", "soil", "tree"], fine)
    for option in ("--endmembers", "--fixed-endmembers", "--library"):
        out = tmp_path / option
        assert main(["unmix", str(scene), option, str(path), "-r", "3", "-q", "-o", str(out)]) == 0
        assert pipeline.calls[-1].correct_endmembers
        given = getattr(pipeline.calls[-1], option.strip("-").replace("-", "_"))
        np.testing.assert_allclose(given[0], 0.2 + CENTERS / 5000, atol=1e-3)
        assert read_library(out / "endmembers.hdr").names == ["soil 1", "soil 2", "tree"]


def test_library_spectra_that_miss_bands_are_left_out(scene, tmp_path, pipeline):
    spectra = np.full((2, 41), 0.5)
    spectra[0, 3] = np.nan
    spectra[1, 20] = np.nan  # the cube's bad band doesn't matter
    spectra[1, 30] = np.nan  # nor do bands of water vapour, here 1900 nm
    path = write_library(tmp_path / "known", spectra, ["a", "b"], CENTERS)
    assert main(["unmix", str(scene), "--library", str(path), "-r", "1", "-q", "-o", str(tmp_path / "out")]) == 0
    assert pipeline.calls[0].library.shape == (1, 41) and np.isfinite(pipeline.calls[0].library).all()


def test_spectra_that_do_not_cover_the_cube(scene, tmp_path, pipeline, capsys):
    path = write_library(tmp_path / "known", np.full((1, 9), 0.5), ["a"], np.linspace(400, 800, 9))
    assert main(["unmix", str(scene), "--endmembers", str(path), "-o", str(tmp_path / "out")]) == 2
    assert "23 bands of the cube, wavelengths (nm) 850 to 2400" in capsys.readouterr().err
    path = write_library(tmp_path / "bare", np.full((1, 9), 0.5), ["a"])
    assert main(["unmix", str(scene), "--endmembers", str(path), "-o", str(tmp_path / "out")]) == 2
    assert "9 bands, the cube has 41" in capsys.readouterr().err


def test_results_are_not_overwritten_unasked(scene, tmp_path, pipeline, capsys):
    command = ["unmix", str(scene), "-q", "-o", str(tmp_path / "out")]
    assert main(command) == 0
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    (tmp_path / "file").write_text("")
    assert main(["unmix", str(scene), "-o", str(tmp_path / "file")]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["unmix", "nothing.hdr", "-o", "out"],
        ["unmix", "notes.txt", "-o", "out"],
        ["unmix", "scene.hdr"],
        ["unmix", "scene.hdr", "-r", "three", "-o", "out"],
        ["unmix", "scene.hdr", "--device", "abacus", "-o", "out"],
        ["unmix", "scene.hdr", "--checkpoint", "nothing", "-o", "out"],
        ["unmix", "scene.hdr", "--library", "nothing.sli", "-o", "out"],
        ["unmix", "scene.hdr", "--scale", "0", "-o", "out"],
        ["info", "nothing.npy"],
        ["info", "."],
        ["simulate", "--size", "0", "5", "-o", "out"],
        ["fly"],
        [],
    ],
)
def test_bad_input_is_one_line_and_code_2(scene, arguments, monkeypatch, capsys):
    monkeypatch.chdir(scene.parent)
    Path("notes.txt").write_text("hello")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("hsunmix: error: ") and captured.err.count("\n") == 1
    assert "Traceback" not in captured.err and captured.out == ""


def test_debug_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        main(["info", str(tmp_path / "nothing.npy"), "--debug"])


def test_failures_that_are_not_the_users(scene, tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("out of\nluck")

    monkeypatch.setattr(unmix, "load_pipeline", broken)
    assert main(["unmix", str(scene), "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("hsunmix: error: RuntimeError: out of luck") and error.count("\n") == 1


def test_warnings_are_one_line(tmp_path, pipeline, capsys):
    path = write_cube(tmp_path / "scene", np.full((2, 2, 5), 0.5), np.linspace(400, 800, 5))
    (tmp_path / "scene.img").write_bytes((tmp_path / "scene.img").read_bytes() + b"more")
    assert main(["info", str(path)]) == 0
    error = capsys.readouterr().err
    assert error.startswith("hsunmix: warning: ") and "4 more" in error and error.count("\n") == 1


def test_info(scene, tmp_path, capsys):
    assert main(["info", str(scene)]) == 0
    text = capsys.readouterr().out
    assert "6 rows x 8 columns x 41 bands" in text and "400 to 2400 nm" in text and "1 of 48" in text
    assert "32 of 41; --mask-bands leaves out: bad by the file 1400 nm; water vapour 1350, 1450, 1800-2050 nm" in text
    path = write_library(tmp_path / "known", np.full((2, 41), 0.5), ["soil", "tree"], CENTERS)
    assert main(["info", str(path)]) == 0
    assert "soil, tree" in capsys.readouterr().out
    folder = tmp_path / "checkpoint"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"0" * 2_000_000)
    index = {"_class_name": "SemiBlindUnmixingPipeline", "unet": ["hsunmix.models", "ResUNet2D"], "default_steps": 20}
    (folder / "model_index.json").write_text(json.dumps(index))
    assert main(["info", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "ResUNet2D, 2.0 MB" in text and "SemiBlindUnmixingPipeline" in text and "20" in text
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert "torch" in text and "cpu" in text


def test_info_and_unmix_count_alike(scene, tmp_path, pipeline, capsys):
    cube = read_cube(scene)
    data = cube.data.copy()
    data[3, 3] = 0  # counts as no data
    data[:, :, 5] = np.nan  # a bad band that no list mentions
    path = write_cube(tmp_path / "gaps", data, CENTERS, band_mask=np.arange(41) != 20)
    assert main(["info", str(path)]) == 0
    info = capsys.readouterr().out
    out = tmp_path / "out"
    assert main(["unmix", str(path), "-r", "2", "-o", str(out)]) == 0
    assert f"{path}: 6 x 8 pixels, 31 of 41 bands used" in capsys.readouterr().out
    counted = json.loads((out / "summary.json").read_text())["cube"]
    assert f"{41 - counted['bad_bands']} of 41; " in info and "empty 650 nm" in info
    assert "2 of 48 pixels" in info


def test_info_of_a_result(scene, tmp_path, pipeline, capsys):
    out = tmp_path / "out"
    path = write_library(tmp_path / "known", np.random.default_rng(0).random((5, 41)), list("abcde"), CENTERS)
    assert main(["unmix", str(scene), "--library", str(path), "-o", str(out)]) == 0
    written = capsys.readouterr().out
    assert (
        "3 endmembers (number estimated: 3 with 70 %, 4 with 20 %, 5 with 10 %; -r sets it)" in written
        and "nearest spectrum in the library" in written
    )
    assert main(["info", str(out)]) == 0
    text = capsys.readouterr().out
    for word in ("32 of 41 bands used", "mean abundance", "1.0 times the noise", "nearest spectrum", "abundances.hdr"):
        assert word in text, word
    assert main(["unmix", str(scene), "-r", "3", "--overwrite", "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "estimated" not in text and "library" not in text
    (tmp_path / "unfinished" / ".hsunmix-unfinished").mkdir(parents=True)
    assert main(["info", str(tmp_path / "unfinished")]) == 2
    assert "--resume" in capsys.readouterr().err
    np.save(tmp_path / "spectra.npy", np.ones((3, 7)))
    assert main(["info", str(tmp_path / "spectra.npy")]) == 0
    assert "3 x 7 bands" in capsys.readouterr().out


def test_simulate_writes_a_scene_that_agrees_with_its_truth(tmp_path):
    command = ["simulate", "-r", "3", "--size", "12", "10", "--snr", "inf", "--brightness", "free", "-q"]
    for name in ("first", "second"):
        assert main([*command, "--seed", "5", "-o", str(tmp_path / name)]) == 0
    folder = tmp_path / "first"
    cube = read_cube(folder / "scene.hdr")
    assert cube.shape[:2] == (12, 10) and cube.wavelengths is not None and cube.fwhm is not None
    with np.load(folder / "scene_reference.npz", allow_pickle=False) as truth:
        rebuilt = truth["brightness"][..., None] * (truth["abundances"] @ truth["endmembers"])
        np.testing.assert_allclose(cube.data, rebuilt, atol=1e-5)
        np.testing.assert_array_equal(read_library(folder / "endmembers.sli").spectra, truth["endmembers"])
    np.testing.assert_array_equal(cube.data, read_cube(tmp_path / "second" / "scene.hdr").data)


def test_simulate_from_a_library(tmp_path):
    rng = np.random.default_rng(0)
    spectra = 0.5 + 0.3 * np.sin(CENTERS / rng.uniform(50, 400, (30, 1)) + rng.uniform(0, 6, (30, 1)))
    path = write_library(tmp_path / "lib", spectra, [f"rock {i}" for i in range(30)], CENTERS)
    out = tmp_path / "out"
    options = f"-r 3 --size 8 8 --sensor vnir --max-purity 0.8 --library {path} -q -o {out}".split()
    assert main(["simulate", *options]) == 0
    assert all(name.startswith("rock") for name in read_library(out / "endmembers.hdr").names)
    with np.load(out / "scene_reference.npz") as truth:
        assert truth["abundances"].max() <= 0.8 + 1e-5


def test_demo_prints_coarse_and_refined(tmp_path, pipeline, capsys):
    assert main(["demo", "--size", "16", "-r", "3", "-o", str(tmp_path / "demo")]) == 0
    text = capsys.readouterr().out
    for word in ("coarse", "refined", "abundance RMSE", "spectral angle", "PSNR", "16 x 16"):
        assert word in text
    assert (tmp_path / "demo" / "abundances.png").exists()
    assert np.isfinite(pipeline.calls[0].cube).all()
    assert main(["demo", "--blind", "--size", "16", "-r", "3", "-o", str(tmp_path / "blind")]) == 0
    rough, blind = (vars(call).get("endmembers") for call in pipeline.calls)
    assert rough.shape[0] == 3 and blind is None


def test_names_of_simulated_materials_are_words():
    assert set(demo._MATERIALS) == set(PARAMETRIC_FAMILIES)
    for seed in (0, 2):
        names = demo.simulate_scene(4, 16, 20.0, seed)["names"]
        assert not any("parametric" in name or "_" in name for name in names) and len(set(names)) == 4


def test_every_command_teaches(capsys):
    for command in ("unmix", "demo", "simulate", "info"):
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        assert "examples:" in text and f"hsunmix {command}" in text
    assert main(["--version"]) == 0


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from hsunmix.cli.main import main; main(['unmix', '--help']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'matplotlib', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_module_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "hsunmix", "info", "nothing.npy"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2 and result.stderr == "hsunmix: error: nothing.npy: no such file\n"


def test_parser_builds():
    assert build_parser().parse_args(["unmix", "a.hdr", "-o", "b"]).checkpoint == "base"


@pytest.mark.parametrize("tiles", [[], ["--tile", "8", "--overlap", "2"]])
def test_results_of_an_earlier_run_do_not_stay_beside_new_ones(tmp_path, tiles):
    """Whole and in tiles; files that are not results stay."""
    cube, wavelengths, _ = tiny_scene(height=10, width=9)
    path = str(write_cube(tmp_path / "scene", cube, wavelengths))
    tiny_pipeline().save_pretrained(tmp_path / "checkpoint")
    options = ["-r", "2", "--steps", "1", "--checkpoint", str(tmp_path / "checkpoint"), "-q", "-o"]
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    first = ["--uncertainty", "--report", "--format", "geotiff", "--tile", "8", "--overlap", "2"]
    assert main(["unmix", path, *options, str(out), *first]) == 0
    written = {file.name for file in out.iterdir()}
    assert {"report.html", "uncertainty.tif", "timing.json"} <= written <= set(FILES)
    (out / "notes.txt").write_text("mine")
    assert main(["unmix", path, *options, str(out), *tiles, "--overwrite"]) == 0
    assert main(["unmix", path, *options, str(fresh), *tiles]) == 0
    alone = {file.name for file in fresh.iterdir()}
    assert alone <= set(FILES)
    assert {file.name for file in out.iterdir()} == alone | {"notes.txt"}


def test_resume_takes_only_the_result_that_is_asked_for(scene, tmp_path, pipeline, capsys):
    out = tmp_path / "out"
    command = ["unmix", str(scene), "-r", "4", "-o", str(out)]
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--resume"]) == 0
    assert "complete already" in capsys.readouterr().out
    other = write_cube(tmp_path / "other", read_cube(scene).data, CENTERS)
    for changed, message in (
        ([*command, "-r", "3"], "with --num-endmembers 4, now with --num-endmembers 3"),
        ([*command, "--uncertainty", "--seed", "1"], "without --uncertainty, now with --uncertainty"),
        ([*command, "--scale", "2"], "without --scale, now with --scale 2.0"),
        (["unmix", str(other), *command[2:]], "of scene.img, now other.img"),
    ):
        assert main([*changed, "--resume"]) == 2
        error = capsys.readouterr().err
        assert f"({message}): --overwrite replaces it, or give another folder" in error and error.count("\n") == 1
    assert len(pipeline.calls) == 1
    assert main([*command, "-r", "3", "--resume", "--overwrite"]) == 0
    assert json.loads((out / "summary.json").read_text())["num_endmembers"] == 3
    (tmp_path / "simulated").mkdir()
    (tmp_path / "simulated" / "summary.json").write_text('{"settings": {}}')
    assert main([*command, "--resume", "-o", str(tmp_path / "simulated")]) == 2
    assert "no result of `hsunmix unmix`" in capsys.readouterr().err


def test_info_takes_numbers_for_what_unmix_takes_them(tmp_path, capsys):
    reflectance, wavelengths, _ = tiny_scene(height=10, width=9)
    tiny_pipeline().save_pretrained(tmp_path / "checkpoint")
    path = tmp_path / "scene.npy"
    options = ["-r", "2", "--steps", "0", "--checkpoint", str(tmp_path / "checkpoint"), "-q", "--overwrite"]
    for scale in (1, 100, 10_000):
        np.save(path, reflectance if scale == 1 else np.round(reflectance * scale).astype(np.int16))
        assert main(["unmix", str(path), *options, "-o", str(tmp_path / "out")]) == 0
        said = capsys.readouterr().err.splitlines()
        assert json.loads((tmp_path / "out" / "summary.json").read_text())["cube"]["scale"] == scale
        assert main(["info", str(path)]) == 0
        text, error = capsys.readouterr()
        assert f"numbers divided by {scale}" in text and ("judged by the values" in text) == (scale > 1)
        guessed = "hsunmix: warning: the cube reaches"
        assert error.splitlines() == [line for line in said if line.startswith(guessed)]  # in the same words
        assert error.count("Pass --scale") == (scale > 1) and "too large" not in text
        highest = float(text.split(" to ")[-1].split(",")[0])
        assert highest == pytest.approx(reflectance.max(), rel=0.02)
    np.save(path, reflectance * 1e6)
    assert main(["info", str(path)]) == 0
    assert "would refuse this: the cube reaches" in capsys.readouterr().err


def test_many_endmembers_are_warned_of(scene, tmp_path, pipeline, capsys):
    for count in (20, 21):
        assert main(["unmix", str(scene), "-r", str(count), "-o", str(tmp_path / str(count))]) == 0
        error = capsys.readouterr().err
        assert ("more than scenes usually hold" in error) == (count > 20)


def test_spikes_that_set_the_scale_are_found():
    """Single bands far above their neighbours, in the order of wavelengths; broad maxima and small spikes are not."""
    from hsunmix.cli.results import spikes

    nanometres = np.linspace(400, 2400, 101)
    broad = np.exp(-0.5 * ((nanometres - 1400) / 300) ** 2)
    spiked, slightly = broad.copy(), broad.copy()
    spiked[20], slightly[50] = 1.6, 1.1
    masked = np.full(101, np.nan)
    assert spikes(np.stack([broad, slightly]), nanometres) == []
    assert spikes(np.stack([broad, spiked]), nanometres) == [nanometres[20]]
    shuffled = np.random.default_rng(0).permutation(101)
    assert spikes(np.stack([broad, spiked])[:, shuffled], nanometres[shuffled]) == [nanometres[20]]
    assert spikes(np.where(np.arange(101) == 20, masked, np.stack([broad, spiked])), nanometres) == []
    assert spikes(np.stack([spiked]), None) == []


def test_report_says_what_to_look_at(tmp_path, capsys):
    """A doubtful result names the picture that shows where, spikes and pixels without data; a good one is silent."""
    from hsunmix.cli.results import report

    summary = {
        "snr_db": 40.0,
        "mixing_model": "linear",
        "brightness_mode": "free",
        "num_endmembers": 2,
        "endmembers": [{"name": name, "mean_abundance": 0.5} for name in "ab"],
        "settings": {"library": None, "num_endmembers": 2},
        "quality": {"good": 90, "nodata": 5, "saturated": 0, "poorly explained": 5},
        "residual_rms": 0.01,
        "residual_over_noise": 7.0,
        "unexplained": "the residual is 7.0 times the noise",
        "cube": {"nodata_pixels": 5},
        "spikes_nm": [763.4],
    }
    report(tmp_path, summary, 1.0)
    said = capsys.readouterr().out
    assert "residual.png shows where" in said
    assert "5 pixels have no data" in said and "a spike at 763 nm" in said
    report(tmp_path, summary | {"unexplained": None, "cube": {"nodata_pixels": 0}, "spikes_nm": []}, 1.0)
    said = capsys.readouterr().out
    assert not any(word in said for word in ("residual.png", "no data", "spike"))
