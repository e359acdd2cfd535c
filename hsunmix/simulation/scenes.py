"""Simulated hyperspectral scenes with known truth: the training data of every network, made on the fly in torch.

Endmembers from spectral libraries or the parametric generator, on any sensor; landscapes of sharp and smooth maps;
illumination, nonlinear mixing and variability; sensor noise. Each scene is a function of one `torch.Generator`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch

from .abundances import cap_purity, random_abundances
from .draws import Draws
from .endmembers import choose_endmembers
from .library import LibrarySpectra
from .mixing import MIXING_MODELS, mix_pixels, random_brightness, unexplained_pixels
from .noise import NOISE_KINDS, kill_pixels, random_noise
from .sensors import Sensor, random_sensor

Span = tuple[float, float]


@dataclass
class Scene:
    """A simulated scene and everything that made it.

    Attributes:
        cube: (H, W, B) noisy reflectance.
        clean: (H, W, B) without noise; brightness * abundances @ endmembers where `mixing` is "linear" and `misfit` 0.
        endmembers: (R, B) reflectance, as mixed.
        abundances: (H, W, R) on the simplex.
        brightness: (H, W), 1 everywhere when fixed.
        noise_std: (B,) true standard deviation of the additive noise (dead pixels not counted); 0 without noise.
        wavelengths: (B,) in nm, or None where unknown.
        fwhm: (B,) band widths in nm, or None.
        names: R names of the endmembers.
        mixing: "linear", "bilinear", "postnonlinear" or "variable".
        snr_db: signal to noise ratio, 10 log10(mean(clean^2) / mean(noise^2)); inf without noise.
        misfit: root mean square of what the mixing model does not explain over that of what it does.
    """

    cube: torch.Tensor
    clean: torch.Tensor
    endmembers: torch.Tensor
    abundances: torch.Tensor
    brightness: torch.Tensor
    noise_std: torch.Tensor
    wavelengths: torch.Tensor | None
    fwhm: torch.Tensor | None
    names: list[str]
    mixing: str
    snr_db: float
    misfit: float = 0.0

    def to(self, device: torch.device | str) -> Scene:
        """The scene with all its tensors on another device.

        Args:
            device: where to.

        Returns:
            The scene there.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: v.to(device) for k, v in values.items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)


