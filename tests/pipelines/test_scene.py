"""A part of a scene, unmixed with what another call found about the whole."""

import numpy as np
import pytest
import torch

from hsunmix.data import Cube
from hsunmix.pipelines import SceneModel

from .tiny import tiny_inputs, tiny_pipeline, tiny_scene


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def whole_and_again(pipe, **options):
    inputs = tiny_inputs(size=(12, 10), **options)
    whole = pipe(**inputs)
    kept = {key: inputs[key] for key in ("cube", "num_inference_steps", "ensemble_size") if key in inputs}
    return whole, pipe(
        **kept, scene=whole.scene[0], generator=torch.Generator().manual_seed(0), output_uncertainty=True
    )


@pytest.mark.parametrize(("brightness", "steps"), [("free", 2), ("fixed", 2), ("free", 50)])
def test_the_same_cube_gives_the_same_result(pipe, brightness, steps):
    whole, again = whole_and_again(pipe, brightness=brightness, output_uncertainty=True, num_inference_steps=steps)
    for name in ("abundances", "endmembers", "abundance_uncertainty", "coarse_abundances", "brightness", "residual"):
        first, second = getattr(whole, name), getattr(again, name)
        np.testing.assert_allclose(first, second, atol=1e-5, rtol=1e-4, err_msg=name)
    assert again.brightness_mode == [brightness]


def test_files_of_another_version_are_named_as_such(pipe, tmp_path):
    path = pipe(**tiny_inputs(size=(12, 10))).scene[0].save(tmp_path / "scene.npz")
    with np.load(path) as archive:
        older = {key: archive[key] for key in archive.files if not key.startswith("error_share")}
    np.savez(path, **older)
    with pytest.raises(ValueError, match="scene.npz is of another version of hsunmix: it lacks error_share_0"):
        SceneModel.load(path)


@pytest.mark.parametrize("mixing_model", ["bilinear", "postnonlinear", "variable"])
def test_nonlinear_mixing_is_the_same_for_parts(pipe, mixing_model):
    inputs = tiny_inputs(size=(12, 10))
    whole = pipe(**inputs, mixing_model=mixing_model)
    kept = {key: inputs[key] for key in ("cube", "num_inference_steps")}
    for same in (mixing_model, "auto"):
        again = pipe(**kept, mixing_model=same, scene=whole.scene[0])
        np.testing.assert_allclose(again.abundances, whole.abundances, atol=2e-3)
        assert again.mixing_model == [mixing_model]
    with pytest.raises(ValueError, match="`mixing_model` is 'linear', but `scene` was made with"):
        pipe(**kept, mixing_model="linear", scene=whole.scene[0])


def test_a_part_has_the_endmembers_and_the_noise_of_the_whole(pipe):
    inputs = tiny_inputs(size=(12, 10), blind=True)
    whole = pipe(**inputs)
    part = pipe(inputs["cube"][2:9, 3:8] * 1.0, num_inference_steps=2, scene=whole.scene[0])
    assert part.scene[0].stages[0][-1].noisiness == whole.scene[0].stages[0][-1].noisiness
    assert part.scene[0].origin == whole.scene[0].origin == "extracted"
    np.testing.assert_array_equal(part.endmembers, whole.endmembers)
    np.testing.assert_array_equal(part.noise, whole.noise)
    assert part.abundances.shape == (1, 7, 5, 3)


def test_bands_and_scale_are_those_of_the_whole(pipe):
    cube, wavelengths, endmembers = tiny_scene(height=10, width=10)
    mask = np.ones(24, bool)
    mask[5] = False
    numbers = cube * 10_000
    reverse = Cube(numbers, wavelengths=wavelengths[::-1], band_mask=mask)
    whole = pipe(reverse, endmembers=endmembers, brightness="free")
    assert whole.scene[0].scale == 10_000
    dark = numbers[:4, :4] * 1e-5  # alone it would be taken for reflectance
    part = pipe(Cube(dark, wavelengths=wavelengths[::-1], band_mask=mask), scene=whole.scene[0])
    assert np.isnan(part.endmembers[0][:, 5]).all() and (part.brightness[0] < 0.01).all()


def test_saved_and_loaded(pipe, tmp_path):
    inputs = tiny_inputs(size=(8, 8), ensemble_size=2, output_uncertainty=True)
    scene = pipe(**inputs).scene[0]
    loaded = SceneModel.load(scene.save(tmp_path / "scene.npz"))
    same, again = (
        pipe(
            inputs["cube"],
            num_inference_steps=2,
            ensemble_size=2,
            scene=one,
            generator=torch.Generator().manual_seed(0),
        )
        for one in (scene, loaded)
    )
    np.testing.assert_array_equal(same.abundances, again.abundances)
    np.testing.assert_array_equal(same.abundance_uncertainty, again.abundance_uncertainty)
    np.testing.assert_array_equal(same.endmembers, again.endmembers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_endmembers": 3}, "`num_endmembers` is part of `scene`"),
        ({"ensemble_size": 2}, "`ensemble_size` is 2"),
        ({"num_inference_steps": 3}, "`num_inference_steps` is 3"),
        ({"strength": 0.5}, "`strength` is 0.5"),
    ],
)
def test_contradictions(pipe, options, message):
    inputs = tiny_inputs()
    scene = pipe(**inputs).scene[0]
    with pytest.raises(ValueError, match=message):
        pipe(inputs["cube"], scene=scene, **({"num_inference_steps": 2} | options))
    with pytest.raises(ValueError, match="23 bands"):
        pipe(inputs["cube"][:, :, 1:], num_inference_steps=2, scene=scene)
