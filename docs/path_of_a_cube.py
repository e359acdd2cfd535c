"""Draw `docs/path_of_a_cube.svg`, the path of a cube through the pipeline, with pictures of a real run.

Run as `python docs/path_of_a_cube.py`. Colours follow the reader's light or dark setting.
"""

import base64
import io
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image

import hsunmix
from hsunmix.evaluation import match_endmembers, perturb_endmembers
from hsunmix.simulation import SceneSimulator, preset_sensor
from hsunmix.visualization import color_composite

LIGHT = {
    "ink": "#1d2327",
    "faint": "#5b6670",
    "line": "#aab2ba",
    "paper": "#ffffff",
    "card": "#f2f5f7",
    "key": "#0a5fa5",
}
DARK = {
    "ink": "#e8eaec",
    "faint": "#a5aeb6",
    "line": "#5a646d",
    "paper": "#14171a",
    "card": "#20262b",
    "key": "#6cb8f0",
}
CURVES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart by colour-blind readers, on light and on dark
WIDTH, HEIGHT = 1000, 700


def picture(array: np.ndarray, x: float, y: float, size: float) -> str:
    """An image (h, w, 3) in [0, 1] as an SVG element."""
    file = io.BytesIO()
    Image.fromarray((np.clip(array, 0, 1) * 255).astype(np.uint8)).save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    place = f'x="{x}" y="{y}" width="{size}" height="{size}"'
    return f'<image {place} image-rendering="pixelated" href="data:image/png;base64,{data}"/>'


def maps(abundances: np.ndarray, x: float, y: float, size: float) -> str:
    """Four maps (h, w, 4) in a square of two by two."""
    half = size / 2 - 2
    places = [(x, y), (x + half + 4, y), (x, y + half + 4), (x + half + 4, y + half + 4)]
    colors = [colormaps["viridis"](abundances[..., r])[..., :3] for r in range(4)]
    return "".join(picture(color, *place, half) for color, place in zip(colors, places, strict=True))


def curves(spectra: np.ndarray, x: float, y: float, width: float, height: float, dashed: bool = False) -> str:
    """Spectra (R, B) as lines over an axis."""
    top = 1.05 * spectra.max()
    lines = []
    for spectrum, color in zip(spectra, CURVES, strict=False):
        points = zip(np.linspace(x, x + width, len(spectrum)), y + height * (1 - spectrum / top), strict=True)
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        dash = ' stroke-dasharray="5 3"' if dashed else ""
        lines.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')
    axis = f'<path class="line" d="M{x} {y} V{y + height} H{x + width}" fill="none"/>'
    return axis + "".join(lines)


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """One line of text."""
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{words}</text>'


def card(x: float, y: float, width: float, height: float, title: str, *lines: str) -> str:
    """A box with a title, and small lines of text at its foot."""
    foot = "".join(
        text(x + 14, y + height - 14 - 19 * (len(lines) - 1 - i), line, "small") for i, line in enumerate(lines)
    )
    box = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" class="card"/>'
    return box + text(x + 14, y + 28, title, "title") + foot


def arrow(*points: tuple[float, float]) -> str:
    """A line with a head, through corners."""
    path = " L".join(f"{x} {y}" for x, y in points)
    return f'<path d="M{path}" class="arrow" marker-end="url(#head)"/>'


def run() -> dict[str, np.ndarray]:
    """A simulated scene of four materials at 20 dB, unmixed from spectra that are 5 degrees off."""
    sensor = preset_sensor("enmap").without_water_vapour()
    simulator = SceneSimulator(min_angle_degrees=12.0, height=64, width=64)
    settings = {"mixing": "linear", "brightness": "fixed", "noise": "white", "dead_pixels": False, "max_purity": None}
    generator = torch.Generator().manual_seed(0)
    scene = simulator(generator, num_endmembers=4, snr_db=20.0, sensor=sensor, **settings)
    cube, exact, wavelengths = scene.cube.numpy(), scene.endmembers.numpy(), sensor.wavelengths.numpy()
    pipe = hsunmix.SemiBlindUnmixingPipeline.from_pretrained(hsunmix.bundled_checkpoint("base"))
    out = pipe(cube, wavelengths=wavelengths, endmembers=perturb_endmembers(exact), generator=generator)
    order = match_endmembers(out.endmembers[0], exact)
    return {
        "composite": color_composite(cube, wavelengths),
        "noise": out.noise[0][None],
        "coarse_endmembers": out.coarse_endmembers[0][order],
        "endmembers": out.endmembers[0][order],
        "coarse": out.coarse_abundances[0][..., order],
        "refined": out.abundances[0][..., order],
    }


