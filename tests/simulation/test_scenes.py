import math
import os
import pickle
import time
from pathlib import Path

import pytest
import torch

from hsunmix.simulation import (
    HELD_OUT_MATERIALS,
    MIXING_MODELS,
    NOISE_KINDS,
    LibrarySpectra,
    SceneSimulator,
    benchmark_scene,
    even_sensor,
    parametric_spectra,
    preset_sensor,
)
from hsunmix.simulation.draws import Draws
from hsunmix.simulation.mixing import random_brightness, unexplained_pixels

SHARED = Path(os.environ.get("HSUNMIX_SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def generator(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def angles(spectra):
    unit = spectra.double() / spectra.double().norm(dim=1, keepdim=True)
    degrees = torch.rad2deg(torch.acos((unit @ unit.T).clamp(-1, 1)))
    return degrees[tuple(torch.triu_indices(len(spectra), len(spectra), 1))]


@pytest.fixture(scope="module")
def library():
    wavelengths = torch.linspace(380, 2510, 200)
    spectra, families = parametric_spectra(120, wavelengths, generator(9), return_families=True)
    names = [f"{family} {i}" for i, family in enumerate(families)]
    names[:3] = ["Alunite A", "Kaolinite B", "Red Brick"]
    return spectra, wavelengths, names


@pytest.mark.parametrize("seed", range(12))
def test_scene_is_consistent(seed):
    simulator = SceneSimulator(height=24, width=40)
    scene = simulator(generator(seed))
    height, width, num_bands = scene.cube.shape
    num_endmembers = len(scene.names)
    assert (height, width) == (24, 40) and 2 <= num_endmembers <= 8 and 30 <= num_bands <= 450
    assert scene.clean.shape == scene.cube.shape
    assert scene.endmembers.shape == (num_endmembers, num_bands)
    assert scene.abundances.shape == (height, width, num_endmembers)
    assert scene.brightness.shape == (height, width)
    assert scene.noise_std.shape == scene.wavelengths.shape == scene.fwhm.shape == (num_bands,)
    for value in vars(scene).values():
        if isinstance(value, torch.Tensor):
            assert value.dtype == torch.float32 and torch.isfinite(value).all()
    assert (scene.clean >= 0).all() and (scene.brightness > 0).all() and (scene.noise_std > 0).all()
    torch.testing.assert_close(scene.abundances.sum(-1), torch.ones(height, width))
    assert angles(scene.endmembers).min() >= 4.0 - 0.05
    assert scene.mixing in MIXING_MODELS and 8 <= scene.snr_db <= 45


def test_same_seed_same_scene_whatever_the_global_generator(library):
    simulator = SceneSimulator([library])
    for seed in range(4):
        first = simulator(generator(seed))
        torch.manual_seed(seed)
        second = SceneSimulator([library])(generator(seed))
        assert first.names == second.names and first.mixing == second.mixing and first.snr_db == second.snr_db
        for name in ("cube", "clean", "endmembers", "abundances", "brightness", "noise_std", "wavelengths"):
            assert torch.equal(getattr(first, name), getattr(second, name)), name


def test_generator_advances():
    simulator, source = SceneSimulator(height=8, width=8), generator()
    first, second = (simulator(source, sensor=preset_sensor("vnir"), num_endmembers=3) for _ in range(2))
    assert not torch.equal(first.cube, second.cube)


@pytest.mark.parametrize("brightness", ["fixed", "free"])
def test_truth_reconstructs_the_clean_cube_of_linear_scenes(brightness, library):
    for seed in range(4):
        scene = SceneSimulator([library])(generator(seed), mixing="linear", brightness=brightness)
        rebuilt = scene.brightness[..., None] * (scene.abundances @ scene.endmembers)
        torch.testing.assert_close(rebuilt, scene.clean, rtol=1e-4, atol=1e-5)
        assert bool((scene.brightness == 1).all()) is (brightness == "fixed")


@pytest.mark.parametrize("mixing", ["bilinear", "postnonlinear", "variable"])
def test_other_models_depart_from_the_linear_one_within_reason(mixing):
    departures = []
    for seed in range(6):
        scene = SceneSimulator(height=48, width=48)(generator(seed), mixing=mixing, brightness="fixed", snr_db=None)
        linear = scene.abundances @ scene.endmembers
        departures.append(float((scene.clean - linear).norm() / linear.norm()))
        assert torch.equal(scene.cube, scene.clean) and scene.snr_db == math.inf and not scene.noise_std.any()
    assert max(departures) > 0.02 and max(departures) < 0.6
    if mixing == "bilinear":
        assert (scene.clean - linear).min() > -1e-5


@pytest.mark.parametrize("noise", NOISE_KINDS)
@pytest.mark.parametrize("snr_db", [10.0, 30])
def test_noise_has_the_ratio_and_the_standard_deviation_that_the_scene_states(noise, snr_db):
    scene = SceneSimulator()(generator(4), snr_db=snr_db, noise=noise, dead_pixels=False, sensor=preset_sensor("vnir"))
    residual = (scene.cube - scene.clean).double()
    measured = 10 * math.log10(float(scene.clean.double().square().mean() / residual.square().mean()))
    assert measured == pytest.approx(snr_db, abs=0.3) and scene.snr_db == snr_db
    # 4096 samples; stripes have only 64 independent columns
    measured_std = residual.square().mean((0, 1)).sqrt().float()
    torch.testing.assert_close(measured_std, scene.noise_std, rtol=0.25 if noise == "stripes" else 0.06, atol=0)


def test_noise_kinds_have_their_structure():
    simulator = SceneSimulator(brightness_probability=0)
    sensor = preset_sensor("vnir")
    correlation, column_share = {}, {}
    for noise in NOISE_KINDS:
        scene = simulator(generator(2), noise=noise, dead_pixels=False, sensor=sensor)
        residual = (scene.cube - scene.clean) / scene.noise_std
        correlation[noise] = float((residual[..., 1:] * residual[..., :-1]).mean())
        column_share[noise] = float(residual.mean(0).square().mean())
    assert correlation["correlated"] > 0.05 > abs(correlation["white"])
    assert column_share["stripes"] > 2 * column_share["white"]


def test_dead_pixels_are_rare_zeros():
    scene = SceneSimulator()(generator(), dead_pixels=True, snr_db=20)
    dead = (scene.cube == 0).float().mean()
    assert 0 < dead < 2e-3


def test_overrides():
    simulator = SceneSimulator()
    sensor = even_sensor(420, 980, 61)
    scene = simulator(
        generator(),
        num_endmembers=5,
        height=20,
        width=30,
        snr_db=(12, 13),
        mixing="linear",
        sensor=sensor,
        abundance_kind="blocks",
        max_purity=0.75,
        brightness="fixed",
    )
    assert scene.cube.shape == (20, 30, 61) and scene.abundances.shape[-1] == 5
    assert scene.abundances.max() <= 0.75 + 1e-5 and 12 <= scene.snr_db <= 13
    torch.testing.assert_close(scene.wavelengths, sensor.wavelengths)


def test_given_endmembers_abundances_and_brightness_are_used():
    endmembers = torch.rand(3, 40, generator=generator())
    abundances = torch.rand(10, 12, 3, generator=generator()).softmax(-1)
    field = 0.5 + torch.rand(10, 12, generator=generator())
    scene = SceneSimulator()(
        generator(),
        endmembers=endmembers,
        abundances=abundances,
        brightness=field,
        mixing="linear",
        snr_db=None,
        dead_pixels=False,
        names=["a", "b", "c"],
    )
    assert scene.wavelengths is None and scene.fwhm is None and scene.names == ["a", "b", "c"]
    torch.testing.assert_close(scene.cube, field[..., None] * (abundances @ endmembers))


@pytest.mark.parametrize(
    "overrides,message",
    [
        (dict(mixing="intimate"), "`mixing`"),
        (dict(noise="pink"), "`noise`"),
        (dict(brightness="auto"), "`brightness`"),
        (dict(brightness=torch.ones(3, 3)), "`brightness`"),
        (dict(endmembers=torch.rand(3, 5), sensor=even_sensor(400, 900, 6)), "`endmembers`"),
        (dict(endmembers=torch.rand(3, 5), names=["a"]), "`names`"),
        (dict(endmembers=torch.rand(3, 5), abundances=torch.rand(4, 4, 2)), "`abundances`"),
        (dict(abundances=torch.rand(4, 4)), "`abundances`"),
        (dict(num_endmembers=60, sensor=even_sensor(400, 410, 5)), "`num_endmembers`"),
    ],
)
def test_errors_name_the_argument(overrides, message):
    with pytest.raises(ValueError, match=message):
        SceneSimulator(height=8, width=8)(generator(), **overrides)


def test_constructor_errors():
    for arguments, message in (
        (dict(mixing_probabilities={"x": 1}), "`mixing_probabilities`"),
        (dict(noise_probabilities={"white": 0}), "`noise_probabilities`"),
        (dict(parametric_fraction=2), "`parametric_fraction`"),
        (dict(libraries=[3]), "`libraries`"),
    ):
        with pytest.raises(ValueError, match=message):
            SceneSimulator(**arguments)


def test_libraries_serve_the_sensors_that_they_cover(library):
    spectra, wavelengths, names = library
    vnir = wavelengths < 950
    simulator = SceneSimulator(
        [(spectra[:, vnir], wavelengths[vnir], names)], parametric_fraction=0.0, height=8, width=8
    )
    scene = simulator(generator(), sensor=preset_sensor("vnir"))
    assert set(scene.names) <= set(names)
    with pytest.raises(ValueError, match="`libraries` do not cover"):
        simulator(generator(), sensor=preset_sensor("emit"))


def test_parametric_fraction_mixes_sources(library):
    simulator = SceneSimulator([library], parametric_fraction=0.5, height=8, width=8)
    source, names = generator(), []
    for _ in range(20):
        names += simulator(source, num_endmembers=5).names
    share = sum(name.startswith("parametric") for name in names) / len(names)
    assert 0.25 < share < 0.75


def test_held_out_materials_never_enter(library):
    simulator = SceneSimulator([library], parametric_fraction=0.0, exclude_held_out=True)
    kept = [name.lower() for name in simulator.libraries[0].names]
    assert len(kept) == 117 and not any(m.lower() in name for m in HELD_OUT_MATERIALS for name in kept)
    assert len(SceneSimulator([library]).libraries[0]) == 120


def test_unknown_wavelengths(library):
    scene = SceneSimulator([library], unknown_wavelength_probability=1.0, height=8, width=8)(generator())
    assert scene.wavelengths is None and scene.fwhm is None


def test_brightness_varies_in_the_stated_share_and_width():
    simulator, source = SceneSimulator(height=32, width=32), generator(3)
    sensor = even_sensor(400, 1000, 30)
    fields = [simulator(source, sensor=sensor, num_endmembers=3).brightness.log() for _ in range(60)]
    varying = [field for field in fields if field.std() > 0]
    assert 0.5 < len(varying) / len(fields) < 0.9
    spreads = torch.stack([field.std() for field in varying])
    assert spreads.min() > 0.03 and 0.15 < spreads.median() < 0.6  # shadows and dark materials widen many
    assert min(float(field.min()) for field in varying) > -3.5 * 0.4 - 2 * 2.3 - 0.1


def test_some_materials_dim_the_pixels_they_are_in():
    maps = torch.zeros(20, 20, 2)
    maps[:, :10, 0], maps[:, 10:, 1] = 1, 1
    draws = Draws(generator(5))
    ratios = []
    for _ in range(80):
        log_brightness = random_brightness(20, 20, draws, maps.flatten(0, 1)).log()
        ratios.append(float((log_brightness[:, :10].mean() - log_brightness[:, 10:].mean()).abs()))
    assert 0.1 < sum(ratio > 1 for ratio in ratios) / len(ratios) < 0.6


def test_to_device_and_pickle(library):
    simulator = pickle.loads(pickle.dumps(SceneSimulator([LibrarySpectra(*library)], height=8, width=8)))
    scene = simulator(generator()).to("meta")
    assert scene.cube.device.type == scene.wavelengths.device.type == "meta" and isinstance(scene.names, list)


@pytest.mark.gpu
@pytest.mark.parametrize("source_device", ["cpu", "cuda"])
def test_scenes_are_made_on_the_device(source_device, library):
    simulator = SceneSimulator([library], device="cuda")
    for seed in range(12):
        scene = simulator(generator(seed, source_device))
        assert all(v.is_cuda for v in vars(scene).values() if isinstance(v, torch.Tensor))
        assert torch.isfinite(scene.cube).all()
        torch.testing.assert_close(scene.abundances.sum(-1).cpu(), torch.ones(64, 64))


def test_speed_is_of_the_right_order():
    simulator, source = SceneSimulator(), generator()
    sensor = even_sensor(400, 2500, 200)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        simulator(source, sensor=sensor, num_endmembers=5)
        times.append(time.perf_counter() - start)
    assert sorted(times)[4] < 0.5  # about 0.01 s; a busy machine must not fail this


@pytest.mark.parametrize("mixing", ["linear", "bilinear", "variable"])
def test_benchmark_scene_follows_its_recipe(mixing, library):
    spectra, wavelengths, names = library
    scene = benchmark_scene(spectra, wavelengths, 3, mixing=mixing, snr_db=15, num_endmembers=4, names=names)
    assert scene.cube.shape == (64, 64, 200) and scene.endmembers.shape == (4, 200)
    assert (scene.brightness == 1).all() and scene.abundances.max() <= 0.8 + 1e-5
    assert angles(scene.endmembers).min() >= 9.99 and angles(scene.endmembers).max() <= 45.01
    assert scene.endmembers.mean(1).min() >= 0.15 and scene.endmembers.mean(1).max() <= 0.85
    ratio = 10 * torch.log10(scene.clean.square().mean() / (scene.cube - scene.clean).square().mean())
    assert float(ratio) == pytest.approx(15, abs=0.1)
    assert torch.equal(scene.cube, benchmark_scene(spectra, wavelengths, generator(3), mixing, 15, 4).cube)
    for name, spectrum in zip(scene.names, scene.endmembers):
        assert torch.equal(spectra[names.index(name)], spectrum)


def test_benchmark_scene_with_variable_endmembers_stays_near_the_nominal_ones(library):
    spectra, wavelengths, _ = library
    scene = benchmark_scene(spectra, wavelengths, 0, mixing="variable", snr_db=None, num_endmembers=3)
    linear = scene.abundances @ scene.endmembers
    cosine = torch.cosine_similarity(linear, scene.clean, dim=-1)
    assert 0.3 < float(torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).mean()) < 5.0
    scale = scene.clean.norm(dim=-1) / linear.norm(dim=-1)
    assert 0.7 < scale.min() and scale.max() < 1.3 and scale.std() > 0.02


def test_variable_endmembers_turn_by_two_degrees_on_average():
    endmembers = 0.2 + 0.5 * torch.rand(1, 100, generator=generator())
    endmembers = torch.cat([endmembers, endmembers.flip(1)])
    pure = torch.zeros(64, 64, 2)
    pure[..., 0] = 1
    turns = []
    for seed in range(12):
        scene = SceneSimulator()(
            generator(seed),
            endmembers=endmembers,
            abundances=pure,
            mixing="variable",
            brightness="fixed",
            snr_db=None,
            dead_pixels=False,
        )
        cosine = torch.cosine_similarity(scene.clean.double(), endmembers[0].double(), dim=-1)
        turns.append(float(torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).mean()))
        scale = scene.clean @ endmembers[0] / endmembers[0].square().sum()
        assert scale.min() > 0.749 and scale.max() < 1.251
    assert sum(turns) / len(turns) == pytest.approx(2.0, abs=0.25)


