"""The work behind the page: open a scene, unmix it, write the files to download."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import texts
from .session import Limits, Result, Scene, Session, SessionEnded
from .uploads import check_shape, plain_errors, receive_library, receive_scene

if TYPE_CHECKING:
    from hsunmix.cli.results import SceneMaps
    from hsunmix.data import Cube

__all__ = ["EXAMPLES", "Unmixer", "command_line"]

# Simulated, so that nothing has to be fetched and the truth is known: materials, rows and columns, SNR in dB, seed.
EXAMPLES = {"4 materials, little noise": (4, 64, 30.0, 0), "3 materials, much noise": (3, 64, 15.0, 2)}
SEED = 0
BANDS = "water"  # left out, as by `hsunmix unmix`
NEAREST = 3  # names of a library for each material

Progress = Callable[[float, str], None]


class Unmixer:
    """What the page does for all visitors, one at a time.

    Args:
        load: makes the pipeline, when it is needed for the first time.
        checkpoint: its name, for the report.
        limits: for scenes and files.
    """

    def __init__(self, load: Callable[[], Any], checkpoint: str, limits: Limits) -> None:
        self.limits = limits
        self._load, self._checkpoint = load, checkpoint
        self._pipe: Any = None
        self._lock = threading.Lock()

    def open_files(self, session: Session, paths: Sequence[str], received: Path, scale: float | None) -> Scene:
        """Make the files of a visitor their scene.

        Args:
            session: of the visitor.
            paths: that the page was given.
            received: folder into which gradio puts files.
            scale: number that stands for reflectance 1; None = as the file says, else guessed.

        Returns:
            The scene.

        Raises:
            ValueError: it can't be read or unmixed, or is too large; the message is for the visitor.
        """
        with session.working(), plain_errors(session.folder):
            folder = session.new_folder("scene")
            with plain_errors(folder):
                scene = _read_scene(receive_scene(paths, received, folder, self.limits), scale, self.limits)
            shutil.rmtree(folder, ignore_errors=True)  # it is in memory
            session.scene, session.result = scene, None
            return scene

    def open_example(self, session: Session, name: str) -> Scene:
        """Make one of `EXAMPLES` the visitor's scene."""
        from hsunmix.cli.demo import simulate_scene
        from hsunmix.data import Cube

        if name not in EXAMPLES:
            raise ValueError(f"There is no example {name!r}.")
        with session.working():
            truth = simulate_scene(*EXAMPLES[name])
            cube = Cube(truth["observed"], truth["wavelengths"], truth["fwhm"], path=Path("scene.hdr"), name="example")
            note = (
                "Simulated by this page, so the true mixture of every pixel is known and shown beside what is found."
            )
            session.scene, session.result = Scene(f"example: {name}", cube, truth, note), None
            return session.scene

    def open_library(self, session: Session, paths: Sequence[str], received: Path) -> None:
        """Make the files of a visitor the library in which materials are looked up.

        Raises:
            ValueError: it can't be read.
        """
        from hsunmix.data import read_library

        with session.working():
            folder = session.new_folder("library")
            with plain_errors(folder):
                path = receive_library(paths, received, folder, self.limits)
                session.library, session.library_name = read_library(path), path.name
            shutil.rmtree(folder, ignore_errors=True)

    def unmix(
        self,
        session: Session,
        num_endmembers: int | None,
        steps: int,
        ensemble: int,
        progress: Progress,
        scale: float | None = None,
    ) -> Result:
        """Unmix the visitor's scene.

        Args:
            session: of the visitor.
            num_endmembers: R; None = estimated.
            steps: of denoising.
            ensemble: runs that are averaged.
            progress: is told the share that is done, and what is being done.
            scale: number that stands for reflectance 1; None = as the file says, else guessed.

        Returns:
            The result.

        Raises:
            ValueError: there is no scene, or it can't be unmixed so.
            SessionEnded: the visitor has left.
        """
        scene = session.scene
        if scene is None:
            raise ValueError("There is no scene yet: give a file, or take an example.")
        if scene.truth is None and scale != scene.given_scale:  # it was said after the file was given
            scene = _in_reflectance(scene.name, scene.cube, scene.file_scale, scale)
            session.scene, session.result = scene, None
        with self._lock, session.working():
            output = self._run(session, scene, num_endmembers, steps, ensemble, progress)
            progress(0.75, "writing the files to download")
            chosen: dict[str, Any] = {
                "num_endmembers": num_endmembers,
                "steps": steps,
                "ensemble": ensemble,
                "seed": SEED,
            }
            chosen |= {"scale": scene.other_scale, "checkpoint": self._checkpoint, "uncertainty": True}
            result = _result(session, scene, output, chosen)
            if session.scene is scene:
                session.result = result
            return result

    def _run(
        self, session: Session, scene: Scene, num_endmembers: int | None, steps: int, ensemble: int, progress: Progress
    ) -> Any:
        import torch

        if self._pipe is None:
            progress(0.02, "loading the networks")
            self._pipe = self._load()
        progress(0.1, "estimating the noise, finding the materials")

        def after_step(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if session.ended:
                raise SessionEnded
            done = (step + 1) / pipe.num_timesteps
            progress(0.6 + 0.15 * done, f"refining, step {step + 1} of {pipe.num_timesteps}")
            return {}

        return self._pipe(
            scene.cube,
            num_endmembers=num_endmembers,
            num_inference_steps=steps,
            ensemble_size=ensemble,
            output_uncertainty=True,
            reflectance_scale=scene.other_scale,
            generator=torch.Generator("cpu").manual_seed(SEED),
            callback_on_step_end=after_step,
        )


def _read_scene(path: Path, scale: float | None, limits: Limits) -> Scene:
    """A file as a scene in reflectance that can be unmixed."""
    from hsunmix.data import open_cube

    cube = open_cube(path, bands=BANDS)
    check_shape(cube, limits)
    _ = cube.data
    cube = cube.replaced()  # in memory, without its file
    cube.path = Path(path.name)  # nobody needs to know where it lay on the server
    return _in_reflectance(path.name, cube, cube.scale, scale)


def _in_reflectance(name: str, cube: Cube, file_scale: float, scale: float | None) -> Scene:
    """A scene whose numbers are divided by what the visitor said, or else by what the file says, or is guessed."""
    import numpy as np

    from hsunmix.pipelines.processor import HyperspectralProcessor

    cube = cube.replaced(scale=file_scale if scale is None else scale)
    try:
        guessed = HyperspectralProcessor().preprocess(cube, reflectance_scale=scale)[0].scale
    except ValueError as error:
        if "`reflectance_scale`" in str(error):  # an argument of Python
            raise ValueError(texts.unknown_scale(float(np.nanmax(cube.data)))) from error
        raise ValueError(str(error).replace("`cube`", "The scene")) from error
    return Scene(name, cube.replaced(scale=cube.scale * guessed), None, "", file_scale, scale)


def command_line(path: Path, chosen: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """What gives the same result without the page.

    Args:
        path: of the scene.
        chosen: options of `hsunmix unmix` by name; what is missing is as usual there.

    Returns:
        Arguments of `hsunmix`, and all settings that the result depends on.
    """
    from hsunmix.cli.main import build_parser
    from hsunmix.cli.options import SETTINGS, options_given

    command = ["unmix", str(path), "-o", "out"]
    usual = vars(build_parser().parse_args(command))
    settings = {key: usual[key] for key in SETTINGS} | {"mask_bands": BANDS} | dict(chosen)
    return command + options_given(settings, usual), settings


def _result(session: Session, scene: Scene, output: Any, chosen: dict[str, Any]) -> Result:
    """What the page shows and offers of the pipeline's output."""
    from hsunmix.cli.common import first
    from hsunmix.cli.known import SIMILAR
    from hsunmix.cli.results import SPECTRA, scene_maps, summarize

    lower, upper = (bound[0] for bound in output.abundance_interval(0.9))
    fields = first(output)
    maps = scene_maps(scene.cube, fields)
    spectra = {key: fields.pop(key) for key in SPECTRA}
    nearest, library_note = _nearest(session, scene.cube, spectra["endmembers"])
    names = [f"material {index + 1}" for index in range(len(spectra["endmembers"]))]
    for index, matches in enumerate(nearest or []):
        if matches[0][1] <= SIMILAR:
            names[index] += f" (like {matches[0][0]})"  # nearest in the library is not the same as identified
    command, settings = command_line(scene.cube.path or Path("scene"), chosen)
    result = Result(
        scene, maps, lower, upper, spectra, names, nearest, session.library_name if nearest else "", library_note,
        command, summarize(scene.cube, maps, spectra, names, output.scene[0]), _scores(scene, maps, spectra), {},
    )  # fmt: skip
    settings |= {"named by": result.library_name or None}
    return replace(result, files=_write_files(session.new_folder("result"), result, settings, fields))


def _nearest(session: Session, cube: Cube, endmembers: Any) -> tuple[list[list[tuple[str, float]]] | None, str]:
    """The library's nearest spectra for each material; None and why where there are none."""
    from hsunmix.cli.common import spectra_at_bands
    from hsunmix.cli.known import nearest_spectra

    if session.library is None:
        return None, ""
    try:
        library = spectra_at_bands(session.library, cube, session.library_name, drop_incomplete=True)
    except ValueError as error:  # of another part of the spectrum: the result is good without names
        return None, str(error)
    return nearest_spectra(endmembers, library, NEAREST), ""


def _scores(scene: Scene, maps: SceneMaps, spectra: dict[str, Any]) -> dict[str, Any] | None:
    """A simulated scene's result against its truth, material by material."""
    from hsunmix.cli.demo import score

    if scene.truth is None or len(spectra["endmembers"]) < len(scene.truth["endmembers"]):
        return None
    return score(spectra["endmembers"], maps.abundances, scene.truth)


def _write_files(folder: Path, result: Result, settings: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Path]:
    """Everything as ENVI with pictures and report, the maps once more as GeoTIFF; two .zip and the report alone."""
    from hsunmix.cli.common import versions
    from hsunmix.cli.results import write_results
    from hsunmix.data import write_cube, write_json, write_layer
    from hsunmix.visualization import write_report

    cube, names = result.scene.cube, result.names
    envi, geotiff = folder / "hsunmix_envi", folder / "hsunmix_geotiff"
    write_results(envi, cube, result.maps, result.spectra, names, "envi", arrays=arrays)
    if result.scene.truth is not None:
        write_cube(envi / "scene", cube.data, cube.wavelengths, cube.fwhm, cube.band_mask)
    write_json(envi / "summary.json", result.summary | {"settings": settings, "versions": versions()})
    report = write_report(envi, result.summary, settings, versions(), result.command)
    for layer in result.maps.layers(names):
        write_layer(geotiff, layer, cube, "geotiff")
    files = {"report": Path(shutil.copy(report, folder / "hsunmix_report.html"))}
    for kind, source in (("envi", envi), ("geotiff", geotiff)):
        files[kind] = Path(shutil.make_archive(str(source), "zip", source))
        shutil.rmtree(source)
    return files
