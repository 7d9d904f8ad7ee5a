import cv2
import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.data import degradation
from clouds_tf.data.degradation import degrade

SIZE = (64, 96)


def _wave(period):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    return 128 + 60 * np.sin(2 * np.pi * x / period) * np.cos(2 * np.pi * y / period)


@pytest.fixture
def example():
    image = np.stack([_wave(48), _wave(48) * 0.8, _wave(24) * 0.9], axis=-1)
    image[:, 30:40] = 0  # the gap between two orbits
    return {"image": tf.constant(image, tf.uint8), "mask": tf.ones([*SIZE, 4], tf.uint8)}


def test_most_examples_change_and_the_gap_stays_black(example):
    changed = 0
    augment = tf.function(degrade, autograph=False)
    for seed in range(40):
        found = augment(example, tf.constant([seed, 1]))
        image, mask = found["image"].numpy(), found["mask"].numpy()
        assert image.dtype == mask.dtype == np.uint8 and image.shape == (*SIZE, 3)
        assert image[:, 32:38].mean() < 12  # JPEG and resampling blur its edges
        hidden = mask[..., 0] == 0
        assert (mask == np.where(hidden, 0, 1)[..., np.newaxis]).all()
        if hidden.any():
            assert image[hidden].mean() < 12
        changed += not np.array_equal(image, example["image"])
    assert 28 <= changed < 40  # all but (1/2)^2 (3/4)^3 of them


def test_shrinking_by_averages_is_opencv_s():
    fine = _wave(32)[..., np.newaxis]
    for scale in (1.0, 2.0):
        down_and_up = [
            degradation.resampling_matrix(n, tf.constant(scale), tf.constant(True), 0.5).numpy()
            for n in SIZE
        ]
        got = np.einsum("hi,wj,ijc->hwc", *down_and_up, fine)[..., 0]
        coarse = tuple(int(n / scale) for n in SIZE[::-1])
        shrunk = cv2.resize(fine[..., 0], coarse, interpolation=cv2.INTER_AREA)
        expected = cv2.resize(shrunk, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
        assert np.abs(got - expected)[4:-4, 4:-4].max() < 6
    for matrix in down_and_up:
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)


def test_single_pixels_are_rougher_than_averages():
    rng = np.random.default_rng(0)
    pixels = tf.constant(rng.uniform(0, 255, (*SIZE, 3)), tf.float32)

    def roughness(average):
        matrix = [
            degradation.resampling_matrix(n, tf.constant(2.0), tf.constant(average), 0.5)
            for n in SIZE
        ]
        return float(tf.math.reduce_std(tf.einsum("hi,wj,ijc->hwc", *matrix, pixels)))

    assert roughness(False) > 1.3 * roughness(True)


def test_colours_keep_to_their_bounds(example):
    image = tf.cast(example["image"], tf.float32)
    grey = 0
    for seed in range(60):
        found = degradation.recolour(image, [seed, 5]).numpy()
        assert found.min() >= -60 and np.isfinite(found).all()
        grey += np.ptp(found, axis=-1).max() < 25
    assert 10 <= grey <= 45


def test_strips_are_straight_and_of_any_direction():
    shares = []
    for seed in range(30):
        found = degradation.strip(SIZE, [seed, 2]).numpy()
        shares.append(found.mean())
        count, _ = cv2.connectedComponents(found.astype(np.uint8))
        assert count <= 2
    assert 0 < min(shares) and max(shares) < 0.5 and np.std(shares) > 0.03
