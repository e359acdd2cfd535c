# %% [markdown]
# # hsunmix: a tour
#
# What the package can do, in the order in which one needs it. Every scene here is simulated, so the truth is known and
# every claim is checked: a cell that says "better" asserts it. Run it as a script (`python docs/tutorial.py`, in four
# minutes on two cores) or cell by cell as a notebook (VS Code, Spyder and Jupytext read this format).
#
# Letters: a cube is (H, W, B), H x W pixels of B bands, reflectance in [0, 1]; wavelengths are in nm. R materials
# (*endmembers*) have spectra (R, B), and each pixel holds a fraction (*abundance*) of each: maps (H, W, R).
#
# All files go to a temporary folder, or to the folder that the environment variable `HSUNMIX_TUTORIAL` names.

# %%
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import hsunmix
from hsunmix.data import SpectralLibrary, open_cube, read_cube, write_cube, write_library
from hsunmix.endmembers import number_probabilities
from hsunmix.evaluation import evaluate, perturb_endmembers
from hsunmix.simulation import SceneSimulator, parametric_spectra, preset_sensor
from hsunmix.visualization import save_figures

folder = Path(os.environ.get("HSUNMIX_TUTORIAL") or tempfile.mkdtemp(prefix="hsunmix_tutorial_"))
print(f"files go to {folder}")

pipe = hsunmix.SemiBlindUnmixingPipeline.from_pretrained(hsunmix.bundled_checkpoint("base"))
pipe.set_progress_bar_config(disable=True)


def seed(number=0):
    """All randomness of a call comes from its generator: same seed, same result."""
    return torch.Generator().manual_seed(number)


# %% [markdown]
# ## 1. A scene with its truth
#
# Four materials at the bands of EnMAP (those in which water vapour blocks the light left out), mixed linearly, noise
# at 20 dB. `scene.cube` is what a sensor would deliver; the rest is the truth, and is touched for scoring only.

# %%
sensor = preset_sensor("enmap").without_water_vapour()
simulate = SceneSimulator(min_angle_degrees=12.0, height=64, width=64)
settings = {"sensor": sensor, "mixing": "linear", "brightness": "fixed", "noise": "white", "dead_pixels": False}
scene = simulate(seed(0), num_endmembers=4, snr_db=20.0, max_purity=None, **settings)

cube, wavelengths = scene.cube.numpy(), sensor.wavelengths.numpy()
exact, names = scene.endmembers.numpy(), scene.names
truth = {"endmembers": exact, "abundances": scene.abundances.numpy(), "cube": scene.clean.numpy(), "observed": cube}
print(f"cube {cube.shape}, {wavelengths[0]:.0f} to {wavelengths[-1]:.0f} nm; truth: {', '.join(names)}")


def score(out, truth=truth):
    """Abundance RMSE and mean spectral angle (radians) of the coarse and the refined estimate of one cube."""
    coarse = evaluate(out.coarse_endmembers[0], out.coarse_abundances[0], truth)
    refined = evaluate(out.endmembers[0], out.abundances[0], truth)
    print("                       coarse   refined")
    print(f"  abundance RMSE    {coarse['abundance_rmse']:9.4f} {refined['abundance_rmse']:9.4f}")
    print(f"  spectral angle    {coarse['sad']:9.4f} {refined['sad']:9.4f}")
    return coarse, refined


# %% [markdown]
# ## 2. Blind: only the number of materials is known
#
# *Coarse* is the estimate before diffusion, *refined* the one after it. The gain in abundances is what the network
# knows about maps; extracted endmembers move little, because extraction has seen all pixels already: to the facets of
# the pixels, and to where all of them would have them (where no mixture explains these, as in real scenes, most).

# %%
blind = pipe(cube, wavelengths=wavelengths, num_endmembers=4, generator=seed())
coarse, refined = score(blind)
assert refined["abundance_rmse"] < coarse["abundance_rmse"]
assert refined["sad"] < coarse["sad"] + 0.001

# %% [markdown]
# The order of blind endmembers is arbitrary: `order` lines them up with the truth, for pictures and for tables. Not
# even their number need be known; without `num_endmembers` it is estimated, which can go wrong.

