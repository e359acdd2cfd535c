"""What the subcommands share: folders, devices, the pipeline, spectra at a cube's bands."""

from __future__ import annotations

import argparse
import logging
import platform
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .progress import shows_bars

if TYPE_CHECKING:
    from hsunmix.data import Cube, SpectralLibrary

logger = logging.getLogger(__name__)


def say(text: str = "") -> None:
    """Results, on the standard output."""
    print(text, flush=True)


def output_folder(path: Path, files: Iterable[str], overwrite: bool) -> Path:
    """The folder for results, made where it doesn't exist.

    Raises:
        ValueError: it is a file, or holds one of `files` and `overwrite` is not set.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; give a folder for the results")
    there = [name for name in files if (path / name).exists()]
    if there and not overwrite:
        raise ValueError(f"{path} already holds {there[0]}; give another folder, or --overwrite")
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def no_empty_folder(path: Path | None) -> Iterator[None]:
    """Remove `path` and its parents afterwards where they are new and hold nothing, as after an error."""
    new = [] if path is None else [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield
    finally:
        for folder in new:
            with suppress(OSError):  # never made, or there is something in it
                folder.rmdir()


def choose_device(name: str) -> str:
    """A torch device: "auto" takes an accelerator where there is one.

    Raises:
        ValueError: unknown device, or one that this machine doesn't have.
    """
    import torch

    if name == "auto":
        return devices()[0]
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device {name} can't be used ({reason}); this machine has {', '.join(devices())}"
        ) from error
    return name


def devices() -> list[str]:
    """Torch devices of this machine, the fastest first."""
    import torch

    found = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    return [*found, "cpu"]


def is_repository(name: str) -> bool:
    """Whether this can be the name of a repository on the Hub, user/name."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def load_pipeline(checkpoint: str, device: str, quiet: bool, option: str = "--checkpoint") -> Any:
    """The pipeline from a bundled checkpoint's name, a folder or a Hub repository ("user/name", "user/name@v1").

    Args:
        checkpoint: what the user gave.
        device: what it computes on.
        quiet: no progress bar over the steps.
        option: where the user gave it, for messages.

    Raises:
        ValueError: there is no such checkpoint.
    """
    from diffusers.utils import logging as diffusers_logging

    import hsunmix

    diffusers_logging.disable_progress_bar()  # of loading; the bar over the steps stays
    source, revision = checkpoint, None
    if checkpoint in bundled_checkpoints():
        source = str(hsunmix.bundled_checkpoint(checkpoint))
    elif not Path(checkpoint).is_dir():
        source, _, revision = checkpoint.partition("@")
    if not Path(source).is_dir() and not is_repository(source):
        raise ValueError(
            f"{option} {checkpoint}: neither a folder, nor a Hub repository (user/name or user/name@revision) "
            f"nor one of the bundled checkpoints ({', '.join(bundled_checkpoints()) or 'none'})"
        )
    try:
        pipe = hsunmix.SemiBlindUnmixingPipeline.from_pretrained(source, revision=revision or None)
    except Exception as error:  # diffusers, huggingface_hub, safetensors and json each have their own
        logger.debug("loading failed", exc_info=True)
        raise ValueError(f"{option} {checkpoint} can't be loaded: {error}") from error
    pipe.set_progress_bar_config(disable=quiet or not shows_bars(), desc="unmixing", leave=False)
    return pipe.to(device)


def bundled_checkpoints() -> list[str]:
    """Names of the checkpoints that are part of the package."""
    folder = Path(__file__).resolve().parent.parent / "checkpoints"
    return sorted(path.parent.name for path in folder.glob("*/model_index.json"))


def spectra_at_bands(library: SpectralLibrary, cube: Cube, option: str, drop_incomplete: bool) -> SpectralLibrary:
    """Spectra at the cube's bands: resampled by wavelength, or as they are where the counts agree.

    Args:
        library: spectra with or without wavelengths.
        cube: its wavelengths, band widths and good bands.
        option: what the user gave, for messages.
        drop_incomplete: leave out spectra that miss a good band, instead of an error.

    Returns:
        Finite spectra (L, B); at bad bands, which are never used, missing values are 0.

    Raises:
        ValueError: the bands don't agree and can't be brought to agree, or good bands are missing.
    """
    import numpy as np

    from hsunmix.data import SpectralLibrary
    from hsunmix.data.axes import why_bands_differ

    if library.wavelengths is not None and cube.wavelengths is not None:
        library = library.resample(cube.wavelengths, cube.fwhm)
    elif library.num_bands != cube.num_bands:
        known = (library.wavelengths is not None, cube.wavelengths is not None)
        raise ValueError(
            f"{option}: {library.num_bands} bands, the cube has {cube.num_bands}: "
            + why_bands_differ(library.spectra.shape, known[0], cube.shape, known[1])
        )
    missing = ~np.isfinite(library.spectra) & cube.band_mask
    complete = ~missing.any(axis=1)
    filled = SpectralLibrary(np.nan_to_num(library.spectra, nan=0.0), library.names, library.wavelengths)
    if drop_incomplete and complete.any():
        return filled.subset(complete)
    if not complete.all():
        bands = np.flatnonzero(missing.any(axis=0))
        places = bands + 1 if cube.wavelengths is None else np.sort(cube.wavelengths[bands]).round().astype(int)
        where = f"{'bands' if cube.wavelengths is None else 'wavelengths (nm)'} {places.min()} to {places.max()}"
        raise ValueError(
            f"{option}: no values at {len(bands)} bands of the cube, {where}; use spectra that cover them"
            + ("" if drop_incomplete else ", or --library, which leaves incomplete ones out")
        )
    return filled


def first(output: Any) -> dict[str, Any]:
    """Maps, spectra and modes of the pipeline's output for its first cube; None stays None."""
    values = {field.name: getattr(output, field.name) for field in fields(output) if field.name != "scene"}
    return {name: None if value is None else value[0] for name, value in values.items()}


def distinct(names: Iterable[str]) -> list[str]:
    """Names with a number behind those that occur more than once."""
    names = list(names)
    return [
        name if names.count(name) == 1 else f"{name} {names[: index + 1].count(name)}"
        for index, name in enumerate(names)
    ]


def versions() -> dict[str, str]:
    """Versions of everything that may change a result."""
    from importlib.metadata import version

    import hsunmix

    packages = ("torch", "diffusers", "numpy", "scipy", "spectral")
    return {
        "hsunmix": hsunmix.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def measurement(pipe: Any, args: argparse.Namespace, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What a measurement's JSON holds: all that the numbers depend on, and nothing about this machine's folders.

    Args:
        pipe: the pipeline that was measured.
        args: of the command line.
        runs: the numbers, one record per run.

    Returns:
        Settings (files by name only), versions, the fingerprints of the weights, and the runs.
    """
    from hsunmix.endmembers.networks import bundled_sha256
    from hsunmix.hub import weights_sha256

    about_the_machine = {
        "run",
        "argv",
        "output",
        "option_names",
        "pictures",
        "overwrite",
        "resume",
        "quiet",
        "verbose",
        "debug",
    }
    settings = {key: _without_folders(value) for key, value in vars(args).items() if key not in about_the_machine}
    return {
        "settings": settings,
        "versions": versions(),
        "weights": weights_sha256(pipe) | bundled_sha256(),
        "runs": runs,
    }


def _without_folders(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    is_path = isinstance(value, Path) or (isinstance(value, str) and Path(value).exists())
    return Path(value).name if is_path else value
