"""What the page says to people of whom most never saw a spectrum."""

from __future__ import annotations

from .session import Limits

BEGIN = "Nothing is needed but a scene. If you have none, take an example."
FILES = (
    "One file: GeoTIFF (`.tif`), EMIT L2A (`.nc`), PRISMA L2D (`.he5`), `.mat`, `.npy` or `.npz`. Or two at once: "
    "ENVI (the `.hdr` and its data file) or EnMAP L2A (`...SPECTRAL_IMAGE.TIF` and `...METADATA.XML`)."
)
LIBRARY = (
    "A spectral library, to see what the materials are most similar to: ENVI (`.sli` and `.hdr`), `.csv` or `.npz`"
)
COUNT = "How many different materials do you expect? If you don't know, leave it."
STEPS = "0 = a quick first estimate; more than 2 seldom helps."
RUNS = "More runs take longer, and show better how sure the result is."
SCALE_LABEL = "Number that stands for reflectance 1"
SCALE = "Only if the page takes it wrong (see below your scene), e.g. 10000."
SCALE_EMPTY = "as the file says, else guessed"
LIKELY = (
    "If the spectra found are right, the true share lies in the likely range (the thin line) in about 9 of 10 cases. "
    "Where a material was missed, it may lie outside."
)
LIKE = "“like” names the nearest spectrum in your library. That is no proof: the material may be another one."
CLICK = (
    '<p class="hs-note">Click a pixel of the picture to see its spectrum and what it is made of. '
    "With a keyboard: Tab to the picture, arrow keys, Enter.</p>"
)
BUG = "This is an error of the program, not of your file; it has been written down. You can go on."
DOWNLOADS = (
    "Maps keep their place on the ground where your file has one (of EMIT they stay on the grid of the sensor). "
    "**ENVI**: maps, spectra, numbers (`.npz`), pictures and the report. **GeoTIFF**: maps for QGIS and other GIS. "
    "**Report**: one page to read or send."
)
DOWNLOAD_LABELS = {"envi": "ENVI and pictures (.zip)", "geotiff": "GeoTIFF maps (.zip)", "report": "Report (.html)"}


def introduction(limits: Limits) -> str:
    """What this is about, and what becomes of files."""
    return f"""\
# What is in every pixel?

A hyperspectral camera measures how much light each pixel reflects at a hundred or more wavelengths: its *spectrum*. A
pixel often covers several materials, say soil and grass, and its spectrum is a mixture of theirs. This page finds the
spectra of the materials and the share of each in every pixel, and says how sure it is (*unmixing*).

Your files are used for nothing else, nobody else sees them, and they are removed when you close the page or
after {limits.minutes:g} minutes without a click. Scenes may have {limits.pixels} pixels
(such as {round(limits.pixels**0.5)} x {round(limits.pixels**0.5)}) and {limits.values / 1e6:.0f} million numbers,
files {limits.upload / 2**20:.0f} MiB: cut a part out of a whole satellite scene.
"""


def gone(limits: Limits) -> str:
    """There is nothing to work on."""
    return (
        f"There is no scene. What you gave is removed after {limits.minutes:g} minutes without a click, or when the "
        "connection was lost. Give the file again, or take an example."
    )


def unknown_scale(largest: float) -> str:
    """The numbers of a file are no reflectance that can be guessed."""
    return (
        f"The numbers reach {largest:.4g}, which is neither reflectance from 0 to 1 nor scaled by 100 or 10000. Say "
        f"under “More choices” what stands for reflectance 1 (“{SCALE_LABEL}”), and give the file again."
    )


def scale_number(text: str | None) -> float | None:
    """What the visitor typed, as a number; None where nothing.

    Raises:
        ValueError: it is no positive number.
    """
    if not (text or "").strip():
        return None
    try:
        number = float(str(text).replace(",", "."))
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"“{SCALE_LABEL}” must be a positive number such as 10000, or empty; got “{text}”.")
    return number
