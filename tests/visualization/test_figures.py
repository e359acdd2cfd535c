from types import SimpleNamespace

import numpy as np
import pytest

from hsunmix.evaluation.comparison import Row
from hsunmix.visualization import (
    color_composite,
    plot_abundances,
    plot_brightness,
    plot_composite,
    plot_endmembers,
    plot_error_by_noise,
    plot_error_by_scenes,
    plot_pixel,
    plot_residual,
    plot_sparsification,
    save_figures,
)


def maps(height=6, width=9, count=3):
    return np.random.default_rng(0).dirichlet(np.ones(count), (height, width))


def test_every_map_has_its_name_and_one_scale():
    figure = plot_abundances(maps(), ["soil", "tree", "water"])
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["soil", "tree", "water"]
    assert {axes.images[0].get_clim() for axes in panels} == {(0, 1)}
    assert any("abundance" in axes.get_ylabel() for axes in figure.axes)


def test_missing_pixels_are_grey():
    values = maps()
    values[0, 0] = np.nan
    image = plot_abundances(values).axes[0].images[0]
    red, green, blue, _ = image.to_rgba(image.get_array())[0, 0]
    assert red == green == blue and red > 0.5


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12])
def test_any_number_of_endmembers(count):
    values = maps(count=count)
    assert len([axes for axes in plot_abundances(values).axes if axes.images]) == count
    figure = plot_abundances(values, uncertainty=values * 0.1, coarse=values, reference=values)
    assert len([axes for axes in figure.axes if axes.images]) == 4 * count


def test_rows_beside_a_reference_say_how_far_they_are_from_it():
    values = maps()
    away = values + 0.05
    away[0, 0] = np.nan
    figure = plot_abundances(away, coarse=values, reference=values)
    labels = [axes.get_ylabel() for axes in figure.axes if axes.images and axes.get_ylabel()]
    assert labels[:3] == ["coarse\nRMSE 0.0000", "refined\nRMSE 0.0500", "reference"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (60, 3)])
