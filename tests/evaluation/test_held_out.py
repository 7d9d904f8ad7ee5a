import numpy as np
import pytest
import tensorflow as tf
from conftest import IMAGE_SIZE

from clouds_tf.data import input_pipeline
from clouds_tf.evaluation import held_out
from clouds_tf.evaluation.held_out import THRESHOLDS, count_pixels
from clouds_tf.serving.ensemble import mean_prediction
from clouds_tf.training import workdir as workdirs


def _by_hand(probabilities, masks):
    areas = np.stack([(probabilities > np.float32(t)).sum((1, 2)) for t in THRESHOLDS], -1)
    truth = masks.astype(bool)
    intersections = np.stack(
        [((probabilities > np.float32(t)) & truth).sum((1, 2)) for t in THRESHOLDS], -1
    )
    return areas, intersections, truth.sum((1, 2))


def test_counts_equal_those_of_one_threshold_after_the_other():
    rng = np.random.default_rng(0)
    probabilities = rng.random((3, 20, 30, 4), np.float32)
    # Values on a threshold, and at both ends, must fall on the same side as in post-processing.
    probabilities[0, 0, : len(THRESHOLDS), 0] = THRESHOLDS
    probabilities[1, 0, :2] = [[0], [1]]
    masks = (rng.random((3, 20, 30, 4)) < 0.3).astype(np.uint8)
    masks[2, ..., 1] = 0
    for function in (count_pixels, tf.function(count_pixels)):
        for found, expected in zip(function(probabilities, masks), _by_hand(probabilities, masks)):
            assert found.dtype == tf.int64
            np.testing.assert_array_equal(found, expected)


def test_every_image_is_predicted_by_the_models_that_held_it_out(make_workdir, records_dir):
    folders = [make_workdir(0, seed=0), make_workdir(0, (32, 64), seed=1), make_workdir(2, seed=2)]
    counts = held_out.collect(records_dir, folders, batch_size=2)
    num_first = input_pipeline.count_examples(records_dir, [0])
    num_second = input_pipeline.count_examples(records_dir, [2])
    assert counts.folds.tolist() == [0] * num_first + [2] * num_second

    models = [workdirs.load_model(folder) for folder in folders]
    streams = [
        next(iter(input_pipeline.validation_batches(records_dir, [fold], size, 12)))
        for fold, size in ((0, IMAGE_SIZE), (0, (32, 64)), (2, IMAGE_SIZE))
    ]
    first, _ = mean_prediction(models[:2], [images for images, _ in streams[:2]])
    second, _ = mean_prediction(models[2:], [streams[2][0]])
    expected = [
        np.concatenate(pair)
        for pair in zip(
            _by_hand(first.numpy(), streams[0][1].numpy()),
            _by_hand(second.numpy(), streams[2][1].numpy()),
        )
    ]
    np.testing.assert_array_equal(counts.truths, expected[2])
    # A probability within rounding of a threshold may fall on either side.
    np.testing.assert_allclose(counts.areas, expected[0], atol=20)
    np.testing.assert_allclose(counts.intersections[..., 0], expected[1], atol=20)
    np.testing.assert_array_equal(counts.mask_areas[..., 0], counts.areas)
    highest = np.concatenate([first, second]).max((1, 2))
    np.testing.assert_allclose(counts.presence, highest, atol=1e-4)


def test_flips_at_test_time_change_the_prediction(make_workdir, records_dir):
    folder = make_workdir(1)
    plain = held_out.collect(records_dir, [folder])
    flipped = held_out.collect(records_dir, [folder], test_time_augmentation="flips")
    np.testing.assert_array_equal(plain.truths, flipped.truths)
    assert (plain.areas != flipped.areas).any()


def test_workdirs_of_other_records_are_refused(make_workdir, tmp_path):
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(ValueError, match="trained on records with the fingerprint"):
        held_out.collect(str(tmp_path), [make_workdir()])