# %%
order = refined["order"]
save_figures(
    folder / "blind",
    blind.abundances[0][..., order],
    blind.endmembers[0][order],
    wavelengths,
    names,
    cube=cube,
    coarse_abundances=blind.coarse_abundances[0][..., coarse["order"]],
    reference_abundances=truth["abundances"],
)
probabilities = number_probabilities(torch.from_numpy(cube).flatten(0, 1))
print("probability of each number of endmembers:", {n: round(p, 2) for n, p in probabilities.items()}, "true: 4")

# The pixels are rebuilt from what comes out, up to the noise:
rebuilt = blind.brightness[0][..., None] * (blind.abundances[0] @ blind.endmembers[0])
assert np.sqrt(np.mean((rebuilt - cube) ** 2)) < 1.2 * np.sqrt(np.mean(blind.noise[0] ** 2))

# %% [markdown]
# ## 3. Known spectra
#
# **Approximate** (`endmembers`): field or library spectra, here each turned by 5 degrees (.087 rad). The scene
# corrects them, first by what can be extracted from it (the coarse spectra are corrected already), then in the
# denoising steps.

# %%
rough = perturb_endmembers(exact, degrees=5.0)
known = pipe(cube, wavelengths=wavelengths, endmembers=rough, generator=seed())
coarse, refined = score(known)
assert coarse["sad"] < 0.5 * np.deg2rad(5.0) and refined["sad"] < coarse["sad"]
assert refined["abundance_rmse"] < coarse["abundance_rmse"]

# %% [markdown]
# **Exact** (`fixed_endmembers`): they come out as they went in, and the abundances are the best that one can get.

# %%
approximate = refined["abundance_rmse"]
fixed = pipe(cube, wavelengths=wavelengths, fixed_endmembers=exact, generator=seed())
coarse, refined = score(fixed)
assert np.allclose(fixed.endmembers[0], exact, atol=1e-6)
assert refined["abundance_rmse"] < min(coarse["abundance_rmse"], approximate)

# %% [markdown]
# **Partly known**: two spectra are given, two more are extracted from what the scene shows besides. Given ones come
# first in the result. (`fixed_endmembers`, `endmembers` and `num_endmembers` can be combined in one call.)

# %%
partly = pipe(cube, wavelengths=wavelengths, fixed_endmembers=exact[:2], num_endmembers=4, generator=seed())
coarse, refined = score(partly)
assert np.allclose(partly.endmembers[0][:2], exact[:2], atol=1e-6)
assert refined["abundance_rmse"] < coarse["abundance_rmse"]

# %% [markdown]
# ## 4. A spectral library
#
# Forty spectra of all kinds, the four true ones among them, written as an ENVI library and read as any library is:
# resampled to the bands of the cube, spectra with gaps dropped. Few are chosen that together explain the scene.
#
# What is chosen counts as approximate, since a library was measured elsewhere. Where it holds the very spectra, as
# here, moving them can only cost angle; `fixed_endmembers=chosen.coarse_endmembers[0]` in a second call keeps them.

# %%
others, families = parametric_spectra(36, sensor.wavelengths, seed(5), return_families=True)
labels = [f"{family} {index}" for index, family in enumerate(families)]
spectra = np.concatenate([others.numpy(), exact])
header = write_library(folder / "library", spectra, [*labels, *names], wavelengths)

library = hsunmix.data.read_library(header).resample(wavelengths).drop_invalid()
assert isinstance(library, SpectralLibrary) and len(library) == 40
chosen = pipe(cube, wavelengths=wavelengths, library=library, num_endmembers=4, generator=seed())
coarse, refined = score(chosen)
assert refined["abundance_rmse"] < coarse["abundance_rmse"]
assert coarse["sad"] < 1e-3  # all four were found

# %% [markdown]
# ## 5. How sure is it?
#
# `output_uncertainty=True` adds standard deviations; `abundance_interval(0.9)` turns them into bounds. They are
# calibrated on simulated scenes: over many scenes about 90 % of the abundances lie in their 90 % interval. Single
# scenes lie above or below, and where extraction has failed far below.

