"""Tiny cubes in the real file formats."""

import numpy as np

CODES = {"int16": 2, "int32": 3, "float32": 4, "float64": 5, "complex64": 6, "uint16": 12, "uint8": 1}


def make_cube(height=4, width=5, bands=7, seed=0):
    return np.random.default_rng(seed).uniform(0.05, 0.9, (height, width, bands))


def write_envi_raw(folder, cube, interleave="bsq", name="scene", suffix=".img", big_endian=False, offset=0, **header):
    """ENVI pair written byte by byte, independent of the code under test."""
    axes = {"bsq": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}[interleave.lower()]
    lines, samples, bands = cube.shape
    stored = np.ascontiguousarray(cube.transpose(axes))
    stored = stored.astype(stored.dtype.newbyteorder(">" if big_endian else "<"))
    (folder / (name + suffix)).write_bytes(b"\0" * offset + stored.tobytes())
    values = {
        "samples": samples,
        "lines": lines,
        "bands": bands,
        "header offset": offset,
        "data type": CODES[cube.dtype.name],
        "interleave": interleave,
        "byte order": int(big_endian),
    } | {key.replace("_", " "): value for key, value in header.items()}
    text = ["ENVI"]
    for key, value in values.items():
        listed = "{" + ", ".join(map(str, value)) + "}" if isinstance(value, (list, tuple, np.ndarray)) else value
        if value is not None:
            text.append(f"{key} = {listed}")
    path = folder / f"{name}.hdr"
    path.write_text("\n".join(text) + "\n")
    return path