def test_any_image_shape(tmp_path, shape):
    values = maps(*shape)
    spectra = np.full((3, 30), 0.2)
    files = save_figures(tmp_path, values, spectra, residual=np.zeros(shape), cube=values @ spectra)
    assert [file.name for file in files] == ["abundances.png", "endmembers.png", "residual.png", "composite.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(file.name for file in files)
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_spectra_are_sorted_broken_at_gaps_and_banded():
    wavelengths = np.concatenate([np.arange(1450, 1800, 10.0), np.arange(400, 1350, 10.0)])
    spectra = np.stack([wavelengths / 2000, wavelengths / 3000])
    axes = plot_endmembers(spectra, wavelengths, ["a", "b"], uncertainty=spectra * 0.1).axes[0]
    x, y = axes.lines[0].get_data()
    assert np.isnan(y).sum() == 1
    drawn = x[np.isfinite(x)]
    assert (np.diff(drawn) > 0).all() and len(drawn) == len(wavelengths)
    assert len(axes.collections) == 2
    assert axes.get_xlabel() == "wavelength (nm)" and axes.get_ylabel() == "reflectance"
    low, high = axes.get_ylim()
    assert low <= 0 and high >= 1.1645 * spectra.max()


FIRST, SECOND = np.arange(420, 1000, 7.0), np.arange(902.5, 2450, 10.0)  # as EnMAP's two detectors


@pytest.mark.parametrize(
    "wavelengths",
    [np.append(FIRST, SECOND), np.append(SECOND, FIRST), np.append(FIRST, SECOND)[::-1]],
    ids=["file order", "second detector first", "descending"],
)
def test_overlapping_detectors_are_lines_of_their_own(wavelengths):
    second = np.isin(wavelengths, SECOND)
    measured = np.where(second, 0.3, 0.2)  # detectors differ a little
    for figure in (plot_pixel(measured, wavelengths), plot_endmembers(measured[None], wavelengths)):
        x, y = figure.axes[0].lines[0].get_data()
        drawn = [(x[part], y[part]) for part in np.ma.clump_unmasked(np.ma.masked_invalid(y))]
        assert len(drawn) == 2
        for (places, values), expected, level in zip(drawn, (FIRST, SECOND), (0.2, 0.3)):
            np.testing.assert_array_equal(places, expected)
            assert (values == level).all()


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
def test_bands_without_overlap_are_one_line_in_any_order(order):
    wavelengths = np.arange(400, 1000, 10.0)
    if order != "ascending":
        wavelengths = wavelengths[::-1] if order == "descending" else np.random.default_rng(0).permutation(wavelengths)
    x, y = plot_pixel(wavelengths / 1000, wavelengths).axes[0].lines[0].get_data()
    np.testing.assert_array_equal(x, np.arange(400, 1000, 10.0))
    np.testing.assert_allclose(y, x / 1000)


def test_comparison_gets_a_panel_each():
    spectra = np.random.default_rng(0).uniform(0, 1, (5, 20))
    figure = plot_endmembers(spectra, None, list("abcde"), coarse=spectra * 1.5, reference=spectra)
    panels = [axes for axes in figure.axes if axes.lines]
    assert [axes.get_title() for axes in panels] == list("abcde")
    assert all(axes.get_ylim()[1] >= 1.5 * spectra.max() for axes in panels)
    assert panels[-1].get_xlabel() == "band"


def test_wrong_shapes():
    with pytest.raises(ValueError, match="`coarse`"):
        plot_abundances(maps(), coarse=maps(3, 3))
    with pytest.raises(ValueError, match="`names`"):
        plot_abundances(maps(), ["a"])
    with pytest.raises(ValueError, match="`abundances`"):
        plot_abundances(maps()[0])
    with pytest.raises(ValueError, match="`wavelengths`"):
        plot_endmembers(np.ones((2, 5)), np.ones(4))
    with pytest.raises(ValueError, match="`uncertainty`"):
        plot_endmembers(np.ones((2, 5)), uncertainty=np.ones((2, 4)))
    with pytest.raises(ValueError, match="`residual`"):
        plot_residual(np.ones(4))
    with pytest.raises(ValueError, match="`brightness`"):
        plot_brightness(np.ones(4))
    with pytest.raises(ValueError, match="`cube`"):
        color_composite(np.ones((4, 4)))


def test_composite_shows_red_green_and_blue():
    wavelengths = np.array([460.0, 550.0, 640.0, 900.0])
    cube = np.random.default_rng(0).uniform(0, 1, (20, 20, 4))
    image = color_composite(cube, wavelengths, gamma=1)
    for channel, band in ((0, 2), (1, 1), (2, 0)):
        assert np.corrcoef(image[..., channel].ravel(), cube[..., band].ravel())[0, 1] > 0.99
    assert image.min() == 0 and image.max() == 1
    cube[3, 3] = np.nan
    pixel = color_composite(cube, wavelengths)[3, 3]
    assert pixel[0] == pixel[1] == pixel[2] and 0 < pixel[0] < 1


@pytest.mark.parametrize("wavelengths", [None, np.linspace(1000, 2500, 12)])
def test_false_colour_avoids_bad_bands(wavelengths):
    cube = np.random.default_rng(0).uniform(0, 1, (5, 5, 12))
    mask = np.arange(12) % 2 == 0
    cube[..., ~mask] = np.nan
    assert np.isfinite(color_composite(cube, wavelengths, mask)).all()
    assert "False colour" in plot_composite(cube, wavelengths, mask, "x").axes[0].get_xlabel()
    with pytest.raises(ValueError, match="`band_mask`"):
        color_composite(cube, wavelengths, np.zeros(12, bool))


def test_nothing_measured_is_still_a_picture(tmp_path):
    empty = np.full((4, 4, 3), np.nan)
    save_figures(tmp_path, empty[..., :2], np.ones((2, 3)), residual=empty[..., 0], cube=empty)


@pytest.mark.parametrize("coarse", [False, True])
def test_spectra_without_a_scale_of_their_own_are_not_called_reflectance(coarse):
    spectra = np.random.default_rng(0).uniform(0.1, 0.9, (3, 30))
    spectra[:, 4] = np.nan
    relative = spectra / np.nanmax(spectra, axis=1, keepdims=True)
    relative_label = "relative reflectance\n(all scaled to one maximum)"
    for values, quantity in ((spectra, "reflectance"), (relative, relative_label)):
        figure = plot_endmembers(values, coarse=values if coarse else None)
        assert figure.axes[0].get_ylabel() == quantity


def test_brightness_is_drawn_where_the_spectra_have_no_scale_of_their_own(tmp_path):
    spectra = np.random.default_rng(0).uniform(0.1, 0.9, (3, 30))
    brightness = np.linspace(0.1, 2.0, 54).reshape(6, 9)
    relative = spectra / spectra.max(axis=1, keepdims=True)
    for values, drawn in ((spectra, False), (relative, True)):
        files = save_figures(tmp_path, maps(), values, brightness=brightness)
        assert ("brightness.png" in [file.name for file in files]) == drawn
    panel, bar = plot_brightness(np.where(brightness < 0.2, np.nan, brightness)).axes
    low, high = panel.images[0].get_clim()
    assert low == 0 and 1.9 < high <= 2 and "1 = ordinary" in bar.get_ylabel()
    assert panel.images[0].get_array().mask.sum() == (brightness < 0.2).sum()


def smooth_spectra():
    return np.stack([0.2 + 0.1 * np.sin(np.linspace(0, 3, 120)), np.linspace(0.1, 0.3, 120)])


def triangles(figure):
    return [
        line
        for axes in figure.axes
        for line in axes.lines
        if line.get_marker() in ("^", "v") and len(line.get_xdata())
    ]


@pytest.mark.parametrize("reference", [False, True])
def test_intervals_end_at_zero(reference):
    spectra = smooth_spectra()
    spectra[1] -= 0.15  # itself negative at one end
    others = {"reference": spectra} if reference else {}
    figure = plot_endmembers(spectra, None, ["a", "b"], np.full((2, 120), 0.2), **others)
    drawn = [band.get_paths()[0].vertices[:, 1] for axes in figure.axes for band in axes.collections]
    assert [values.min() for values in drawn] == pytest.approx([0, -0.05])
    assert drawn[0].max() == pytest.approx(spectra[0].max() + 1.6449 * 0.2)
    assert figure.axes[0].get_ylim()[0] > -0.1


@pytest.mark.parametrize("reference", [False, True])
def test_spikes_do_not_flatten_the_spectra_and_are_marked(reference):
    spectra = smooth_spectra()
    spectra[0, 40], spectra[1, 90] = 4.0, -3.0
    others = {"reference": smooth_spectra()} if reference else {}
    figure = plot_endmembers(spectra, np.linspace(400, 1600, 120), ["a", "b"], spectra * 0.1, **others)
    low, high = figure.axes[0].get_ylim()
    assert -0.1 < low <= 0 and 0.33 < high < 0.5  # the 90 % band of the smooth part is inside
    marked = triangles(figure)
    assert sorted(line.get_marker() for line in marked) == ["^", "v"]
    assert {round(float(line.get_xdata()[0])) for line in marked} == {803, 1308}
    axes = plot_pixel(spectra[0], np.linspace(400, 1600, 120)).axes[0]
    assert axes.get_ylim()[1] < 0.5 and axes.get_legend().get_texts()[-1].get_text() == "goes on beyond"


def test_noise_and_broad_peaks_are_shown_whole():
    noisy = smooth_spectra() + np.random.default_rng(0).normal(0, 0.2, (2, 120))
    peak = smooth_spectra() + 2 * np.exp(-np.square((np.arange(120) - 60) / 6))
    for spectra in (noisy, peak, smooth_spectra()[:, :5]):
        figure = plot_endmembers(spectra)
        low, high = figure.axes[0].get_ylim()
        assert low <= spectra.min() and high >= spectra.max() and not triangles(figure)


def texts(figure):
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def test_a_coarse_spectrum_under_the_refined_one_is_not_drawn():
    spectra = smooth_spectra()
    figure = plot_endmembers(spectra, names=["a", "b"], coarse=spectra + 1e-4)
    assert len(figure.axes) == 1 and len(figure.axes[0].lines) == 2 and texts(figure) == ["a", "b"]
    assert "changed nothing visible" in figure.get_suptitle()
    figure = plot_endmembers(spectra, names=["a", "b"], coarse=spectra + [[0.0], [0.05]])
    drawn = [[bool(np.isfinite(line.get_ydata()).any()) for line in axes.lines] for axes in figure.axes]
    assert drawn == [[False, True], [True, True]] and "coarse, where it differs" in texts(figure)


def test_error_by_noise_has_a_line_for_each_method_and_gaps_where_it_did_not_run():
    rows = [
        Row(scene, "blind", level, method, "free", 0.1 * k, 0.2, 1.0)
        for scene in ("a", "b")
        for k, (method, level) in enumerate([("vca", None), ("vca", 20.0), ("hsunmix", None)], start=1)
    ]
    figure = plot_error_by_noise(rows)
    assert len(figure.axes) == 4 and figure.axes[0].get_title() == "a, blind"
    ours, vca = figure.axes[0].lines
    assert ours.get_label() == "hsunmix" and list(ours.get_xdata()) == ["clean", "20"]
    np.testing.assert_allclose(vca.get_ydata(), [0.1, 0.2])
    np.testing.assert_array_equal(np.isnan(ours.get_ydata()), [False, True])
    with pytest.raises(ValueError, match="nothing was measured"):
        plot_error_by_noise([])


def test_sparsification_has_a_panel_for_each_scene_and_track():
    def run(values):
        return SimpleNamespace(sparsification=values, sparsification_oracle=[x / 2 for x in values])

    cells = {
        ("a", "blind", 20.0): [run([0.2, 0.1]), run([0.4, 0.1])],
        ("a", "blind", None): [run([0.1, 0.1])],
        ("a", "given", None): [run([])],
        ("b", "given", None): [run([0.0, 0.0])],
    }
    (panel,) = [axes for axes in plot_sparsification(cells).axes if axes.lines]
    assert panel.get_title() == "a, blind" and len(panel.lines) == 4
    named = {line.get_label(): line for line in panel.lines}
    np.testing.assert_allclose(named["20 dB"].get_ydata(), [1.0, 0.375])  # each run in units of its own error
    assert list(named["clean"].get_xdata()) == [0, 50]
    with pytest.raises(ValueError, match="nothing was measured"):
        plot_sparsification({})


def test_error_by_scenes_has_a_curve_for_each_size_and_its_start():
    sizes = [
        {"parameters": n, "scenes": [800, 1600], "rmse": [0.1, 0.09], "closed_form_rmse": 0.11} for n in (10**5, 10**6)
    ]
    lines = plot_error_by_scenes(sizes).axes[0].lines
    assert [line.get_label() for line in lines] == ["0.10 million weights", "1.00 million weights", "least squares"]