# %%
sure = pipe(cube, wavelengths=wavelengths, endmembers=rough, output_uncertainty=True, generator=seed())
lower, upper = sure.abundance_interval(0.9)  # [1, H, W, R] each
inside = np.mean((lower[0] <= truth["abundances"]) & (truth["abundances"] <= upper[0]))
print(f"{inside:.0%} of the true abundances lie in their 90 % interval, mean width {np.mean(upper - lower):.3f}")
assert 0.8 < inside <= 1.0


# %% [markdown]
# Does it say where to look, too? With exact spectra, yes: what is left are errors of single pixels, by noise. With
# approximate ones the errors are common to all pixels, and an interval is about right on average, but a pixel that it
# calls uncertain need not be one that is off.

# %%
sharp = pipe(cube, wavelengths=wavelengths, fixed_endmembers=exact, output_uncertainty=True, generator=seed())
for label, out in (("exact", sharp), ("approximate", sure)):
    error, doubt = np.abs(out.abundances[0] - truth["abundances"]).ravel(), out.abundance_uncertainty[0].ravel()
    worst, best = error[doubt > np.quantile(doubt, 0.8)].mean(), error[doubt < np.quantile(doubt, 0.2)].mean()
    print(f"{label}: mean error of the most uncertain fifth {worst:.4f}, of the most certain fifth {best:.4f}")
    assert label == "approximate" or worst > 2 * best

# %% [markdown]
# `ensemble_size=M` runs M chains from different noise (and, blind, from endmembers that each has found for itself),
# returns their mean, and adds their spread to the uncertainty. It costs M times as long; here the chains agree, and it
# adds little.

# %%
ensemble = pipe(cube, wavelengths=wavelengths, endmembers=rough, ensemble_size=3, generator=seed())
spread = float(ensemble.abundance_uncertainty.mean() / sure.abundance_uncertainty.mean())
print(f"uncertainty of three chains over that of one: {spread:.3f}")
assert not np.array_equal(ensemble.abundances, sure.abundances)
score(ensemble)

# %% [markdown]
# ## 6. Big scenes
#
# A granule doesn't fit in memory. `open_cube` leaves the pixels in the file; endmembers, noise and brightness are
# found once, in a sample spread over the scene, and hold for every tile; finished tiles are kept on disk. The command
# does all of this by itself:
#
#     hsunmix unmix scene.hdr -r 4 --memory 4G -o out
#     hsunmix unmix scene.hdr -r 4 --memory 4G -o out --resume
#
# Here are its parts, with a run that is interrupted after two tiles and goes on.

# %%
from hsunmix.tiling import TiledUnmixing, TileStore, UnmixingOptions, plan_tiles  # noqa: E402

header = write_cube(folder / "scene", cube, wavelengths)
on_disk = open_cube(header)
plan = plan_tiles(*cube.shape[:2], size=40, overlap=16)
options = UnmixingOptions(scene={"endmembers": rough}, sampler={"output_uncertainty": False})

store = TileStore(folder / "unfinished")
store.begin({"cube": str(header), "tile": plan.size}, resume=False)
first = TiledUnmixing(pipe, on_disk, plan, store, options)
first.estimate_scene()
first.run_tiles(list(plan.tiles[:2]))
del first  # the machine goes down

store = TileStore(folder / "unfinished")
store.begin({"cube": str(header), "tile": plan.size}, resume=True)  # refuses other settings
again = TiledUnmixing(pipe, on_disk, plan, store, options)
again.estimate_scene()  # found already
missing = [tile for tile in plan.tiles if tile.index not in store.finished(plan.tiles)]
print(f"{len(plan.tiles)} tiles, {len(missing)} still to do")
assert len(missing) == len(plan.tiles) - 2
again.run_tiles(missing)
maps, channels = again.merge()  # [H, W, C], mapped from a file

tiled = np.asarray(maps[..., channels["abundances"]])
difference = np.sqrt(np.mean((tiled - known.abundances[0]) ** 2))
print(f"tiles against the whole scene at once: RMS difference {difference:.4f}")
assert difference < 0.01
del maps
store.discard()

# %% [markdown]
# The same scene given in parts by hand: `out.scene[0]` holds what was found about the whole, so that a part is unmixed
# as the whole was.

# %%
part = pipe(read_cube(header).window(slice(0, 32), slice(0, 32)), scene=known.scene[0], generator=seed())
assert np.array_equal(part.endmembers[0], known.endmembers[0])

