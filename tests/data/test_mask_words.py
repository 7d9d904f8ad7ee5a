import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.data import augmentation, mask_words

CLASSES = (1, 3, 4, 5, 17, 32)


def _masks(num_classes, seed=0):
    return np.random.default_rng(seed).integers(0, 2, (num_classes, 12, 18)).astype(np.uint8)


@pytest.mark.parametrize("num_classes", CLASSES)
def test_words_hold_four_classes_each(num_classes):
    mask = np.moveaxis(_masks(num_classes) * 255, 0, -1)
    words = mask_words.to_words(tf.constant(mask))
    assert [word.shape for word in words] == [(12, 18)] * -(-num_classes // 4)
    np.testing.assert_array_equal(mask_words.from_words(words, num_classes), mask)


@pytest.mark.parametrize("num_classes", CLASSES)
def test_every_class_is_augmented_as_it_is_alone(num_classes):
    image = tf.constant(np.random.default_rng(1).integers(0, 256, (12, 18, 3)).astype(np.uint8))
    mask = np.moveaxis(_masks(num_classes), 0, -1)
    example = {"image": image, "mask": tf.constant(mask)}
    places = augmentation.affine_places((12, 18), [3, 4])
    warped = augmentation.warp(example, places)["mask"].numpy()
    flipped = [augmentation.flips(example, [seed, 0])["mask"].numpy() for seed in range(3)]
    assert warped.shape == flipped[0].shape == mask.shape
    for i in range(num_classes):
        alone = {"image": image, "mask": tf.repeat(mask[..., i : i + 1], 4, axis=-1)}
        expected = augmentation.warp(alone, places)["mask"][..., 0]
        np.testing.assert_array_equal(warped[..., i], expected)
        for seed in range(3):
            expected = augmentation.flips(alone, [seed, 0])["mask"][..., 0]
            np.testing.assert_array_equal(flipped[seed][..., i], expected)
