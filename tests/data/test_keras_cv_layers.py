"""keras-cv's layers as augmentations. Lane two has no keras-cv and says so."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from shared_fixtures import LANE_ONE
from tensorflow.python.framework import config
from tensorflow.python.ops import stateful_random_ops

from clouds_tf.data import input_pipeline
from clouds_tf.data.augmentations import check_augmentation, find_augmentation
from clouds_tf.data.keras_cv_layers import _LAYERS, parse_layers
from clouds_tf.keras import keras

needs_keras_cv = pytest.mark.skipif(not LANE_ONE, reason="keras-cv works with TensorFlow 2.15")
MOVING = {"random_flip", "random_rotation", "random_shear", "random_translation", "random_zoom"}
FIXED = {"auto_contrast", "equalization"}  # nothing about them is random
SIZE = (48, 72)
SPEC = "keras_cv:random_translation,grid_mask"


def _example(noise=20):
    """An image with some noise, whose blue is bright where the first class is."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    wave = np.sin(x / 11) * np.cos(y / 9)
    image = np.stack([120 + 60 * wave, 90 + x, 40 + 150 * (wave > 0)], axis=-1)
    image += rng.uniform(-noise, noise, image.shape)
    mask = np.stack([wave > 0, wave > 0.5], axis=-1)
    return {"image": tf.constant(image, tf.uint8), "mask": tf.constant(mask, tf.uint8)}


@functools.lru_cache(maxsize=None)
def _traced(name):
    """A layer as a function, traced once for all tests."""
    return tf.function(find_augmentation(f"keras_cv:{name}"))


def _graph_operations(function):
    """The types of all operations of a concrete function and of those that it calls."""
    graph = function.graph.as_graph_def()
    nodes = [node for called in graph.library.function for node in called.node_def]
    return {node.op for node in (*graph.node, *nodes)}


def test_a_name_stands_for_layers_in_their_order():
    assert parse_layers("keras_cv") == ("random_flip", "rand_augment")
    assert parse_layers("keras_cv:grid_mask,random_hue") == ("grid_mask", "random_hue")


@pytest.mark.parametrize("spec", ["keras_cv:", "keras_cv:mix_up", "keras_cv:random_hue;grid_mask"])
def test_unknown_layers_are_refused(spec):
    with pytest.raises(ValueError, match="expected keras_cv, or .*grid_mask"):
        check_augmentation(spec)


@pytest.mark.slow
@needs_keras_cv
@pytest.mark.parametrize("name", _LAYERS)
def test_a_layer_depends_on_the_seed_alone(name):
    augment, example = _traced(name), _example()
    traced = augment.get_concrete_function(example, tf.TensorSpec([2], tf.int32))
    operations = _graph_operations(traced)
    assert not [op for op in operations if "Random" in op and not op.startswith("Stateless")]
    assert not operations & {"VarHandleOp", "ReadVariableOp", "RngReadAndSkip", "PyFunc"}
    found = [augment(example, tf.constant([seed, 1])) for seed in (*range(8), 0)]
    for key, before in example.items():
        assert found[0][key].dtype == tf.uint8 and found[0][key].shape == before.shape
        np.testing.assert_array_equal(found[0][key], found[-1][key])
    images = {each["image"].numpy().tobytes() for each in found}
    changed = images - {example["image"].numpy().tobytes()}
    assert len(changed) == 1 if name in FIXED else len(changed) > 2


@needs_keras_cv
@pytest.mark.parametrize("name", [name for name in _LAYERS if name != "rand_augment"])
def test_layers_that_move_pixels_move_the_mask(name):
    augment, example = _traced(name), _example(noise=0)
    moved = 0
    for seed in range(6):
        found = augment(example, tf.constant([seed, 2]))
        if name in MOVING:
            bright = found["image"][..., 2].numpy() > 115
            assert (bright == found["mask"][..., 0].numpy()).mean() > 0.97
        moved += not np.array_equal(found["mask"], example["mask"])
    assert moved > 2 if name in MOVING else moved == 0


@pytest.mark.slow
@needs_keras_cv
def test_deterministic_runs_have_them_too(monkeypatch):
    # As in a new process, where nobody has drawn anything yet.
    monkeypatch.setattr(stateful_random_ops, "global_generator", None)
    example = {"image": tf.zeros([8, 8, 3], tf.uint8), "mask": tf.zeros([8, 8, 2], tf.uint8)}
    tf.config.experimental.enable_op_determinism()
    try:
        augment = find_augmentation("keras_cv")
        dataset = tf.data.Dataset.range(3).map(lambda i: augment(example, tf.stack([i, i])), 2)
        assert len(list(dataset)) == 3
    finally:
        config.disable_op_determinism()


@needs_keras_cv
def test_factors_are_drawn_from_their_whole_range():
    augment = _traced("random_brightness")
    grey = {"image": tf.fill([4, 4, 3], tf.constant(128, tf.uint8)), "mask": _example()["mask"]}
    images = [augment(grey, tf.constant([seed, 3]))["image"] for seed in range(400)]
    shifts = np.array([float(image[0, 0, 0]) - 128 for image in images]) / 255
    assert np.abs(shifts).max() <= 0.151  # and half a step of 1/255, to which it is rounded
    # Uniform between -0.15 and 0.15: standard deviation 0.3 / sqrt(12).
    np.testing.assert_allclose([shifts.mean(), shifts.std()], [0, 0.0866], atol=0.015)


@needs_keras_cv
def test_the_precision_of_the_training_does_not_matter():
    example, seed = _example(), tf.constant([1, 4])
    expected = find_augmentation(SPEC)(example, seed)["image"]
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        found = find_augmentation(SPEC)(example, seed)["image"]
    finally:
        keras.mixed_precision.set_global_policy("float32")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
@needs_keras_cv
def test_batches_are_the_same_after_a_resume_on_two_workers(records_dir):
    def batches(**arguments):
        return list(
            input_pipeline.training_batches(
                records_dir, [0, 1, 2], SIZE, 5, 2, augmentation=SPEC, **arguments
            ).as_numpy_iterator()
        )

    undisturbed = batches()
    resumed = [
        batches(initial_epoch=1, initial_step=1, worker=worker, num_workers=2) for worker in (0, 1)
    ]
    assert [len(part) for part in resumed] == [2, 2]
    for expected, *parts in zip(undisturbed[-2:], *resumed):
        for whole, *several in zip(expected, *parts):
            np.testing.assert_array_equal(np.concatenate(several), whole)


@pytest.mark.skipif(LANE_ONE, reason="lane one has keras-cv")
def test_lane_two_says_which_augmentations_it_has():
    with pytest.raises(ValueError, match="keras_cv:.* needs TensorFlow 2.15.*strong work"):
        find_augmentation("keras_cv")
