"""Training of the small network that says how many endmembers a scene has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..data import read_library
from ..endmembers.networks import SmallNetworks
from ..endmembers.number import describe_numbers, pooled_probabilities, scene_views
from ..physics import estimate_noise
from ..simulation import SceneSimulator, benchmark_scene, is_held_out
from .examples import load_libraries
from .real_maps import RealMaps

_MOST = 10  # endmembers of a simulated scene; with more, the random sensors leave too few spectra that differ
_MIXING = ("linear", "bilinear", "variable")


class NumberScenes:
    """Descriptions of simulated scenes whose number of endmembers is known.

    Every second scene is of the kind of the benchmark (smooth maps, no pure pixel, no change of brightness), with any
    number of endmembers, purity and noise; the others are of any kind, some mixed from the maps of real scenes.

    Args:
        library: spectral libraries.
        maps: files of `RealMaps`.
        held_out: take the materials that are held out of training, and those only.
    """

    def __init__(self, library: Sequence[str], maps: Sequence[str] = (), held_out: bool = False) -> None:
        self.spectra = []
        for path in library:
            found = read_library(path)
            kept = [i for i, name in enumerate(found.names) if is_held_out(name) == held_out]
            if len(kept) >= 100:  # of fewer, hardly ten are 10 degrees apart
                self.spectra.append(torch.as_tensor(found.subset(kept).spectra))
        spectra = load_libraries(library, held_out)
        self.simulator = SceneSimulator(spectra or None, num_endmembers=(2, _MOST), snr_db=(15.0, 50.0))
        self.maps = RealMaps(maps) if maps else None

    def describe(self, seed: int) -> tuple[torch.Tensor, int]:
        """One scene.

        Args:
            seed: of all its randomness.

        Returns:
            What `describe_numbers` says of it, and the number of its endmembers.
        """
        generator = torch.Generator().manual_seed(seed)
        count = 2 + int(torch.randint(_MOST - 1, (), generator=generator))
        draw = torch.rand(4, generator=generator).tolist()
        if seed % 2 and self.spectra:
            spectra = self.spectra[int(draw[0] * len(self.spectra))]
            scene = benchmark_scene(
                spectra,
                None,
                generator,
                _MIXING[int(draw[1] * len(_MIXING))],
                20 + 25 * draw[2],
                num_endmembers=count,
                max_purity=0.7 + 0.3 * draw[3],
            )
        else:
            fixed = self.maps.draw(count, 64, generator) if self.maps is not None and draw[0] < 0.3 else {}
            scene = self.simulator(generator, **(fixed or {"num_endmembers": count}))
        pixels = scene.cube.flatten(0, 1).float()
        return describe_numbers(scene_views(pixels, estimate_noise(pixels)), pixels.shape), count


def describe_scenes(scenes: NumberScenes, seeds: Sequence[int], store: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Descriptions of many scenes; what is there already is not simulated again.

    Args:
        scenes: makes them.
        seeds: of the scenes.
        store: file in which they are kept.

    Returns:
        `(features, counts)`, (S, 11, F) and (S,).
    """
    known = torch.load(store, weights_only=True) if store.is_file() else {}
    for i, seed in enumerate(tqdm(seeds, desc="scenes")):
        if seed not in known:
            known[seed] = scenes.describe(seed)
        if i % 200 == 199 or i + 1 == len(seeds):
            torch.save(known, store)
    chosen = [known[seed] for seed in seeds]
    return torch.stack([features for features, _ in chosen]), torch.tensor([count for _, count in chosen])


def fit_number(features: torch.Tensor, counts: torch.Tensor, steps: int = 2500, seed: int = 0) -> SmallNetworks:
    """Train the networks by the likelihood of the true number.

    Args:
        features: (S, 11, F).
        counts: (S,) true numbers, 2 to 12.
        steps: of each member, 256 scenes in each.
        seed: of the weights and of the order of the scenes.

    Returns:
        The networks.
    """
    torch.manual_seed(seed)
    networks = SmallNetworks(features.shape[-1], members=4, hidden=(48, 24), dropout=0.2)
    flat = features.flatten(0, 1)
    networks.mean.copy_(flat.mean(0))
    networks.std.copy_(flat.std(0).clamp_min(1e-3))
    optimizer = torch.optim.AdamW(networks.members.parameters(), 3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in tqdm(range(steps), desc="steps"):
        some = torch.randint(len(features), (256,))
        scores = networks(features[some]).flatten(0, 1)  # [members * 256, 11]
        loss = torch.nn.functional.cross_entropy(scores, (counts[some] - 2).repeat(len(networks.members)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return networks.eval()


def within_one(networks: SmallNetworks, features: torch.Tensor, counts: torch.Tensor) -> float:
    """Share of the scenes whose most probable number is at most one off.

    Args:
        networks: of `fit_number`.
        features: (S, 11, F).
        counts: (S,).

    Returns:
        The share.
    """
    found = pooled_probabilities(networks, features).argmax(-1) + 2
    return float(((found - counts).abs() <= 1).float().mean())
