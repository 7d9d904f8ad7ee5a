import dataclasses
import json

import numpy as np
import pytest
import scipy.spatial.distance
import tensorflow as tf

from clouds_tf.prediction.likeness import UNLIKE, Likeness, statistics, unlike_warning

SIZE = (48, 72)


@pytest.fixture(scope="module")
def images():
    """Bright, smooth fields over a dark blue ground, 300 of them."""
    rng = np.random.default_rng(0)
    distance = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) * n for n in SIZE), indexing="ij")) + 1
    spectra = np.fft.fft2(rng.normal(size=(300, *SIZE))) * distance ** -rng.uniform(
        1, 1.5, (300, 1, 1)
    )
    fields = np.fft.ifft2(spectra).real
    fields /= fields.std(axis=(1, 2), keepdims=True)
    clouds = np.clip(fields - rng.normal(0, 0.3, (300, 1, 1)), 0, 2)[..., np.newaxis]
    bright = rng.normal(80, 8, (300, 1, 1, 1))
    return np.clip([20, 40, 70] + clouds * bright, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def likeness(images):
    return Likeness.fit(statistics(images[:200]).numpy(), SIZE)


def test_distances_are_those_of_scipy(images):
    found = statistics(images).numpy().astype(np.float64)
    found = found[:, found.std(axis=0) > 0.05]
    likeness = Likeness.fit(found, SIZE)
    # Mahalanobis' distance, with 0.05 of each variance added to the diagonal.
    covariance = np.cov(found.T, bias=True)
    inverse = np.linalg.inv(covariance + 0.05 * np.diag(np.diag(covariance)))
    mean = found.mean(axis=0)
    expected = [scipy.spatial.distance.mahalanobis(row, mean, inverse) ** 2 for row in found]
    got = np.sum(((found - likeness.mean) @ np.array(likeness.transform)) ** 2, axis=1)
    np.testing.assert_allclose(got, expected, rtol=0.02)


def test_what_is_not_a_cloud_image_is_unlike(images, likeness):
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (8, *SIZE, 3), np.uint8)
    night = (images[:8] * 0.08).astype(np.uint8)
    for strange in (noise, night, 255 - images[:8], np.full_like(noise, 128)):
        assert (likeness(strange) < UNLIKE).numpy().all()
    found = likeness(images[200:]).numpy()  # of the same kind, and new: uniform
    assert ((found >= 0) & (found <= 1)).all() and (found < UNLIKE).mean() < 0.05
    np.testing.assert_allclose(np.quantile(found, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.2)


def test_a_black_gap_and_other_shapes_hardly_matter(images):
    plain = statistics(images).numpy()
    hidden = images.copy()
    hidden[:, :, 20:40] = 0
    change = (statistics(hidden).numpy() - plain) / np.maximum(plain.std(axis=0), 0.05)
    # The coarsest scale has two rows of three here.
    assert np.abs(np.median(change, axis=0))[:-2].max() < 1
    upside_down = statistics(images[:, ::-1, ::-1]).numpy()
    np.testing.assert_allclose(upside_down[:, :8], plain[:, :8], rtol=1e-3, atol=1e-3)


def test_it_is_the_same_in_graphs_and_after_json(images, likeness):
    read = Likeness.from_json(json.loads(json.dumps(likeness.to_json())))
    assert read == likeness
    eager = read(images[:5])
    function = tf.function(read)(tf.constant(images[:5]))
    dataset = tf.data.Dataset.from_tensor_slices(images[:5]).batch(5).map(read)
    for other in (function, next(iter(dataset))):
        np.testing.assert_allclose(other, eager, atol=1e-6)
    assert likeness(images[:0]).shape == (0,)
    assert np.isfinite(statistics(np.zeros([1, *SIZE, 3], np.uint8))).all()
    assert np.isfinite(statistics(images[:2, :, :, :1])).all()


def test_damaged_and_missing_numbers_are_noticed(likeness):
    shorter = {**likeness.to_json(), "mean": "1.0 2.0"}
    with pytest.raises(ValueError, match="likeness: .*do not match"):
        Likeness.from_json(shorter)
    with pytest.raises(ValueError, match="likeness: got 1 image"):
        Likeness.fit(np.zeros([1, 5]), SIZE)
    assert dataclasses.replace(likeness, distances=(1e9,)) != likeness


def test_the_warning_names_the_worst():
    text = unlike_warning({"a.jpg": 0.5, "b.jpg": 0.005, "c.jpg": 0.0, "d.jpg": None}, "image")
    assert text.startswith("2 images of 4 do not look") and "c.jpg (likeness 0.000" in text
    assert unlike_warning({"a.jpg": UNLIKE}, "image") == ""
