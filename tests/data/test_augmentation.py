import cv2
import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from clouds_tf.data import augmentation
from clouds_tf.data.augmentation import flips
from clouds_tf.data.augmentations import AUGMENTATIONS
from clouds_tf.data.mixing import cutmix, mixup


def _example():
    """Image and mask that carry the position of every pixel."""
    position = np.arange(4 * 6, dtype=np.uint8).reshape(4, 6, 1)
    return {"image": tf.tile(position, [1, 1, 3]), "mask": tf.tile(position, [1, 1, 4])}


def _choice(image):
    """Which flips were done, read off the pixels."""
    return bool(image[0, 0, 0] // 6), bool(image[0, 0, 0] % 6)


def test_image_and_mask_move_together():
    choices = set()
    for seed in range(40):
        flipped = flips(_example(), [seed, 0])
        down, across = _choice(flipped["image"].numpy())
        expected = _example()["image"].numpy()[:: -1 if down else 1, :: -1 if across else 1]
        np.testing.assert_array_equal(flipped["image"], expected)
        np.testing.assert_array_equal(flipped["mask"][..., 0], expected[..., 0])
        choices.add((down, across))
    assert len(choices) == 4


@pytest.mark.slow
def test_each_flip_is_made_half_the_time():
    seeds = tf.data.Dataset.range(2000).map(lambda i: tf.stack([i, 0]))
    shown = seeds.map(lambda seed: flips(_example(), seed)["image"])
    choices = np.array([_choice(image) for image in shown.as_numpy_iterator()])
    np.testing.assert_allclose(choices.mean(axis=0), 0.5, atol=0.05)
    assert abs(np.corrcoef(choices.T)[0, 1]) < 0.08


def test_the_same_seed_flips_alike_everywhere():
    eager = flips(_example(), [5, 7])
    function = tf.function(flips)(_example(), tf.constant([5, 7]))
    dataset = tf.data.Dataset.from_tensors(_example()).map(lambda x: flips(x, [5, 7]))
    for other in (function, next(iter(dataset))):
        np.testing.assert_array_equal(other["image"], eager["image"])
        np.testing.assert_array_equal(other["mask"], eager["mask"])
    assert dataset.element_spec["mask"] == tf.TensorSpec([4, 6, 4], tf.uint8)


def test_the_given_example_is_left_alone():
    example = _example()
    before = dict(example)
    flips(example, [1, 2])
    assert example.keys() == before.keys() and example["image"] is before["image"]


def _smooth(size=(64, 96)):
    """A smooth image, and masks that are 1 where its first colour is above each quarter."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    wave = 128 + 100 * np.sin(x / 11) * np.cos(y / 9)
    image = np.stack([wave, 255 - wave, 40 + x], axis=-1)
    mask = np.stack([wave > 64 * (i + 1) - 32 for i in range(4)], axis=-1)
    return {"image": tf.constant(image, tf.uint8), "mask": tf.constant(mask, tf.uint8)}


def _matrix(places):
    """The affine map (x, y, 1) -> place, read off three corners."""
    origin = places[:, 0, 0]
    return np.stack([places[:, 0, 1] - origin, places[:, 1, 0] - origin, origin], axis=1)


def test_the_warp_equals_opencv():
    example = _smooth()
    for seed in range(5):
        places = augmentation.affine_places((64, 96), [seed, 1])
        image, mask = augmentation.warp(example, places).values()
        how = {"M": _matrix(places.numpy()), "dsize": (96, 64)}
        inverse = cv2.WARP_INVERSE_MAP
        expected = cv2.warpAffine(example["image"].numpy(), flags=cv2.INTER_LINEAR | inverse, **how)
        difference = np.abs(image.numpy().astype(int) - expected)
        # OpenCV rounds places to 1/32 pixel.
        assert difference.mean() < 1 and np.quantile(difference, 0.98) <= 6
        expected = cv2.warpAffine(example["mask"].numpy(), flags=cv2.INTER_NEAREST | inverse, **how)
        assert (mask.numpy() != expected).mean() < 0.01


def test_shift_scale_and_rotation_keep_to_their_bounds():
    for seed in range(50):
        (a, b, _), (c, d, _) = _matrix(augmentation.affine_places((64, 96), [seed, 2]).numpy())
        assert abs(np.degrees(np.arctan2(b, a))) <= 45.1
        assert 0.849 <= 1 / np.hypot(a, b) <= 1.151
        np.testing.assert_allclose([a, b], [d, -c], atol=1e-4)


@pytest.mark.lanes
@pytest.mark.slow
@pytest.mark.parametrize("name", ["baseline", "strong"])
def test_image_and_mask_are_warped_alike(name):
    example = _smooth()
    augment = tf.function(AUGMENTATIONS[name])
    changed = 0
    for seed in range(12):
        # The image is its own mask: what says 200 in one must say 1 in the other.
        twin = {"image": tf.repeat(example["mask"][..., :1] * 200, 3, -1), "mask": example["mask"]}
        found = augment(twin, tf.constant([seed, 3]))
        assert found["image"].dtype == found["mask"].dtype == tf.uint8
        assert found["mask"].shape == (64, 96, 4)
        bright = found["image"][..., 1].numpy() > 75
        assert (bright == found["mask"][..., 0].numpy()).mean() > 0.93
        changed += not np.array_equal(found["mask"], example["mask"])
    assert changed > 6


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[pytest.mark.slow] * (x == "robust")) for x in AUGMENTATIONS]
)
def test_the_same_seed_gives_the_same_pixels_whatever_the_parallelism(name):
    # Rewriting it by AutoGraph, which no training does, takes longest of all.
    example, augment = _smooth(), tf.autograph.experimental.do_not_convert(AUGMENTATIONS[name])
    seeds = tf.data.Dataset.range(8).map(lambda i: tf.stack([i, i + 1]))

    def images(parallel):
        dataset = seeds.map(lambda seed: augment(example, seed), num_parallel_calls=parallel)
        return [x["image"].tobytes() for x in dataset.as_numpy_iterator()]

    at_once = images(4)
    assert images(1) == at_once
    assert len(set(at_once)) >= {"none": 1, "flips": 3}.get(name, 7)


@pytest.mark.parametrize("flipped", [(False, False), (True, False), (False, True), (True, True)])
def test_flipped_places_show_the_mirror_image(flipped):
    example = _smooth()
    axes = [axis for axis in (0, 1) if flipped[axis]]
    mirror = {name: tf.reverse(x, axes) for name, x in example.items()}
    places = augmentation.affine_places((64, 96), [3, 1])
    expected = augmentation.warp(mirror, places)
    found = augmentation.warp(example, augmentation._flip_places(places, tf.constant(flipped)))
    # Places are rounded to 1/256 pixel, up in the one and down in the other.
    difference = np.abs(found["image"].numpy().astype(int) - expected["image"].numpy())
    assert difference.max() <= 2
    assert (found["mask"].numpy() != expected["mask"].numpy()).mean() < 0.01


@hypothesis.given(
    st.integers(0, 2**31 - 1), st.sampled_from([0.0, 1.0]), st.sampled_from([0.25, 0.5])
)
def test_bending_never_folds(seed, strength, max_shift):
    places = augmentation.affine_places((64, 96), [seed, 3], strength)
    if not strength:
        np.testing.assert_allclose(places[:, 5, 7], [7, 5], atol=1e-4)
    bent = augmentation.bend(places, [seed, 4], max_shift=max_shift).numpy()
    assert np.abs(bent - places).max() > 1
    right, down = np.diff(bent, axis=2), np.diff(bent, axis=1)
    for rows, columns in ((slice(None, -1), slice(None, -1)), (slice(1, None), slice(1, None))):
        (a, b), (c, d) = right[:, rows], down[:, :, columns]
        assert (a * d - b * c).min() > 0  # of both triangles of each cell


def test_cutout_empties_one_rectangle_of_both():
    example = {
        "image": tf.fill([64, 96, 3], tf.constant(9, tf.uint8)),
        "mask": tf.ones([64, 96, 4], tf.uint8),
    }
    still = augmentation.affine_places((64, 96), [0, 0], 0.0)
    image, mask = augmentation.warp(example, augmentation.cutout(still, [1, 5])).values()
    empty = mask.numpy()[..., 0] == 0
    rows, columns = empty.any(axis=1), empty.any(axis=0)
    assert 0 < rows.sum() <= 24 and 0 < columns.sum() <= 35
    assert (empty == rows[:, None] & columns).all()
    np.testing.assert_array_equal(image.numpy()[..., 0], 9 * ~empty)


def test_colours_change_smoothly_and_black_stays_black():
    ramp = tf.tile(tf.range(256)[tf.newaxis, :, tf.newaxis], [2, 1, 3])
    for seed in range(20):
        found = augmentation.photometric(tf.cast(ramp, tf.uint8), [seed, 6]).numpy().astype(int)
        assert (found[:, 0] == 0).all() and (np.diff(found, axis=1) >= 0).all()


@pytest.mark.lanes
def test_mixup_blends_and_cutmix_pastes():
    images = tf.cast(tf.random.stateless_uniform([6, 8, 10, 3], [1, 2], 0, 256, tf.int32), tf.uint8)
    masks = tf.cast(images[..., :1] > 99, tf.uint8) * tf.ones([4], tf.uint8)
    mixed, soft = mixup(images, masks, [3, 4], alpha=1.0)
    before = tf.cast(tf.roll(images, 1, axis=0), tf.float32)
    for i in range(6):
        pixels, other = tf.cast(images[i], tf.float32).numpy(), before[i].numpy()
        share = ((mixed[i] - other) / (pixels - other)).numpy()[pixels != other]
        np.testing.assert_allclose(share, share[0], atol=1e-2)
        assert 0 <= share[0] <= 1
    assert soft.dtype == tf.float32 and 0 <= soft.numpy().min() and soft.numpy().max() <= 1

    pasted, hard = (x.numpy() for x in cutmix(images, masks, [3, 4]))
    same = (pasted == images.numpy()).all(axis=-1)
    assert (same | (pasted == np.roll(images, 1, axis=0)).all(axis=-1)).all()
    assert 0 < same.mean() < 1
    np.testing.assert_array_equal(hard[..., 0], pasted[..., 0] > 99)


def test_cutmix_pastes_as_much_as_its_paper_has_it():
    """The side is the root of a uniform share u; cut at the border, u - u^1.5 / 2 + u^2 / 16."""
    images = tf.tile(tf.reshape([0, 255], [2, 1, 1, 1]), [1500, 16, 24, 1])
    images = tf.cast(images, tf.uint8)
    pasted, _ = cutmix(images, images, [5, 6])
    share = np.mean(pasted.numpy() != images.numpy(), axis=(1, 2, 3))
    assert share.mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.015)
