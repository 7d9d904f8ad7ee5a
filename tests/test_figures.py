import subprocess
import sys

import numpy as np
import pytest
from shared_fixtures import REPOSITORY

from clouds_tf import figures
from clouds_tf.dataset import CLOUDS
from clouds_tf.figures import charts, evaluation
from clouds_tf.models.unet import Stage

CLASS_NAMES = CLOUDS.class_names


def _history(num_epochs):
    keys = ["loss", "val_loss", "dice", "val_dice", *(f"val_dice_{c}" for c in CLASS_NAMES)]
    return [
        {"epoch": e, **{key: 1 / (e + i) for i, key in enumerate(keys)}}
        for e in range(1, 1 + num_epochs)
    ]


def _luminance(color):
    """Relative luminance (WCAG 2.1, "relative luminance")."""
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("num_epochs", [1, 3])
def test_curves_show_every_epoch_of_every_class(num_epochs):
    loss, dice = figures.curves(_history(num_epochs), CLASS_NAMES).axes
    *losses, _ = loss.lines
    *scores, best = dice.lines
    assert len(losses) == 2 and len(scores) == 2 + len(CLASS_NAMES)
    for line in (*losses, *scores):
        assert list(line.get_xdata()) == list(range(1, num_epochs + 1))
    assert set(best.get_xdata()) == {1}  # the scores fall from there


def test_the_best_epoch_is_that_of_the_held_out_images():
    first, second, third = _history(3)
    second["val_dice"], third["dice"] = 0.9, 0.95
    _, dice = figures.curves([first, second, third], CLASS_NAMES).axes
    assert set(dice.lines[-1].get_xdata()) == {2}


def test_the_tint_of_a_mask_lies_where_its_image_does():
    mask = np.zeros((20, 30, 4), np.uint8)
    mask[:5, :, 0] = 1
    (axes,) = figures.overlays([np.zeros((40, 60, 3), np.uint8)], [mask], [""], CLASS_NAMES, 1).axes
    image, tint = axes.images
    assert tint.get_extent() == image.get_extent()
    assert tint.get_array()[0, 0].any() and not tint.get_array()[-1, 0].any()


def test_a_mask_of_specks_has_no_outline():
    mask = np.zeros((40, 60, 4), np.uint8)
    mask[::2, ::2, 0] = 1
    mask[5:30, 5:50, 1] = 1
    image = np.zeros((40, 60, 3), np.uint8)
    (axes,) = figures.overlays([image], [mask], [""], CLASS_NAMES, 1).axes
    assert len(axes.collections) == 1 and len(axes.images) == 3  # the image and two tints
    assert [text.get_text() for text in axes.texts] == ["Fish", "Flower"]


def test_an_overlay_names_the_classes_that_are_there():
    image = np.zeros((40, 60, 3), np.uint8)
    masks = np.zeros((20, 30, 4), np.uint8)
    masks[2:6, 3:9, 1] = 1
    masks[:, :, 3] = 1
    figure = figures.overlays([image], [masks], ["a.jpg"], CLASS_NAMES, num_columns=1)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["Flower", "Sugar"]
    x, y = axes.texts[0].get_position()
    assert 6 <= x <= 18 and 4 <= y <= 12  # in pixels of the image, twice as large as the mask
    outline = axes.collections[0].get_paths()[0].get_extents()
    np.testing.assert_allclose(outline.extents, [5.5, 3.5, 17.5, 11.5], atol=1.01)


def test_a_grid_has_room_for_all():
    image, mask = np.zeros((8, 12, 3), np.uint8), np.zeros((8, 12, 4), np.uint8)
    figure = figures.overlays([image] * 4, [mask] * 4, list("abcd"), CLASS_NAMES)
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", "d", "", ""]


def test_a_network_shows_every_map_and_skip():
    def stage(name, height, convolutions=2):
        return Stage(name, convolutions, height, 2 * height, 7)

    down = [stage("image", 8, 0), stage("stem", 4, 1), stage("stage1", 2)]
    up = [stage("decoder1", 4), stage("decoder2", 8), stage("head", 8, 1)]
    (axes,) = figures.network(down, up, "a net").axes
    texts = [text.get_text() for text in axes.texts if text.get_text()]
    assert texts[0] == "image\n8 × 16 × 7"
    assert texts[1] == "stem\n4 × 8 × 7\n1 convolution"
    assert [text.split("\n")[0] for text in texts] == [stage.name for stage in down + up]
    arrows = [(tuple(text.xyann), tuple(text.xy)) for text in axes.texts if not text.get_text()]
    across = [(start, end) for start, end in arrows if start[1] == end[1]]
    assert len(arrows) == 5 + 1
    assert across == [((2, 0), (3, 0)), ((0, -1), (2, -1))]  # to the head; the skip of the stem


def test_names_can_be_read_on_their_colours():
    colors = figures.class_colors(CLASS_NAMES)
    assert len(set(colors)) == 4
    for color in colors:
        assert (_luminance(color) + 0.05) / 0.05 >= 7  # contrast with black, WCAG level AAA


def test_overlapping_names_stand_apart_and_on_their_masks():
    masks = np.zeros((40, 60, 4), np.uint8)
    masks[5:35, 10:50, 0] = 1
    masks[5:35, 10:50, 1] = 1
    image = np.zeros((40, 60, 3), np.uint8)
    (axes,) = figures.overlays([image], [masks], [""], CLASS_NAMES, 1).axes
    (x, y), (other_x, other_y) = (text.get_position() for text in axes.texts)
    assert abs(x - other_x) >= 15 or abs(y - other_y) >= 5
    assert 10 <= other_x < 50 and 5 <= other_y < 35


