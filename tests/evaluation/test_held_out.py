import numpy as np
import pytest
import stubs
import tensorflow as tf
from sample import SMALL, member
from sample import small_records as _small_records
from shared_fixtures import IMAGE_SIZE

from clouds_tf.data.records import Records
from clouds_tf.evaluation.counts import EDGES, HUNDREDTHS, Counts, _histogram, above
from clouds_tf.evaluation.held_out import HeldOut, load_members
from clouds_tf.prediction import engine
from clouds_tf.prediction.ensemble import mean_prediction
from clouds_tf.training import workdir as workdirs


def _by_hand(probabilities, masks):
    areas = np.stack([(probabilities > np.float32(t)).sum((1, 2)) for t in HUNDREDTHS], -1)
    truth = masks.astype(bool)
    intersections = np.stack(
        [((probabilities > np.float32(t)) & truth).sum((1, 2)) for t in HUNDREDTHS], -1
    )
    return areas, intersections, truth.sum((1, 2))


def test_counts_equal_those_of_one_threshold_after_the_other():
    rng = np.random.default_rng(0)
    probabilities = rng.random((3, 20, 30, 4), np.float32)
    # Values on a threshold, and at both ends, must fall on the same side as in post-processing.
    probabilities[0, :9, :11, 0] = np.reshape(HUNDREDTHS, (9, 11))
    probabilities[1, 0, :2] = [[0], [1]]
    masks = (rng.random((3, 20, 30, 4)) < 0.3).astype(np.uint8)
    masks[2, ..., 1] = 0
    areas, intersections, truths = _by_hand(probabilities, masks)
    for function in (_histogram, tf.function(_histogram)):
        found = function(probabilities, masks)
        assert found.dtype == tf.int32 and found.shape == (3, 4, 2, len(EDGES) + 1)
        counts = Counts(found.numpy(), None, None, None)
        np.testing.assert_array_equal(counts.intersections, intersections)
        np.testing.assert_array_equal(counts.areas, areas)
        np.testing.assert_array_equal(counts.truths, truths)
    assert above(np.array([3, 4, 5])).tolist() == [12, 9, 5, 0]


def test_the_histogram_is_that_of_numpy():
    probabilities = np.random.default_rng(0).random((2, 30, 40, 3)) ** 3
    masks = np.uint8(probabilities > 0.4)
    found = _histogram(np.float32(probabilities), masks).numpy()
    for b, c in np.ndindex(2, 3):
        for truth in (0, 1):
            some = probabilities[b, :, :, c][masks[b, :, :, c] == truth]
            expected, _ = np.histogram(some, [0, *EDGES, 1])
            np.testing.assert_array_equal(found[b, c, truth], expected)


@pytest.fixture(scope="module")
def folders(make_workdir):
    return [make_workdir(0, seed=0), make_workdir(0, (32, 64), seed=1), make_workdir(2, seed=2)]


@pytest.mark.slow
def test_workdirs_are_loaded_by_the_fold_that_they_held_out(folders, records_dir):
    members = load_members(Records.open(records_dir), [folders[2], *folders[:2]])
    assert list(members) == [0, 2]
    assert [member.image_size for member in members[0]] == [IMAGE_SIZE, (32, 64)]
    for folder, found in ((folders[1], members[0][1]), (folders[2], members[2][0])):
        images = np.random.default_rng(0).integers(0, 256, (1, *found.image_size, 3), np.uint8)
        trained = workdirs.Run.open(folder).load_model()
        answers = found.network(images), trained(images, training=False)
        probabilities = [tf.sigmoid(answer["logits"]) for answer in answers]
        np.testing.assert_allclose(*probabilities, atol=1e-4)


small_records = _small_records


@pytest.fixture(scope="module")
def members():
    """Models of two sizes that held out fold 0, and one that held out fold 2."""
    return {0: [member(IMAGE_SIZE), member((32, 64), 1)], 2: [member(IMAGE_SIZE, 2)]}


