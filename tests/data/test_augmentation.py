import numpy as np
import tensorflow as tf

from clouds_tf.data.augmentation import flips


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


def test_each_flip_is_made_half_the_time():
    seeds = tf.stack([tf.range(2000), tf.zeros(2000, tf.int32)], axis=1)
    images = tf.map_fn(
        lambda seed: flips(_example(), seed)["image"], seeds, fn_output_signature=tf.uint8
    )
    choices = np.array([_choice(image) for image in images.numpy()])
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
