"""What holds for a whole scene, found in one part of it, so that every other part is unmixed in the same way.

Bands, scale, noise, brightness and the way of the endmembers through the denoising steps: with these held fixed, a
tile of a scene gives what the whole scene would give.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data import as_cube, write_npz
from ..data.cube import measured
from ..physics import BrightnessModel
from .processor import PreparedCube

if TYPE_CHECKING:
    from .chain import Chain

PLACED = ("corrected", "extracted")  # origins of endmembers that all pixels of a scene have placed


@dataclass(frozen=True)
class Stage:
    """The endmembers of a chain at one of its stages (R endmembers, K good bands).

    Attributes:
        endmembers: (R, K).
        std: (R, K) standard deviation.
        seen_share: how much of it the networks see.
        brightness: median over the pixels: what counts as ordinary illumination.
        leak: (R, R) from `hsunmix.physics.fit_leak`.
        error_share: (R,), see `hsunmix.pipelines.chain.Chain`.
        noisiness: from `hsunmix.pipelines.chain.noisiness`.
        misplaced: (R, R) of the last one, from `hsunmix.pipelines.chain.Chain.count_alternatives`; 0 where facets have
            placed no endmembers, or these vary.
    """

    endmembers: torch.Tensor
    std: torch.Tensor
    seen_share: float
    brightness: float
    leak: torch.Tensor
    error_share: torch.Tensor
    noisiness: float
    misplaced: torch.Tensor


@dataclass(frozen=True)
class SceneModel:
    """What one call of the pipeline found about a scene; pass it as `scene=` to unmix other parts of that scene.

    Attributes:
        bands: (K,) position in the user's cube of every good band, in ascending order of wavelength.
        num_bands: B of the user's cube.
        wavelengths: (K,) nm, or `None`.
        fwhm: (K,) nm, or `None`.
        scale: what the user's numbers are divided by.
        noise_std: (K,) standard deviation of the noise.
        brightness_model: prior on the brightness.
        mixing_model: of `hsunmix.physics.MIXING_MODELS`.
        origin: of the endmembers, see `hsunmix.pipelines.chain.Chain`.
        number_probabilities: of each number of endmembers, where it was estimated, else `None`.
        stages: for each of the M chains its start and its state after each denoising step that asks the networks.
        concluded: (M, R, K) endmembers of the result.
        predicted_shares: of each chain, `Chain.predicted_share`.
        posterior_shares: of each chain, `Chain.posterior_share`.
        call: arguments of that call which the next one must repeat.
    """

    bands: torch.Tensor
    num_bands: int
    wavelengths: torch.Tensor | None
    fwhm: torch.Tensor | None
    scale: float
    noise_std: torch.Tensor
    brightness_model: BrightnessModel
    mixing_model: str
    origin: str
    number_probabilities: dict[int, float] | None
    stages: list[list[Stage]]
    concluded: torch.Tensor
    predicted_shares: list[float]
    posterior_shares: list[float]
    call: dict[str, Any]

    @property
    def extracted(self) -> bool:
        """All pixels of the scene have placed the endmembers."""
        return self.origin in PLACED

    @classmethod
    def of_chains(
        cls, chains: Sequence[Chain], call: dict[str, Any], number_probabilities: dict[int, float] | None
    ) -> SceneModel:
        """The model of the scene whose chains have been run.

        Args:
            chains: the M chains of one cube.
            call: `num_inference_steps` and `strength`.
            number_probabilities: of each number of endmembers, where it was estimated.

        Returns:
            The model.
        """
        cube = chains[0].cube
        return cls(
            bands=cube.bands,
            num_bands=cube.num_bands,
            wavelengths=cube.wavelengths,
            fwhm=cube.fwhm,
            scale=cube.scale,
            noise_std=cube.noise_std,
            brightness_model=chains[0].brightness_model,
            mixing_model=chains[0].mixing_model,
            origin=chains[0].origin,
            number_probabilities=number_probabilities,
            stages=[list(chain.stages) for chain in chains],
            concluded=torch.stack([chain.last_endmembers for chain in chains]),
            predicted_shares=[chain.predicted_share for chain in chains],
            posterior_shares=[chain.posterior_share for chain in chains],
            call=call,
        )

    def check(self, call: dict[str, Any], mixing_model: str, ensemble_size: int, **known: Any) -> None:
        """Refuse arguments that contradict the model.

        Args:
            call: `num_inference_steps` and `strength` of the new call.
            mixing_model: of the new call; "auto" is that of the scene.
            ensemble_size: number of chains M of the new call.
            **known: what else the new call was given; all must be `None`, since the model says it.

        Raises:
            ValueError: names the argument.
        """
        given = [name for name, value in known.items() if value is not None]
        if given:
            raise ValueError(f"`{given[0]}` is part of `scene`: pass one of the two.")
        if ensemble_size != len(self.stages):
            raise ValueError(f"`ensemble_size` is {ensemble_size}, but `scene` has {len(self.stages)} chains.")
        if mixing_model != "auto":
            call = call | {"mixing_model": mixing_model}
        made_with = self.call | {"mixing_model": self.mixing_model}
        for name, value in call.items():
            if value != made_with[name]:
                raise ValueError(f"`{name}` is {value!r}, but `scene` was made with {made_with[name]!r}.")

    def prepare(self, cube: Any) -> PreparedCube:
        """A part of the scene with the bands, the scale and the noise of the whole.

        Args:
            cube: (H, W, B), as the pipeline takes it, in the numbers of the cube that the model was made from.

        Returns:
            The part, as the chains take it.

        Raises:
            ValueError: other bands, or no usable pixel.
        """
        cube = as_cube(cube)
        if cube.num_bands != self.num_bands:
            raise ValueError(f"`cube` has {cube.num_bands} bands, but `scene` was made from {self.num_bands}.")
        selected = cube.data[:, :, self.bands.cpu().numpy()]
        valid = measured(selected, cube.nodata_mask)
        if not valid.any():
            raise ValueError("`cube` has no usable pixel: every one is zero, NaN or nodata.")
        pixels = np.ascontiguousarray(selected[valid], dtype=np.float32) / np.float32(self.scale)
        return PreparedCube(
            pixels=torch.from_numpy(pixels).clone(),  # aligned, as in `HyperspectralProcessor`
            valid=torch.from_numpy(valid),
            bands=self.bands,
            num_bands=self.num_bands,
            wavelengths=self.wavelengths,
            fwhm=self.fwhm,
            scale=self.scale,
            noise_std=self.noise_std,
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to a `.npz` file.

        Args:
            path: of the file.

        Returns:
            The path, with its suffix.
        """
        arrays: dict[str, Any] = {
            "bands": self.bands,
            "noise_std": self.noise_std,
            "wavelengths": self.wavelengths,
            "fwhm": self.fwhm,
            "concluded": self.concluded,
        }
        arrays = {key: None if value is None else value.cpu().numpy() for key, value in arrays.items()}
        for m, stages in enumerate(self.stages):
            for field in fields(Stage):
                values = [getattr(stage, field.name) for stage in stages]
                arrays[f"{field.name}_{m}"] = np.stack([x.cpu() if torch.is_tensor(x) else x for x in values])
        about = {
            "num_bands": self.num_bands,
            "scale": self.scale,
            "brightness_model": vars(self.brightness_model),
            "mixing_model": self.mixing_model,
            "origin": self.origin,
            "number_probabilities": self.number_probabilities,
            "chains": len(self.stages),
            "predicted_shares": self.predicted_shares,
            "posterior_shares": self.posterior_shares,
            "call": self.call,
        }
        return write_npz(path, **arrays, about=json.dumps(about))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SceneModel:
        """Read what `save` has written.

        Args:
            path: of the file.

        Returns:
            The model, on the CPU.

        Raises:
            ValueError: another version of hsunmix has written it.
        """
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        about = json.loads(str(arrays.pop("about")))
        tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
        told = {"posterior_shares", "origin", "concluded"} | {f"{field.name}_0" for field in fields(Stage)}
        if missing := told - about.keys() - tensors.keys():
            raise ValueError(f"{path} is of another version of hsunmix: it lacks {', '.join(sorted(missing))}.")
        chains = []
        for m in range(about["chains"]):
            columns = [tensors[f"{field.name}_{m}"] for field in fields(Stage)]
            rows = zip(*(c.tolist() if c.ndim == 1 else c for c in columns), strict=True)
            chains.append([Stage(*row) for row in rows])
        numbers = about["number_probabilities"]
        if numbers is not None:
            numbers = {int(count): probability for count, probability in numbers.items()}
        return cls(
            bands=tensors["bands"],
            num_bands=about["num_bands"],
            wavelengths=tensors.get("wavelengths"),
            fwhm=tensors.get("fwhm"),
            scale=about["scale"],
            noise_std=tensors["noise_std"],
            brightness_model=BrightnessModel(**about["brightness_model"]),
            mixing_model=about["mixing_model"],
            origin=about["origin"],
            number_probabilities=numbers,
            stages=chains,
            concluded=tensors["concluded"],
            predicted_shares=about["predicted_shares"],
            posterior_shares=about["posterior_shares"],
            call=about["call"],
        )
