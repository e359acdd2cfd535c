"""The card of weights about which nothing has been measured: what they are, how to use them, how to measure them."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCardData

from .bundled import MARK, TAGS

_PIPELINE = """\
Hyperspectral unmixing with hsunmix: the fractions and the spectra of the materials
in every pixel, for any sensor and any number of materials.

```python
import hsunmix

pipe = hsunmix.SemiBlindUnmixingPipeline.from_pretrained("{repo_id}")
out = pipe(cube, wavelengths=nanometres, num_endmembers=4)  # cube (H, W, B), reflectance; wavelengths in nm
out.abundances[0], out.endmembers[0]  # (H, W, 4), (4, B)
```

| component | class | parameters |
|---|---|---|
{components}

Defaults: {defaults}.

## Results

These are not weights that come with hsunmix, and nobody has measured them for this card. To measure them:
`hsunmix benchmark scene.hdr --checkpoint {repo_id} -o out`.
"""

_NETWORK = """\
`{name}`, one of the three networks of hsunmix (hyperspectral unmixing), alone:
{parameters:,} parameters. It works as a part of a pipeline, see `hsunmix train` and `training/assemble_pipeline.py`.

```python
from hsunmix.models import {name}

network = {name}.from_pretrained("{repo_id}")
```

Nothing has been measured for this card.
"""


def plain_card(shared: Any, repo_id: str) -> str:
    """The text of README.md.

    Args:
        shared: a pipeline, or a network.
        repo_id: the repository it will be in.

    Returns:
        Metadata and text. No licence is named: that is for the owner of the weights to say.
    """
    from diffusers import ModelMixin

    if isinstance(shared, ModelMixin):
        body = _NETWORK.format(name=type(shared).__name__, parameters=_parameters(shared), repo_id=repo_id)
    else:
        networks = {name: value for name, value in shared.components.items() if isinstance(value, ModelMixin)}
        rows = [
            f"| `{name}` | `{type(value).__name__}` | {_parameters(value):,} |" for name, value in networks.items()
        ]
        values = {key: value for key, value in shared.config.items() if isinstance(value, float | int)}
        defaults = ", ".join(f"`{key}` {value:g}" for key, value in sorted(values.items()))
        body = _PIPELINE.format(repo_id=repo_id, components="\n".join(rows), defaults=defaults)
    data = ModelCardData(library_name="diffusers", tags=list(TAGS))
    return f"---\n{data.to_yaml()}\n---\n\n{MARK} -->\n\n# {repo_id.rpartition('/')[2]}\n\n{body}"


def _parameters(network: Any) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
