import pytest
import torch

from hsunmix.simulation import ABUNDANCE_KINDS, cap_purity, random_abundances


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", [*ABUNDANCE_KINDS, None])
@pytest.mark.parametrize("num_endmembers,height,width", [(2, 64, 64), (5, 17, 40), (12, 8, 8), (3, 1, 1), (4, 2, 90)])
def test_maps_lie_on_the_simplex(kind, num_endmembers, height, width):
    for seed in range(6):
        maps = random_abundances(num_endmembers, height, width, generator(seed), kind)
        assert maps.shape == (num_endmembers, height, width)
        assert maps.dtype == torch.float32
        assert torch.isfinite(maps).all() and (maps >= 0).all()
        torch.testing.assert_close(maps.sum(0), torch.ones(height, width))


@pytest.mark.parametrize("kind", ABUNDANCE_KINDS)
def test_same_seed_same_maps(kind):
    torch.manual_seed(1)
    first = random_abundances(4, 32, 32, generator(3), kind)
    torch.manual_seed(2)  # the global generator plays no part
    assert torch.equal(first, random_abundances(4, 32, 32, generator(3), kind))
    assert not torch.equal(first, random_abundances(4, 32, 32, generator(4), kind))


@pytest.mark.parametrize("kind", ABUNDANCE_KINDS)
@pytest.mark.parametrize("cap", [0.7, 0.9])
def test_purity_cap(kind, cap):
    for num_endmembers in (2, 6):
        maps = random_abundances(num_endmembers, 48, 48, generator(5), kind, max_purity=cap)
        assert maps.max() <= cap + 1e-5
        torch.testing.assert_close(maps.sum(0), torch.ones(48, 48))


def test_cap_purity_leaves_mixed_pixels_alone_and_pulls_pure_ones_to_the_barycentre():
    maps = torch.tensor([[0.5, 1.0], [0.3, 0.0], [0.2, 0.0]])[:, None]
    capped = cap_purity(maps, 0.8)
    torch.testing.assert_close(capped[:, 0, 0], maps[:, 0, 0])
    torch.testing.assert_close(capped[:, 0, 1], torch.tensor([0.8, 0.1, 0.1]))


def test_random_purity_caps_some_scenes_but_not_all():
    purities = [float(random_abundances(4, 32, 32, generator(seed)).max()) for seed in range(60)]
    assert min(purities) < 0.86 and max(purities) > 0.97
    assert min(purities) > 0.3


def test_absent_endmember():
    maps = random_abundances(3, 32, 32, generator(0), absent_probability=1.0, max_purity=None)
    assert (maps.amax((1, 2)) < 1e-4).sum() == 1


def roughness(maps):
    return float(maps.diff(dim=1).abs().amax(0).flatten().quantile(0.999))


def test_sharp_kinds_have_edges_and_most_default_scenes_are_sharp():
    smooth = [random_abundances(4, 64, 64, generator(s), "gaussian", absent_probability=0.0) for s in range(8)]
    sharp = [random_abundances(4, 64, 64, generator(s), "dead_leaves", absent_probability=0.0) for s in range(8)]
    assert sorted(map(roughness, sharp))[4] > sorted(map(roughness, smooth))[4]


def test_plain_regions_are_of_one_mixture_each():
    def mixtures(**options):  # of the sharpest of some scenes: an optical blur mixes those of others
        scenes = [random_abundances(4, 48, 48, generator(s), "blocks", None, **options) for s in range(8)]
        return min(len(maps.flatten(1).T.unique(dim=0)) for maps in scenes)

    assert mixtures(plain_probability=1.0) < 400 < 1500 < mixtures()


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(num_endmembers=1), "`num_endmembers`"),
        (dict(height=0), "`height`"),
        (dict(kind="stripes"), "`kind`"),
        (dict(max_purity=0.2), "`max_purity`"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    defaults = dict(num_endmembers=3, height=8, width=8, generator=generator())
    with pytest.raises(ValueError, match=message):
        random_abundances(**{**defaults, **arguments})


def test_generator_is_required():
    with pytest.raises(ValueError, match="`generator`"):
        random_abundances(3, 8, 8, 0)