# %% [markdown]
# ## 7. Training on your own data
#
# Scenes are simulated on the fly, so spectra are all that training needs. A configuration lists the stages; `tiny` is
# there to see that a machine can train, `cpu` takes under two hours of one core, `base` is for a GPU:
#
#     hsunmix train --config cpu --library library.hdr -o runs/mine
#
# Below is `tiny`, shortened further. In so few steps the networks learn next to nothing, but every part of the way is
# walked: three networks, the pipeline that is made of them, scores on held-out materials.
#
# **Labelled scenes** join in as patches, when a scene has `NAME_reference.npz` beside it, with `endmembers` (R, B) and
# `abundances` (H, W, R). Never train on a scene that you score on.

# %%
from hsunmix.training import load_recipe, run_recipe  # noqa: E402

labelled = simulate(seed(1), num_endmembers=3, height=24, width=24, snr_db=30.0, max_purity=None, **settings)
path = write_cube(folder / "labelled", labelled.cube.numpy(), wavelengths)
np.savez(
    folder / "labelled_reference.npz",
    endmembers=labelled.endmembers.numpy(),
    abundances=labelled.abundances.numpy(),
)

recipe = load_recipe("tiny")
short = {"max_train_steps": 3, "validation_steps": 3, "checkpointing_steps": 3, "validation_batches": 1, "size": 8}
stages = [stage | short | {"labelled": [str(path)]} for stage in recipe.stages if stage["name"] != "joint"]
recipe = replace(recipe, stages=stages, pipelines={"stagewise": recipe.pipelines["stagewise"]})
trained = run_recipe(recipe, library=[str(folder / "library.hdr")], maps=[], output_dir=folder / "runs")
print((folder / "runs" / "validation.md").read_text())

# %% [markdown]
# The result is a folder like any other checkpoint: `from_pretrained` loads it, `pipe.push_to_hub("you/yours")` shares
# it, `hsunmix unmix scene.hdr --checkpoint runs/mine/pipeline -o out` uses it.

# %%
mine = hsunmix.SemiBlindUnmixingPipeline.from_pretrained(trained)
mine.set_progress_bar_config(disable=True)
out = mine(cube, wavelengths=wavelengths, endmembers=rough, generator=seed())
own, bundled = score(out)[1], score(known)[1]  # three steps of training, then the bundled weights
assert np.allclose(out.abundances[0].sum(-1), 1, atol=1e-4)
assert bundled["abundance_rmse"] < own["abundance_rmse"] and bundled["sad"] < own["sad"]

# %% [markdown]
# ## 8. Adapting to a scene without labels
#
# A network that has seen all kinds of maps knows less about one scene than that scene itself tells. `hsunmix adapt`
# unmixes it, mixes scenes of the same kind from what it found, and trains the network of the abundance maps on these
# and on the scene's own bands, half of which it predicts from the other half. No reference is touched. Where no
# spectra are given, as in the commands below, it saves the median endmembers of sixteen extractions too. The command
# takes 300 steps, two to three minutes on two cores; here are 40. On this scene, made by what made the training scenes
# too, there is nothing to gain: all that is checked is that it loses under 5 %.
#
#     hsunmix adapt scene.hdr -r 4 -o adapted
#     hsunmix unmix scene.hdr --checkpoint adapted --endmembers adapted/endmembers.hdr --no-correction -o out

# %%
from hsunmix.training import adapt_to_scene  # noqa: E402

scene_facts = {"wavelengths": wavelengths, "endmembers": rough}
adapt_to_scene(pipe, cube, folder / "adapted", max_train_steps=40, quiet=True, **scene_facts)
adapted = hsunmix.SemiBlindUnmixingPipeline.from_pretrained(folder / "adapted")
adapted.set_progress_bar_config(disable=True)
fitted = score(adapted(cube, **scene_facts, generator=seed()))[1]
assert fitted["abundance_rmse"] < 1.05 * bundled["abundance_rmse"]

# %% [markdown]
# Where to go from here: `docs/how_it_works.md` explains what happened inside, `hsunmix unmix --help` lists what the
# command can do, and `hsunmix/pipelines/semi_blind_unmixing.py` is the algorithm in one screen of steps.
