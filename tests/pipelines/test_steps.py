"""Steps in which the latents tell the networks nothing new keep the last prediction."""

import numpy as np
import pytest
import torch

from hsunmix import SemiBlindUnmixingPipeline, bundled_checkpoint
from hsunmix.evaluation import add_noise
from hsunmix.pipelines import steps
from hsunmix.pipelines.steps import plan_steps
from hsunmix.simulation import SceneSimulator, preset_sensor

from .tiny import tiny_inputs, tiny_pipeline


def asking(count):
    timesteps = [1000 - 1 - 1000 * k // count for k in range(count)]
    return [step.asks for step in plan_steps(timesteps, timesteps, 1000)]


def rmse(maps, others):
    return float(np.sqrt(np.square(maps - others).mean()))


def test_few_steps_all_ask_and_many_ask_where_latents_count_but_not_for_too_much():
    assert all(asking(1) + asking(2) + asking(3) + asking(4))
    asks = asking(50)
    assert asks[0] and 6 <= sum(asks) <= 12 and not any(asks[40:])
    assert abs(sum(asking(500)) - sum(asks)) <= 3


def test_the_networks_run_in_the_steps_that_ask_and_callbacks_in_all():
    pipe = tiny_pipeline()
    pipe.set_progress_bar_config(disable=True)
    seen, called = [], []
    forward = pipe.unet.forward
    pipe.unet.forward = lambda *args, **kwargs: seen.append(int(args[1])) or forward(*args, **kwargs)
    output = pipe(
        **tiny_inputs(num_inference_steps=50), callback_on_step_end=lambda _, step, t, tensors: called.append(step)
    )
    turns, runs = 2, 2  # upright and turned by half a circle; once more, with a little noise added
    assert called == list(range(50))
    assert len(seen) == turns * runs * sum(asking(50))
    assert len(output.scene[0].stages[0]) == 1 + sum(asking(50))


@pytest.fixture(scope="module")
def unmix():
    """Unmixes a noisy scene of three materials in so many steps, and gives its maps and the truth."""
    pipe = SemiBlindUnmixingPipeline.from_pretrained(bundled_checkpoint("base"))
    pipe.set_progress_bar_config(disable=True)
    sensor = preset_sensor("enmap")
    scene = SceneSimulator(height=24, width=24)(torch.Generator().manual_seed(3), num_endmembers=3, sensor=sensor)
    cube = add_noise(scene.cube.numpy(), 15.0)

    def maps(count):
        known = {"wavelengths": sensor.wavelengths, "fixed_endmembers": scene.endmembers}
        return pipe(cube, **known, num_inference_steps=count, generator=torch.Generator().manual_seed(0)).abundances[0]

    return maps, scene.abundances.numpy()


def test_asking_more_often_gives_the_same_maps(monkeypatch, unmix):
    maps, _ = unmix
    few, kept = maps(0), maps(24)
    monkeypatch.setattr(steps, "_LEAST_TURN", -np.inf)
    asked = maps(24)
    assert 0 < rmse(kept, asked) < 0.02 * rmse(few, asked)


def test_many_steps_are_as_good_as_two_but_not_if_all_of_them_ask(monkeypatch, unmix):
    maps, truth = unmix
    coarse, two, many = (rmse(maps(count), truth) for count in (0, 2, 50))
    assert many < 1.005 * two < coarse
    monkeypatch.setattr(steps, "_LEAST_TURN", -np.inf)
    monkeypatch.setattr(steps, "_MOST_TURN", np.inf)
    assert rmse(maps(50), truth) > 1.01 * two