def test_what_no_mixture_explains_is_small_and_in_half_of_the_scenes_outside_of_the_span():
    wavelengths = torch.linspace(400, 2500, 120)
    spectra = parametric_spectra(4, wavelengths, generator(3))
    basis = torch.linalg.qr(spectra.double().T)[0]
    abundances = torch.rand(24 * 24, 4, generator=generator(4)).softmax(1)
    explained = (abundances @ spectra).norm()
    sizes, inside = [], []
    for seed in range(40):
        pixels = unexplained_pixels(abundances, spectra, 24, 24, Draws(generator(seed)))
        sizes.append(math.degrees(math.atan(float(pixels.norm() / explained))))
        inside.append(float((pixels.double() @ basis).norm() / pixels.norm()))
    assert 0.05 < min(sizes) < 0.3 and 1 < max(sizes) < 4
    outside = sum(share < 1e-4 for share in inside)
    assert 10 <= outside <= 30 and max(inside) > 0.2


def test_misfit_is_part_of_the_clean_scene_and_known(library):
    simulator = SceneSimulator([library], height=16, width=16)
    plain = simulator(generator(5), mixing="linear", snr_db=None)
    scene = simulator(generator(5), mixing="linear", snr_db=None, misfit=True)
    assert plain.misfit == 0 and 0 < scene.misfit < 0.1
    explained = scene.brightness[..., None] * (scene.abundances @ scene.endmembers)
    rest = (scene.clean - explained) / scene.brightness[..., None]
    size = rest.square().mean().sqrt() / (explained / scene.brightness[..., None]).square().mean().sqrt()
    assert float(size) == pytest.approx(scene.misfit, rel=1e-2)
    torch.testing.assert_close(plain.endmembers, scene.endmembers)


def test_benchmark_errors():
    with pytest.raises(ValueError, match="`library_spectra`"):
        benchmark_scene(torch.full((9, 50), 0.5), None, 0)
    with pytest.raises(ValueError, match="`library_spectra`"):
        benchmark_scene(torch.full((50,), 0.5), None, 0)


@pytest.mark.skipif(not (SHARED / "libraries").is_dir(), reason="shared spectral libraries are not here")
def test_real_libraries():
    from spectral.io import envi

    libraries = []
    for name in ("usgs_splib07_av95", "earthlib_optimized"):
        file = envi.open(str(SHARED / "libraries" / f"{name}.hdr"))
        libraries.append((file.spectra, file.bands.centers, file.names))
    simulator = SceneSimulator(libraries, parametric_fraction=0.1, exclude_held_out=True, height=16, width=16)
    assert [len(lib) > 250 for lib in simulator.libraries] == [True, True]
    source = generator()
    for _ in range(30):
        scene = simulator(source)
        assert torch.isfinite(scene.cube).all() and scene.endmembers.max() <= 1.5 and scene.endmembers.min() >= 0