@pytest.mark.slow
def test_every_image_is_predicted_by_the_models_that_held_it_out(members, small_records):
    counts = HeldOut(small_records, members, 2).count()
    num_first = small_records.info.count([0])
    num_second = small_records.info.count([2])
    assert counts.folds.tolist() == [0] * num_first + [2] * num_second

    models = [stubs.network(seed=seed) for seed in range(3)]
    streams = [
        next(iter(small_records.held_out_batches([fold], size, 12)))
        for fold, size in ((0, IMAGE_SIZE), (0, (32, 64)), (2, IMAGE_SIZE))
    ]
    size = SMALL.submission_size
    first, _ = mean_prediction(models[:2], [images for images, _ in streams[:2]], size)
    second, _ = mean_prediction(models[2:], [streams[2][0]], size)
    expected = [
        np.concatenate(pair)
        for pair in zip(
            _by_hand(first.numpy(), streams[0][1].numpy()),
            _by_hand(second.numpy(), streams[2][1].numpy()),
        )
    ]
    np.testing.assert_array_equal(counts.truths, expected[2])
    # A probability within rounding of a threshold may fall on either side.
    np.testing.assert_allclose(counts.areas, expected[0], atol=2)
    np.testing.assert_allclose(counts.intersections, expected[1], atol=2)
    pixels = np.sort(np.concatenate([first, second]).reshape(len(counts.folds), -1, 4), axis=1)
    np.testing.assert_allclose(counts.presence, pixels[:, -1], atol=1e-4)
    np.testing.assert_allclose(counts.top_means, pixels[:, -37:].mean(1), atol=1e-4)  # 0.5 %


@pytest.mark.slow
def test_flips_and_chosen_places(members, small_records):
    members = {1: members[2]}  # as if it had held out another fold
    held_out = HeldOut(small_records, members)
    plain, flipped = held_out.count(), held_out.count("flips")
    np.testing.assert_array_equal(plain.truths, flipped.truths)
    assert (plain.areas != flipped.areas).any()

    _, masks, probabilities, _ = next(held_out.predict(1))
    images, chosen_masks, chosen, presence = next(held_out.predict(1, places=[1, 3]))
    assert images[0].shape == (2, *IMAGE_SIZE, 3) and presence.shape == (2, 4)
    np.testing.assert_array_equal(chosen_masks, masks.numpy()[[1, 3]])
    np.testing.assert_allclose(chosen, probabilities.numpy()[[1, 3]], atol=1e-4)


def test_workdirs_of_other_records_are_refused(folders, small_records):
    with pytest.raises(ValueError, match="trained on records with the fingerprint"):
        load_members(small_records, folders)


def test_the_same_workdir_twice_is_refused(folders, records_dir, tmp_path):
    link = tmp_path / "another_name"
    link.symlink_to(folders[0])
    with pytest.raises(ValueError, match="another_name: given 2 times, expected once"):
        load_members(Records.open(records_dir), [str(link), folders[1], folders[0]])


@pytest.mark.slow
def test_five_folds_do_not_make_tensorflow_warn_of_retracing(members, small_records, caplog):
    with caplog.at_level("WARNING", logger="tensorflow"):
        for way in ("none", "flips"):
            HeldOut(small_records, dict.fromkeys((0, 1, 2), members[2]), 2).count(way)
    assert not [record.message for record in caplog.records if "retracing" in record.message]


def test_progress_counts_the_images(members, small_records):
    told = []
    held_out = HeldOut(small_records, members, 3)
    counts = held_out.count(progress=lambda done, total: told.append((done, total)))
    total = len(counts.folds)
    assert told[-1] == (total, total) and {t for _, t in told} == {total}
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    with pytest.raises(ValueError, match="no images in the folds"):
        HeldOut(small_records, {}).count()


@pytest.mark.slow
def test_openvino_counts_nearly_the_same_pixels(members, small_records):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    both = HeldOut(small_records, {0: members[2], 2: members[2]})
    converted, remarks = both.on_openvino()
    networks = [some[0].network for some in converted.members.values()]
    assert not remarks and isinstance(networks[0], engine.OpenVINONetwork)
    assert networks[0] is networks[1]
    counts, expected = converted.count(), both.count()
    np.testing.assert_array_equal(counts.truths, expected.truths)
    assert np.abs(counts.areas - expected.areas).mean() < 0.01 * 70 * 105


def test_where_openvino_dies_tensorflow_predicts_and_a_remark_says_so(
    members, small_records, monkeypatch
):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    monkeypatch.setattr(engine, "_TRIAL", "no such program")
    held_out = HeldOut(small_records, members)
    found, (remark,) = held_out.on_openvino()
    assert found is held_out
    assert remark.startswith("OpenVINO ") and remark.endswith("; TensorFlow was used instead.")
