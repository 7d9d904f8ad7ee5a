import cv2
import numpy as np
import pytest

from clouds_tf.models.losses import entropy


def _by_opencv(mask, w0=10.0, sigma=5.0):
    """Exact distances to each component, one transform for each."""
    number, labels = cv2.connectedComponents(mask, connectivity=8)
    distances = [
        cv2.distanceTransform((labels != i).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for i in range(1, number)
    ]
    if number < 3:
        return np.zeros(mask.shape)
    d1, d2 = np.sort(distances, axis=0)[:2].astype(np.float64)
    return w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))


@pytest.mark.parametrize("sigma", [1, 3, 5])
def test_weights_are_those_of_opencv(sigma):
    rng = np.random.default_rng(0)
    coarse = rng.random([2, 20, 30, 3]) > [0.98, 0.9, 0.8]
    mask = np.kron(coarse, np.ones([1, 2, 2, 1])).astype(np.uint8)
    mask[0, :, :, 0] = 0
    weights = entropy.separation_weights(mask, sigma=sigma).numpy()
    for image, c in np.ndindex(2, 3):
        expected = _by_opencv(mask[image, :, :, c].copy(), sigma=sigma)
        # Distances beyond 4 sigma are left out, and OpenCV's are good to .001 pixel.
        np.testing.assert_allclose(weights[image, :, :, c], expected, atol=10 / 2981 + 0.003)
    assert weights.max() > 0.1 and weights[0, ..., 0].max() == 0


def test_value_by_hand():
    # Two objects of a pixel, four pixels apart: in the middle the distances are 2 and 2.
    mask = np.zeros([1, 1, 5, 1], np.uint8)
    mask[0, 0, [0, 4]] = 1
    np.testing.assert_allclose(
        entropy.separation_weights(mask, w0=7, sigma=2),
        np.full(mask.shape, 7 * np.exp(-2)),
        rtol=1e-6,
    )
    value = entropy.distance_bce(mask, np.zeros(mask.shape), w0=7, sigma=2, base=3)
    np.testing.assert_allclose(value, [np.log(2) * (3 + 7 * np.exp(-2))], rtol=1e-6)


def test_objects_of_two_classes_do_not_know_each_other():
    mask = np.zeros([1, 1, 5, 2], np.uint8)
    mask[0, 0, 0, 0] = mask[0, 0, 4, 1] = 1
    np.testing.assert_array_equal(entropy.separation_weights(mask), np.zeros(mask.shape))


def test_a_wide_sigma_is_refused():
    with pytest.raises(ValueError, match="sigma: got 8, expected up to 7.75"):
        entropy.separation_weights(np.zeros([1, 2, 2, 1]), sigma=8)
