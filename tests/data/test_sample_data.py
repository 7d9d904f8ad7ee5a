import csv
import os
import re

import numpy as np
import pytest
import tensorflow as tf

from clouds_tf import rle
from clouds_tf.data import annotations, sample_data
from clouds_tf.dataset import CLOUDS

SIZE = (70, 105)
EVERYWHERE = np.array([[0.0, 0.0, 1400.0, 2100.0]])
NO_GAP = np.zeros((2, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "data"
    sample_data.write_sample_data(str(path), num_train=3, num_test=2, image_size=SIZE, seed=7)
    return path


def read_tree(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def draw_scene(seed):
    return sample_data._draw_scene(np.random.default_rng(seed))


def render(seed, boxes, gap=NO_GAP, size=(128, 192)):
    scene = sample_data._Scene(boxes, gap)
    return sample_data._render_image(np.random.default_rng(seed), scene, size)


@pytest.mark.parametrize(
    "table, images, num_images", [("train.csv", "train_images", 3), ("test.csv", "test_images", 2)]
)
def test_tables_name_each_image_and_class_in_order(folder, table, images, num_images):
    names = sorted(os.listdir(folder / images))
    assert len(names) == num_images
    assert all(re.fullmatch("[0-9a-f]{7}[.]jpg", name) for name in names)
    header, *rows = read_rows(folder / table)
    assert header == ["Image_Label", "EncodedPixels"]
    assert [label for label, _ in rows] == [
        f"{name}_{c}" for name in names for c in ("Fish", "Flower", "Gravel", "Sugar")
    ]


def test_folder_holds_the_files_of_the_competition_and_the_truth(folder):
    assert sorted(os.listdir(folder)) == [
        "sample_submission.csv",
        "test.csv",
        "test_images",
        "train.csv",
        "train_images",
    ]
    sample = read_rows(folder / "sample_submission.csv")
    assert [label for label, _ in sample] == [label for label, _ in read_rows(folder / "test.csv")]
    assert {encoded for _, encoded in sample[1:]} == {"1 1"}


def test_images_have_the_size_asked_for(folder):
    for path in folder.glob("*_images/*"):
        assert tuple(tf.io.extract_jpeg_shape(path.read_bytes())) == (*SIZE, 3)


def test_rle_is_the_full_size_mask_of_the_scene(folder):
    table = annotations.read_csv(str(folder / "train.csv"), CLOUDS).set_index("filename")
    for index in range(3):
        encoded = table.loc[sample_data._make_filename(7, 0, index), list(CLOUDS.class_names)]
        masks = rle.decode(encoded.tolist(), CLOUDS.mask_size, CLOUDS.mask_size)
        expected = sample_data._make_masks(draw_scene((7, 0, index)), CLOUDS.mask_size)
        np.testing.assert_array_equal(masks, expected)


def test_same_seed_same_bytes(folder, tmp_path):
    # An empty folder may be there already, and a trailing slash does no harm.
    sample_data.write_sample_data(f"{tmp_path}/", num_train=3, num_test=2, image_size=SIZE, seed=7)
    assert read_tree(tmp_path) == read_tree(folder)
    remote = "ram://sample/data/"
    sample_data.write_sample_data(remote, num_train=3, num_test=2, image_size=SIZE, seed=7)
    for name, content in read_tree(folder).items():
        with tf.io.gfile.GFile(remote + name, "rb") as file:
            assert file.read() == content, name
    assert tf.io.gfile.listdir("ram://sample") == ["data"]


def test_an_image_depends_on_neither_its_number_of_neighbours_nor_another_seed(folder, tmp_path):
    before = read_tree(folder)
    for seed, same in ((7, True), (8, False)):
        path = tmp_path / str(seed)
        sample_data.write_sample_data(str(path), 1, 1, SIZE, seed)
        images = {k: v for k, v in read_tree(path).items() if k.endswith(".jpg")}
        assert len(images) == 2
        assert (images.items() <= before.items()) is same
        assert bool(set(images.values()) & set(before.values())) is same


def test_file_names_never_collide():
    names = {sample_data._make_filename(0, split, i) for split in (0, 1) for i in range(20000)}
    assert len(names) == 40000


def test_labels_have_the_proportions_of_the_competition():
    rng = np.random.default_rng(0)
    drawn = [sample_data._draw_scene(rng).boxes for _ in range(5000)]
    presence = np.array([[name in boxes for name in CLOUDS.class_names] for boxes in drawn])
    expected = np.array([2781, 2365, 2939, 3751]) / 5546
    np.testing.assert_allclose(presence.mean(axis=0), expected, atol=0.025)
    counts = np.bincount(presence.sum(axis=1), minlength=5) / len(drawn)
    np.testing.assert_allclose(counts, np.array([0, 1348, 2372, 1560, 266]) / 5546, atol=0.025)


def test_present_classes_have_masks_of_a_realistic_area():
    scenes = [draw_scene(seed) for seed in range(300)]
    masks = np.array([sample_data._make_masks(scene, SIZE) for scene in scenes])
    assert masks.dtype == np.uint8 and masks.max() == 1
    present = np.array([[name in s.boxes for name in CLOUDS.class_names] for s in scenes])
    np.testing.assert_array_equal(masks.any(axis=(2, 3)), present)
    # Of the real images, a mask that is not empty covers 0.25 to 0.32, depending on the class.
    assert 0.22 < masks[present].mean() < 0.35
    overlaps = (masks.sum(axis=1) > 1).any(axis=(1, 2))
    assert 0.3 < overlaps.mean() < 0.9


def test_the_gap_is_black_and_unlabelled():
    shares = []
    for seed in range(10):
        boxes = {name: EVERYWHERE for name in CLOUDS.class_names}
        gap = draw_scene(seed).gap
        black = (render(seed, boxes, gap, SIZE) == 0).all(axis=-1)
        for mask in sample_data._make_masks(sample_data._Scene(boxes, gap), SIZE):
            np.testing.assert_array_equal(mask, ~black)
        shares.append(black.mean())
    assert 0.09 < np.mean(shares) < 0.13


def describe(image):
    """Brightness, contrast, and how much of the contrast is between neighbours."""
    grey = image.mean(axis=-1)
    return grey.mean(), grey.std(), np.abs(np.diff(grey)).mean() / grey.std()


def test_textures_differ():
    described = np.array(
        [
            [describe(render(seed, {name: EVERYWHERE})) for seed in range(6)]
            for name in CLOUDS.class_names
        ]
    )
    described /= described.std(axis=(0, 1))
    centers = described[:, :3].mean(axis=1)
    distance = np.linalg.norm(described[:, 3:, None] - centers, axis=-1)
    expected = np.broadcast_to(np.arange(4)[:, None], (4, 3))
    np.testing.assert_array_equal(distance.argmin(axis=-1), expected)


@pytest.mark.parametrize("name", CLOUDS.class_names)
def test_clouds_lie_where_they_are_labelled(name):
    boxes = {name: np.array([[300.0, 400.0, 1100.0, 1700.0]])}
    label = sample_data._make_masks(sample_data._Scene(boxes, NO_GAP), (128, 192)).any(axis=0)
    # The same seed without clouds is the same sea.
    clouds = (render(0, boxes).astype(float) - render(0, {})).mean(axis=-1)
    assert clouds[label].mean() > 10
    assert clouds[~label].mean() < 0.1 * clouds[label].mean()


def test_the_scene_is_the_same_at_every_size():
    scene = draw_scene(3)
    small = render(3, scene.boxes, scene.gap, size=SIZE)
    large = render(3, scene.boxes, scene.gap, size=(280, 420))
    reduced = tf.image.resize(large, SIZE, antialias=True).numpy()
    assert np.abs(reduced - small).mean() < 3


@pytest.mark.parametrize("taken", ["data/notes.txt", "data"])
def test_what_exists_is_refused_and_left_alone(tmp_path, taken):
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("mine")
    with pytest.raises(ValueError, match=f"{tmp_path}/data: already exists"):
        sample_data.write_sample_data(str(tmp_path / "data"), 1, 1, SIZE)
    assert read_tree(tmp_path) == {taken: b"mine"}


def test_an_interrupted_run_leaves_nothing(tmp_path):
    written = []

    def interrupt(done, total):
        written.extend(tmp_path.rglob("*.jpg"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_data.write_sample_data(str(tmp_path / "data"), 1, 1, SIZE, progress=interrupt)
    assert len(written) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "argument, message",
    [
        ({"num_train": 0}, "num_train: got 0, expected at least 1"),
        ({"num_test": 0}, "num_test: got 0, expected at least 1"),
        ({"image_size": (0, 105)}, "image_size: got 0, expected at least 1"),
        ({"seed": -1}, "seed: got -1, expected at least 0"),
    ],
)
def test_arguments_out_of_range(tmp_path, argument, message):
    with pytest.raises(ValueError, match=message):
        sample_data.write_sample_data(str(tmp_path / "data"), **argument)
    assert not list(tmp_path.iterdir())