def style() -> str:
    """Colours for light and for dark."""
    rules = """
    text { font: 15px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: var(--ink) }
    .title { font-weight: 600; font-size: 17px } .small { font-size: 14px; fill: var(--faint) }
    .key { font-weight: 600; fill: var(--key) }
    .paper { fill: var(--paper) } .card { fill: var(--card); stroke: var(--line) }
    .inner { fill: var(--paper); stroke: var(--line) } .line { stroke: var(--line) }
    .arrow { fill: none; stroke: var(--faint); stroke-width: 2 } .head { fill: var(--faint) }
    """
    light, dark = ("; ".join(f"--{name}: {color}" for name, color in colors.items()) for colors in (LIGHT, DARK))
    return f"<style>:root {{ {light} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}{rules}</style>"


def draw(found: dict[str, np.ndarray]) -> str:
    """The whole picture."""
    head = '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>The path of a cube: file, noise, endmembers, coarse maps, two denoising steps, result</title>",
        style(),
        f'<defs>{head}<path d="M0 0 L10 5 L0 10 z" class="head"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="14" class="paper"/>',
    ]
    # first row: from the file to the coarse estimate
    parts += [
        card(20, 20, 215, 262, "1 Cube", "H x W pixels, B bands", "checked, scaled, masked"),
        picture(found["composite"], 47, 62, 160),
        card(268, 20, 215, 262, "2 Noise", "a standard deviation per", "band, over wavelength"),
        curves(found["noise"], 292, 80, 168, 120),
        card(516, 20, 215, 262, "3 Endmembers E0", "(R, B): given, chosen from", "a library, or extracted"),
        curves(found["coarse_endmembers"], 540, 62, 168, 150, dashed=True),
        card(764, 20, 216, 262, "4 Coarse maps", "(R, H, W): exact least", "squares, then HybridSTU"),
        maps(found["coarse"], 792, 62, 160),
        arrow((237, 150), (264, 150)),
        arrow((485, 150), (512, 150)),
        arrow((733, 150), (760, 150)),
    ]
    # second row: the loop, and the result
    x, y = 20, 330
    equation = "|y &#8722; E&#7488;b|&#178; / &#963;&#178;  +  |b &#8722; s m|&#178; / g (s &#964;)&#178;"
    equation += " &#8594; least,  b &#8805; 0,  a = b / &#931;b"
    parts += [
        card(x, y, 600, 350, "5 Two denoising steps, two chains"),
        arrow((872, 284), (872, 306), (320, 306), (320, 328)),
    ]
    boxes = [
        (x + 18, "ResUNet1D", "predicts clean spectra", "(R, B)"),
        (x + 211, "ResUNet2D", "predicts clean maps m", "and their error &#964;"),
        (x + 404, "Shared errors", "found in many pixels,", "partly taken out"),
    ]
    for left, name, first, second in boxes:
        parts.append(f'<rect x="{left}" y="{y + 48}" width="178" height="88" rx="8" class="inner"/>')
        parts.append(text(left + 89, y + 76, name, "key", "middle"))
        parts.append(text(left + 89, y + 100, first, "small", "middle"))
        parts.append(text(left + 89, y + 120, second, "small", "middle"))
    parts += [
        arrow((x + 197, y + 92), (x + 209, y + 92)),
        arrow((x + 390, y + 92), (x + 402, y + 92)),
        arrow((x + 493, y + 138), (x + 493, y + 168)),
        f'<rect x="{x + 18}" y="{y + 170}" width="564" height="104" rx="8" class="inner"/>',
        text(x + 300, y + 197, "A-step, exact in every pixel", "key", "middle"),
        text(x + 300, y + 226, equation, "", "middle"),
        text(x + 162, y + 256, "measured spectrum", "small", "middle"),
        text(x + 318, y + 256, "prediction", "small", "middle"),
        arrow((x + 107, y + 276), (x + 107, y + 306), (x + 8, y + 306), (x + 8, y + 92), (x + 16, y + 92)),
        text(x + 122, y + 304, "next, lower noise level: both schedulers step (DDIM)", "small"),
        text(x + 122, y + 327, "the less noise, the more the measured spectrum decides", "small"),
    ]
    parts += [
        card(660, y, 320, 350, "6 to 8 Result", "also: brightness, residual, noise,", "uncertainty, 90 % intervals"),
        maps(found["refined"], 676, y + 46, 148),
        text(676, y + 216, "abundances", "small"),
        curves(found["endmembers"], 842, y + 50, 122, 140),
        text(842, y + 216, "endmembers", "small"),
        text(676, y + 252, "y &#8776; s E&#7488;a   rebuilds every pixel"),
        arrow((622, y + 175), (656, y + 175)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(run()), encoding="utf-8")