class SceneSimulator:
    """Random scenes: `simulator(generator) -> Scene`.

    y_n = s_n * f(E^T a_n) + noise, with f the mixing model. The same generator state gives the same scene.

    Args:
        libraries: spectral libraries (`LibrarySpectra`, `(spectra, wavelengths[, names])` or objects with these
            attributes). None: all endmembers are parametric. A library serves the sensors whose range it covers.
        parametric_fraction: share of parametric spectra among the candidates when libraries are given.
        height: rows.
        width: columns.
        num_endmembers: (least, most) or a number.
        num_bands: (least, most) bands of the random sensors.
        snr_db: (lowest, highest), or a number, or None for no noise.
        mixing_probabilities: weight of each of "linear", "bilinear", "postnonlinear", "variable".
        noise_probabilities: weight of each of "white", "band", "correlated", "stripes".
        brightness_probability: share of scenes whose brightness varies; 1 everywhere in the others.
        dead_pixel_probability: share of noisy scenes with dead pixels.
        unknown_wavelength_probability: share of scenes that do not tell their wavelengths.
        plain_probability: chance that sharp regions have no texture, see `random_abundances`.
        min_angle_degrees: smallest spectral angle between two endmembers of a scene.
        exclude_held_out: drop spectra of `HELD_OUT_MATERIALS` from libraries that are not yet `LibrarySpectra`.
        device: device of the scenes.

    Raises:
        ValueError: for unknown mixing models or impossible ranges.

    Example:
        >>> import torch
        >>> simulator = SceneSimulator(height=16, width=16)
        >>> scene = simulator(torch.Generator().manual_seed(0), num_endmembers=4)
        >>> tuple(scene.abundances.shape)
        (16, 16, 4)
    """

    def __init__(
        self,
        libraries: Sequence | None = None,
        parametric_fraction: float = 0.3,
        height: int = 64,
        width: int = 64,
        num_endmembers: int | tuple[int, int] = (2, 8),
        num_bands: tuple[int, int] = (30, 450),
        snr_db: float | Span | None = (8.0, 45.0),
        mixing_probabilities: Mapping[str, float] | None = None,
        noise_probabilities: Mapping[str, float] | None = None,
        brightness_probability: float = 0.7,
        dead_pixel_probability: float = 0.05,
        unknown_wavelength_probability: float = 0.0,
        plain_probability: float = 0.0,
        min_angle_degrees: float = 4.0,
        exclude_held_out: bool = False,
        device: torch.device | str = "cpu",
    ):
        self.libraries = [LibrarySpectra.from_any(lib, exclude_held_out=exclude_held_out) for lib in libraries or ()]
        self.parametric_fraction = parametric_fraction if self.libraries else 1.0
        self.height, self.width = height, width
        self.num_endmembers = num_endmembers
        self.num_bands = num_bands
        self.snr_db = snr_db
        self.mixing_probabilities = dict(
            mixing_probabilities or {"linear": 0.6, "bilinear": 0.12, "postnonlinear": 0.08, "variable": 0.2}
        )
        self.noise_probabilities = dict(
            noise_probabilities or {"white": 0.55, "band": 0.25, "correlated": 0.1, "stripes": 0.1}
        )
        self.brightness_probability = brightness_probability
        self.dead_pixel_probability = dead_pixel_probability
        self.unknown_wavelength_probability = unknown_wavelength_probability
        self.plain_probability = plain_probability
        self.min_angle_degrees = min_angle_degrees
        self.device = torch.device(device)
        _check_keys("mixing_probabilities", self.mixing_probabilities, MIXING_MODELS)
        _check_keys("noise_probabilities", self.noise_probabilities, NOISE_KINDS)
        if not 0.0 <= parametric_fraction <= 1.0:
            raise ValueError(f"`parametric_fraction` must be in [0, 1], got {parametric_fraction}.")

    def __call__(
        self,
        generator: torch.Generator,
        *,
        num_endmembers: int | tuple[int, int] | None = None,
        height: int | None = None,
        width: int | None = None,
        snr_db: float | Span | None | Literal["random"] = "random",
        mixing: str | None = None,
        sensor: Sensor | None = None,
        abundance_kind: str | None = None,
        abundances: torch.Tensor | None = None,
        max_purity: float | None | Literal["random"] = "random",
        brightness: Literal["fixed", "free"] | torch.Tensor | None = None,
        noise: str | None = None,
        dead_pixels: bool | None = None,
        misfit: bool = False,
        endmembers: torch.Tensor | None = None,
        names: Sequence[str] | None = None,
    ) -> Scene:
        """Simulate one scene; every keyword fixes what would otherwise be random.

        Args:
            generator: source of all randomness; its state advances.
            num_endmembers: R, or (least, most).
            height: rows.
            width: columns.
            snr_db: a number, (lowest, highest), None for no noise, "random" for the simulator's own.
            mixing: mixing model.
            sensor: bands of the scene.
            abundance_kind: kind of maps, see `random_abundances`.
            abundances: (H, W, R) on the simplex, used as they are (but for `max_purity` if it is a number).
            max_purity: cap on the abundances, see `random_abundances`.
            brightness: "fixed" (1 everywhere), "free" (a random field), or the field (H, W).
            noise: kind of noise, see `random_noise`.
            dead_pixels: whether some values are dead.
            misfit: whether something is added that the mixing model does not explain, see `unexplained_pixels`.
            endmembers: (R, B) spectra to use; with `sensor` for their wavelengths, else these are None.
            names: names of the given endmembers.

        Returns:
            Scene on the simulator's device.

        Raises:
            ValueError: if the overrides contradict each other, or R distinct spectra are not found.
        """
        draws = Draws(generator, self.device)
        # 1. Endmembers [R, B] at the bands of a sensor
        if abundances is not None:
            if abundances.ndim != 3:
                raise ValueError(f"`abundances` must be (H, W, R), got {tuple(abundances.shape)}.")
            height, width, num_endmembers = abundances.shape
        if endmembers is None:
            count = _integer(num_endmembers if num_endmembers is not None else self.num_endmembers, draws)
            sensor = sensor if sensor is not None else random_sensor(generator, *self.num_bands)
            spectra, labels = choose_endmembers(
                count, sensor, self.libraries, self.parametric_fraction, self.min_angle_degrees, draws
            )
        else:
            spectra, labels = self._given_endmembers(endmembers, names, sensor)
        count, num_bands = spectra.shape

        # 2. Abundances [N, R]
        height = height if height is not None else self.height
        width = width if width is not None else self.width
        maps = self._abundance_maps(count, height, width, generator, abundances, abundance_kind, max_purity)

        # 3. Clean pixels [N, B]: mixing model, then brightness
        model = mixing or draws.choice(list(self.mixing_probabilities), list(self.mixing_probabilities.values()))
        field = self._brightness(brightness, height, width, draws, maps)
        clean = mix_pixels(maps, spectra, model, height, width, draws)
        size = 0.0
        if misfit:
            unexplained = unexplained_pixels(maps, spectra, height, width, draws)
            size = float(unexplained.square().mean().sqrt() / clean.square().mean().sqrt())
            clean = clean + unexplained
        clean = clean.mul_(field.view(-1, 1))

        # 4. Noise [N, B]
        wanted = self.snr_db if snr_db == "random" else snr_db
        if wanted is None:
            cube, noise_std, ratio = clean.clone(), torch.zeros(num_bands, device=self.device), float("inf")
        else:
            ratio = draws.number(*wanted) if isinstance(wanted, Sequence) else float(wanted)
            power = clean.square().mean() / 10.0 ** (ratio / 10.0)
            kind = noise or draws.choice(list(self.noise_probabilities), list(self.noise_probabilities.values()))
            cube, noise_std = random_noise(height, width, num_bands, power, draws, kind)
            cube.add_(clean)
        if dead_pixels or (dead_pixels is None and wanted is not None and draws.chance(self.dead_pixel_probability)):
            cube = kill_pixels(cube, draws)

        known = sensor is not None and not draws.chance(self.unknown_wavelength_probability)
        return Scene(
            cube=cube.view(height, width, num_bands),
            clean=clean.view(height, width, num_bands),
            endmembers=spectra,
            abundances=maps.view(height, width, count),
            brightness=field,
            noise_std=noise_std,
            wavelengths=sensor.wavelengths.to(self.device) if known and sensor is not None else None,
            fwhm=sensor.fwhm.to(self.device) if known and sensor is not None else None,
            names=labels,
            mixing=model,
            snr_db=ratio,
            misfit=size,
        )

    def _given_endmembers(
        self, endmembers: torch.Tensor, names: Sequence[str] | None, sensor: Sensor | None
    ) -> tuple[torch.Tensor, list[str]]:
        spectra = torch.as_tensor(endmembers).to(self.device, torch.float32)
        if spectra.ndim != 2 or (sensor is not None and sensor.num_bands != spectra.shape[1]):
            raise ValueError(f"`endmembers` must be (R, B) with the bands of `sensor`, got {tuple(spectra.shape)}.")
        labels = list(names) if names is not None else [f"given {i}" for i in range(len(spectra))]
        if len(labels) != len(spectra):
            raise ValueError(f"`names` must have one entry per endmember, got {len(labels)} for {len(spectra)}.")
        return spectra, labels

    def _abundance_maps(
        self,
        count: int,
        height: int,
        width: int,
        generator: torch.Generator,
        abundances: torch.Tensor | None,
        kind: str | None,
        max_purity: float | None | Literal["random"],
    ) -> torch.Tensor:
        """Abundances (N, R), random or given."""
        if abundances is None:
            maps = random_abundances(
                count, height, width, generator, kind, max_purity,
                plain_probability=self.plain_probability, device=self.device,
            )  # fmt: skip
        else:
            maps = torch.as_tensor(abundances).to(self.device, torch.float32).permute(2, 0, 1)
            if maps.shape[0] != count:
                raise ValueError(f"`abundances` must be (H, W, {count}), got {tuple(abundances.shape)}.")
            if max_purity is not None and max_purity != "random":
                maps = cap_purity(maps, float(max_purity))
        return maps.reshape(count, -1).T.contiguous()

    def _brightness(
        self,
        brightness: Literal["fixed", "free"] | torch.Tensor | None,
        height: int,
        width: int,
        draws: Draws,
        abundances: torch.Tensor,
    ) -> torch.Tensor:
        """Brightness field (H, W)."""
        if isinstance(brightness, torch.Tensor):
            if tuple(brightness.shape) != (height, width):
                raise ValueError(f"`brightness` must be ({height}, {width}), got {tuple(brightness.shape)}.")
            return brightness.to(self.device, torch.float32)
        if brightness not in (None, "fixed", "free"):
            raise ValueError(f'`brightness` must be "fixed", "free", a field (H, W) or None, got {brightness!r}.')
        if brightness == "free" or (brightness is None and draws.chance(self.brightness_probability)):
            return random_brightness(height, width, draws, abundances)
        return torch.ones(height, width, device=self.device)


def _integer(value: int | tuple[int, int], draws: Draws) -> int:
    return draws.integer(*value) if isinstance(value, Sequence) else int(value)


def _check_keys(argument: str, weights: Mapping[str, float], known: Sequence[str]) -> None:
    unknown = set(weights) - set(known)
    if unknown or not sum(weights.values()) > 0.0:
        raise ValueError(f"`{argument}` must give weights to some of {', '.join(known)}, got {dict(weights)}.")