def test_the_combinations_of_an_upset_are_bars_and_dots():
    figure = charts.combinations({("Fish", "Sugar"): 7, (): 2}, CLASS_NAMES, "title")
    above, below = figure.axes
    assert [bar.get_height() for bar in above.patches] == [7, 2]
    dots = [len(points.get_offsets()) for points in below.collections]
    assert dots == [2, 1, 2, 0, 2, 0, 2, 1]  # of each class: all places, then those it is in


def test_a_dark_figure_differs_in_its_paper_only():
    light, dark = (
        charts.bars({"a": 3, "b": 1}, "t", "x", ["#56B4E9", "#8C96A3"], dark=d)
        for d in (False, True)
    )
    assert sum(light.get_facecolor()[:3]) > 2.5 > 0.5 > sum(dark.get_facecolor()[:3])
    colors = [[bar.get_facecolor() for bar in figure.axes[0].patches] for figure in (light, dark)]
    assert colors[0] == colors[1]


def test_a_picture_is_written(tmp_path):
    path = tmp_path / "new" / "curves.png"
    figures.save(figures.curves(_history(2), CLASS_NAMES), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_without_matplotlib_only_pictures_are_missing():
    code = """
import sys
sys.modules["matplotlib"] = None
from clouds_tf import figures
assert not figures.AVAILABLE
try:
    figures.curves([], ())
except ValueError as error:
    print(error)
"""
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == (
        "a picture needs the package matplotlib: in the folder of clouds_tf, run "
        "pip install -e '.[plots]'"
    )


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [1, 3, 9])
def test_charts_of_any_number_of_classes(num_classes):
    names = [f"class {i}" for i in range(num_classes)]
    numbers = {name: np.arange(1.0, 5) for name in names}
    share = dict.fromkeys(names, 0.5)
    square = np.full((num_classes, num_classes), 0.5)
    image, mask = np.zeros((8, 12, 3), np.uint8), np.ones((8, 12, num_classes), np.uint8)
    drawn = [
        charts.combinations({tuple(names): 3, (): 1}, names, "t"),
        charts.shares(share, share, ("a", "b")),
        charts.matrix(square, names, "t", "{:.1f}", (0, 1)),
        charts.distributions(numbers, "t", "x"),
        charts.average_masks(np.ones((num_classes, 4, 6)), names, (8, 12), "t"),
        charts.box_sizes(numbers, numbers, (8, 12), "t"),
        figures.overlays([image], [mask], ["a"], names),
    ]
    assert all(figures.pixels(figure).std() > 0 for figure in drawn)
    maps = [axes for axes in drawn[4].axes if axes.get_title("left")]
    assert [axes.get_title("left") for axes in maps] == names


def test_the_best_place_of_a_map_is_marked():
    scores = np.zeros((4, 3, 5))
    scores[1, 2, 3] = 0.7
    figure = evaluation.score_maps(
        scores, np.full(4, 0.25), [0.1, 0.2, 0.3, 0.4, 0.5], [0, 0.5, 1], CLASS_NAMES, "t"
    )
    fish, flower = figure.axes[:2]
    assert flower.get_title("left") == "Flower: 0.700, at the edge\nblank: 0.250"
    assert len(flower.collections) == 2 and len(fish.collections) == 1  # map, and blank score
    assert [(x.item(), y.item()) for x, y in [line.get_data() for line in flower.lines]] == [
        (0.4, 1)
    ]


def test_reliability_is_drawn_at_the_middle_of_each_bin():
    shares = np.full((4, 2), 0.25)
    shares[2, 1] = np.nan
    above, below = evaluation.reliability(
        [0, 0.4, 1], shares, np.ones((4, 2)), CLASS_NAMES, "t"
    ).axes
    diagonal, *lines = above.lines
    assert [line.get_label() for line in lines] == list(CLASS_NAMES)
    assert lines[0].get_xdata().tolist() == [0.2, 0.7]
    np.testing.assert_array_equal(lines[2].get_ydata(), [0.25, np.nan])
    assert len(below.patches) == 4


def test_confusions_show_share_and_number():
    counts = np.zeros((4, 2, 2))
    counts[3] = [[1, 2], [0, 1]]
    sugar = evaluation.confusions(counts, CLASS_NAMES, "t").axes[3]
    texts = [text.get_text() for text in sugar.texts]
    assert texts == ["right\n25.0%\n1", "wrong\n50.0%\n2", "wrong\n0.0%\n0", "right\n25.0%\n1"]
    (red, green, _), (wrong_red, wrong_green, _) = sugar.images[0].get_array()[0]
    assert green > red and wrong_red > wrong_green


def test_comparisons_have_a_row_for_each_image():
    image, mask = np.zeros((8, 12, 3), np.uint8), np.zeros((8, 12, 4), np.uint8)
    mask[2:5, 3:9, 0] = 1
    figure = evaluation.comparisons(
        [image] * 2, [[mask, mask * 0]] * 2, ["a", "b"], ["one", "two"], CLASS_NAMES
    )
    names = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert names == [["a"], ["Fish"], [], ["b"], ["Fish"], []]
    assert [axes.get_title("left") for axes in figure.axes[:3]] == ["image", "one", "two"]


def test_areas_show_every_image_and_the_bias():
    true = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    series = {"masks": (true / 2, [0.5, 0, -0.25]), "expected": (true, [0, 0, float("nan")])}
    figure = evaluation.predicted_areas(true, series, ("a", "b", "c"), "t")
    third = figure.axes[2]
    points = [collection.get_offsets() for collection in third.collections]
    np.testing.assert_allclose(points[0], [[0.3, 0.15], [0.6, 0.3]])
    labels = [text.get_text() for text in third.get_legend().get_texts()]
    assert labels == ["masks: -25.0%", "expected: +nan%"]
