import dataclasses

import cv2
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from shared_fixtures import real_data

from clouds_tf import rle
from clouds_tf.data import annotations
from clouds_tf.dataset import CLOUDS
from clouds_tf.exploration import statistics, summary
from clouds_tf.exploration.statistics import GRID

pytestmark = pytest.mark.lanes

CLASS_NAMES = CLOUDS.class_names
SIZE = (140, 210)  # of the masks here; twice GRID
DATASET = dataclasses.replace(CLOUDS, mask_size=SIZE)


def _random_masks(seed, count):
    """uint8 [count, *SIZE]: blobs, crumbs, full columns; the first is empty, the second full."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *SIZE), np.uint8)
    masks[1] = 1
    for mask in masks[2:]:
        for _ in range(rng.integers(1, 4)):
            (top, bottom), (left, right) = (np.sort(rng.integers(0, 1 + side, 2)) for side in SIZE)
            mask[top:bottom, left:right] = 1
        if rng.random() < 0.5:
            mask[:, rng.integers(0, SIZE[1])] = 1
        mask[rng.integers(0, SIZE[0], 40), rng.integers(0, SIZE[1], 40)] ^= 1
    return masks


def _box(mask):
    """By OpenCV: top, left, bottom, right."""
    left, top, width, height = cv2.boundingRect(mask)
    return [top, left, top + height, left + width]


def _write_folder(folder, images, masks):
    """JPEG files of quality 100 and the table that `read_csv` gives for them."""
    filenames = [f"{i:03d}.jpg" for i in range(len(images))]
    for filename, image in zip(filenames, images):
        encoded = tf.io.encode_jpeg(image, quality=100, chroma_downsampling=False)
        tf.io.write_file(str(folder / filename), encoded)
    strings = rle.encode(masks).numpy().astype(str)
    return pd.DataFrame({"filename": filenames, **dict(zip(CLASS_NAMES, strings.T))})


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """18 images, more than a batch, with 72 masks; what was written, and what was found."""
    rng = np.random.default_rng(0)
    images = np.broadcast_to(rng.integers(60, 200, (18, 1, 1, 3)), (18, *SIZE, 3)).copy()
    images[3:9, :, 42:84] = 0  # a gap of a fifth of the image
    images = images.astype(np.uint8)
    masks = _random_masks(1, 72).reshape(18, 4, *SIZE)
    folder = tmp_path_factory.mktemp("measured")
    table = _write_folder(folder, images, masks)
    return images, masks, statistics.measure(table, str(folder), DATASET)


@pytest.mark.parametrize("seed", range(3))
def test_boxes_are_those_of_opencv(seed):
    masks = _random_masks(seed, 12)
    runs = rle.parse(rle.encode(masks))
    found = statistics._boxes(runs, SIZE[0]).numpy()
    assert found.tolist() == [_box(mask) for mask in masks]


def test_a_run_that_crosses_columns_spans_the_height():
    runs = rle.parse(["4 4", "3 1 5 1", ""])  # in columns of 5 pixels
    assert statistics._boxes(runs, 5).numpy().tolist() == [[0, 0, 5, 2], [2, 0, 5, 1], [0, 0, 0, 0]]


@pytest.mark.slow
def test_rows_have_areas_runs_and_components_of_every_mask(measured):
    _, masks, found = measured
    rows = found.rows
    assert list(rows["class"]) == list(CLASS_NAMES) * 18
    flat = masks.reshape(-1, *SIZE)
    np.testing.assert_array_equal(rows["area"], flat.sum(axis=(1, 2)))
    np.testing.assert_allclose(rows["fraction"], flat.mean(axis=(1, 2)))
    for mask, row in zip(flat, rows.itertuples()):
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        assert row.components == count - 1
        assert row.smallest_component == (areas.min() if len(areas) else 0)
        assert row.largest_component == areas.max(initial=0)
        pixels = np.concatenate([[0], mask.T.ravel(), [0]]).astype(int)
        assert row.runs == (np.diff(pixels) == 1).sum()
        box = [row.top, row.left, row.bottom, row.right]
        assert all(map(pd.isna, box)) if not mask.any() else box == _box(mask)
        listed = found.components.query("filename == @row.filename and `class` == @row[2]")
        assert sorted(listed["area"]) == sorted(areas)


def test_average_masks_are_area_averages(measured):
    _, masks, found = measured
    cells = masks.reshape(-1, 4, GRID[0], 2, GRID[1], 2).mean(axis=(0, 3, 5))
    np.testing.assert_allclose(found.average_masks, cells, atol=1e-5)


def test_images_are_described(measured):
    images, _, found = measured
    of_image = summary.per_image(found.rows)
    assert len(of_image) == 18
    assert (of_image[["height", "width"]] == SIZE).all(axis=None)
    seen = [image[image.max(axis=2) > 0].astype(float) for image in images]
    np.testing.assert_allclose(of_image["brightness"], [x.mean() for x in seen], atol=2.5)
    blueness = [(x[:, 2] - x[:, 0]).mean() for x in seen]
    np.testing.assert_allclose(of_image["blueness"], blueness, atol=3)
    np.testing.assert_allclose(of_image["gap"], [0] * 3 + [0.2] * 6 + [0] * 9, atol=0.006)
    assert (of_image["contrast"][:3] < 2).all()


def test_masks_at_the_gap(tmp_path):
    image = np.full((140, 210, 3), 90, np.uint8)
    image[:, 100:140] = 0
    masks = np.zeros((1, 4, *SIZE), np.uint8)
    masks[0, 0, 20:60, 40:90] = 1  # away from it
    masks[0, 1, 20:60, 40:100] = 1  # up to it
    masks[0, 2, 20:60, 80:120] = 1  # half in it
    found = statistics.measure(_write_folder(tmp_path, [image], masks), str(tmp_path), DATASET).rows
    assert found["touches_gap"].tolist() == [False, True, True, False]
    np.testing.assert_allclose(found["on_black"], [0, 0, 0.5, 0], atol=0.03)
    on_black = found["on_black"] >= summary.ON_BLACK
    assert found["class"][on_black].tolist() == ["Gravel"]


@pytest.mark.parametrize(
    "sea, share",
    [((20, 28, 50), 0), ((100, 98, 95), 0.3), ((100, 98, 140), 0), ((220, 220, 220), 0)],
    ids=["dark sea", "glint", "blue haze", "thick cloud"],
)
def test_glint_is_bright_grey_sea(sea, share):
    image = np.full((140, 210, 3), (20, 28, 50), np.uint8)
    image[:, 42:105] = sea
    image[30:40, 50:60] = 255  # a small cloud over it hides nothing
    image[:, 180:190] = 0
    described = statistics._describe_image(tf.io.encode_jpeg(image, quality=100), 2)
    assert described["glint"].numpy() == pytest.approx(share, abs=0.02)


def test_dark_sea_is_no_gap():
    image = np.full((140, 210, 3), (10, 12, 16), np.uint8)
    described = statistics._describe_image(tf.io.encode_jpeg(image, quality=100), 2)
    assert described["gap"].numpy() == 0


@pytest.mark.slow
def test_what_cannot_be_read_is_named(tmp_path):
    images = np.full((3, 70, 105, 3), 90, np.uint8)
    table = _write_folder(tmp_path, images, np.ones((3, 4, *SIZE), np.uint8))
    whole = (tmp_path / "001.jpg").read_bytes()
    (tmp_path / "001.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "002.jpg").unlink()
    found = statistics.measure(table, str(tmp_path), DATASET)
    assert found.rows["filename"].tolist() == ["000.jpg"] * 4
    assert found.problems == [
        f"{tmp_path}/001.jpg: not a whole, readable JPEG",
        f"{tmp_path}/002.jpg: no such image, but it is annotated",
    ]
    (tmp_path / "000.jpg").unlink()
    with pytest.raises(ValueError, match="none of 3 images can be read; .*000.jpg: no such image"):
        statistics.measure(table, str(tmp_path), DATASET)


def test_images_are_counted(measured, tmp_path):
    images, masks, _ = measured
    table = _write_folder(tmp_path, images, masks)
    (tmp_path / "017.jpg").unlink()
    seen = []
    statistics.measure(table, str(tmp_path), DATASET, lambda *counts: seen.append(counts))
    assert seen == [(16, 18), (17, 18), (18, 18)]


def test_images_without_a_gap_have_none(tmp_path):
    image = np.zeros((140, 210, 3), np.uint8)
    described = statistics._describe_image(tf.io.encode_jpeg(image, quality=100), None)
    assert described["gap"].numpy() == 0 and not described["black"].numpy().any()
    assert statistics._describe_image(tf.io.encode_jpeg(image), 2)["gap"].numpy() == 1


@pytest.mark.slow
def test_runs_along_rows_measure_the_same(measured, tmp_path):
    images, masks, found = measured
    _write_folder(tmp_path, images, masks)
    strings = rle.encode(masks, order="rows").numpy().astype(str)
    names = found.rows["filename"].unique()
    table = pd.DataFrame({"filename": names, **dict(zip("abcd", strings.T))})
    dataset = dataclasses.replace(DATASET, class_names=tuple("abcd"), rle_order="rows")
    rows = statistics.measure(table, str(tmp_path), dataset).rows
    columns = ["area", "runs", "components", "top", "left", "bottom", "right"]
    pd.testing.assert_frame_equal(rows[columns], found.rows[columns])
    assert rows["characters"].tolist() == [len(text) for text in strings.ravel()]


def test_near_duplicates_are_the_closest_pairs(monkeypatch):
    monkeypatch.setattr(summary, "_BLOCK", 4)
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 256, (11, 14, 21))
    thumbnails[9] = thumbnails[2] // 2 + 40  # the same scene in another light
    thumbnails[5] = 90  # nothing to compare
    (i, j, correlation), second = summary._closest_pairs(thumbnails, 2)
    assert (i, j) == (2, 9) and correlation > 0.999
    expected = np.corrcoef(thumbnails.reshape(11, -1)[[second[0], second[1]]])[0, 1]
    assert second[2] == pytest.approx(expected, abs=1e-5) and second[2] < 0.5


def test_the_closest_pairs_are_those_of_all_correlations(monkeypatch):
    monkeypatch.setattr(summary, "_BLOCK", 16)
    monkeypatch.setattr(summary, "_COMPONENTS", 5)
    rng = np.random.default_rng(0)
    thumbnails = (rng.gamma(2, 1, (70, 8)) @ rng.integers(0, 20, (8, 294))).reshape(70, 14, 21)
    expected = np.tril(np.corrcoef(thumbnails.reshape(70, -1)), -1).T
    places = np.argsort(-expected, axis=None)[:12]
    i, j, found = map(np.array, zip(*summary._closest_pairs(thumbnails, 12)))
    np.testing.assert_array_equal(i * 70 + j, places)
    np.testing.assert_allclose(found, expected.ravel()[places], atol=1e-6)


def test_the_image_unlike_the_others_comes_first():
    rng = np.random.default_rng(0)
    images = pd.DataFrame(rng.normal(50, 5, (40, 5)), columns=summary.IMAGE_MEASURES)
    images["filename"] = [str(i) for i in range(40)]
    images.loc[7, "gap"] = 500
    first = summary._unlike_others(images).iloc[0]
    assert (first["filename"], first["measure"], first["value"]) == ("7", "gap", 500)
    assert first["distance"] > 50


def test_the_summary_counts_labels(measured):
    _, masks, found = measured
    numbers = summary.summarize(found, CLASS_NAMES)
    present = masks.any(axis=(2, 3))
    assert numbers["num_images"] == 18 and numbers["num_rows"] == 72
    assert list(numbers["present"].values()) == present.sum(axis=0).tolist()
    np.testing.assert_array_equal(numbers["cooccurrence"], present.T.astype(int) @ present)
    labels = present.sum(axis=1).tolist()
    assert numbers["labels_per_image"] == {n: labels.count(n) for n in range(5)}
    assert sum(numbers["combinations"].values()) == 18
    np.testing.assert_allclose(list(numbers["pixels"].values()), masks.mean(axis=(0, 2, 3)))
    areas = np.sort(masks.sum(axis=(2, 3)).ravel())
    tiny = areas[(areas > 0) & (areas < summary.TINY * SIZE[0] * SIZE[1])]
    assert [row["area"] for row in numbers["tiny"]] == tiny.tolist() and len(tiny)


def test_correlation_is_pearsons_and_none_where_a_class_never_varies(measured):
    *_, found = measured
    rows = found.rows.copy()
    rng = np.random.default_rng(3)
    present = rng.random((18, 4)) < 0.6
    present[:, 2] = True
    rows["area"] = present.ravel() * 7
    correlation = summary.summarize(dataclasses.replace(found, rows=rows), CLASS_NAMES)[
        "correlation"
    ]
    varying = [0, 1, 3]
    expected = np.corrcoef(present[:, varying].T)
    np.testing.assert_allclose(
        np.array(correlation, float)[np.ix_(varying, varying)], expected, atol=1e-4
    )
    assert correlation[2] == [None] * 4


def test_real_rows_equal_those_of_opencv():
    folder = real_data("clouds_native")
    table = annotations.read_csv(str(folder / "train.csv"), CLOUDS)
    found = statistics.measure(table, str(folder / "train_images"), CLOUDS)
    for row in found.rows.itertuples():
        encoded = table.set_index("filename").loc[row.filename, row[2]]
        mask = rle.decode(encoded, CLOUDS.mask_size, CLOUDS.mask_size).numpy()
        assert row.area == mask.sum()
        assert row.components == cv2.connectedComponents(mask, connectivity=8)[0] - 1
        if mask.any():
            assert [row.top, row.left, row.bottom, row.right] == _box(mask)
    for filename, images in found.rows.groupby("filename"):
        image = cv2.imread(str(folder / "train_images" / filename))
        is_gap = image.max(axis=2) <= 12
        assert images["gap"].iloc[0] == pytest.approx(is_gap.mean(), abs=0.01)
        assert images["brightness"].iloc[0] == pytest.approx(image[~is_gap].mean(), abs=2)
