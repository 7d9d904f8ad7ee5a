
import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import tensorflow as tf
from shared_fixtures import NUM_DEVICES

from clouds_tf.dataset import CLOUDS
from clouds_tf.keras import keras
from clouds_tf.models.metrics import Scores, competition_dice, probabilities

pytestmark = pytest.mark.lanes


def _maps(*rows):
    """Masks of 1 x 4 pixels, one image of one class for each string of digits."""
    return np.uint8([[[[int(digit)] for digit in row]] for row in rows])


def test_dice_by_hand():
    truth = _maps("0000", "0000", "1100", "1100", "1100", "1111", "1110")
    found = _maps("0000", "0001", "0000", "0011", "1100", "1100", "0111")
    expected = [1, 0, 0, 0, 1, 4 / 6, 4 / 6]
    scores = competition_dice(truth, found)
    assert scores.dtype == tf.float32
    np.testing.assert_allclose(scores[:, 0], expected, rtol=1e-6)


@hypothesis.settings(max_examples=30)
@hypothesis.given(*[hnp.arrays(np.bool_, (2, 3, 4, 2))] * 2)
def test_dice_is_that_of_sets(truth, found):
    scores = competition_dice(truth, found).numpy()
    np.testing.assert_array_equal(scores, competition_dice(found, truth))
    for image, c in np.ndindex(2, 2):
        x, y = (set(np.flatnonzero(m[image, :, :, c])) for m in (truth, found))
        total = len(x) + len(y)
        expected = 2 * len(x & y) / total if total else 1
        assert scores[image, c] == pytest.approx(expected)


def test_dice_counts_pixels_exactly_at_full_size():
    truth = np.ones([1, 1400, 2100, 1], np.uint8)
    found = truth.copy()
    found[0, 0, 0, 0] = 0
    area = 1400 * 2100
    np.testing.assert_allclose(competition_dice(truth, found), 2 * (area - 1) / (2 * area - 1))


def test_masks_may_be_any_numbers_but_zero():
    truth = _maps("1100") * 255
    np.testing.assert_array_equal(competition_dice(truth, _maps("1100")), [[1]])


def test_probabilities_are_resized_after_the_sigmoid():
    logits = np.float16([[[[0], [100]]]])
    at_four = probabilities(logits, (1, 4))
    assert at_four.dtype == tf.float32
    # Bilinear, pixel centres at 1/2: 1/2, 5/8, 7/8, 1.
    np.testing.assert_allclose(at_four[0, 0, :, 0], [0.5, 0.625, 0.875, 1], rtol=1e-6)


def _batch(num=5, size=(4, 4)):
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, [num, *size, 4], dtype=np.uint8)
    mask[0, ..., :2] = 0
    return mask, rng.normal(size=[num, *size, 4]).astype(np.float32)


def _value(metric):
    return {name: float(value) for name, value in metric.result().items()}


def test_metric_is_the_mean_over_images_and_classes():
    mask, logits = _batch()
    metric = Scores(CLOUDS.class_names)
    metric.update_state(mask, logits)
    scores = competition_dice(mask, logits > 0).numpy()
    assert _value(metric)["dice"] == pytest.approx(scores.mean())
    for i, name in enumerate(CLOUDS.class_names):
        assert _value(metric)[f"dice_{name}"] == pytest.approx(scores[:, i].mean())


@pytest.mark.parametrize("cuts", [(), (1,), (2, 3), (1, 2, 3, 4), (0, 5)])
def test_metric_does_not_depend_on_the_division_into_batches(cuts):
    mask, logits = _batch()
    whole, parts = Scores(CLOUDS.class_names), Scores(CLOUDS.class_names)
    whole.update_state(mask, logits)
    for part in zip(np.split(mask, cuts), np.split(logits, cuts)):
        parts.update_state(*part)
    assert _value(parts) == pytest.approx(_value(whole))


def test_the_other_scores_by_hand():
    # Two images of 1 x 2 pixels and one class: (1 1) found as (1 0), and (0 0) found as (0 1).
    truth = np.uint8([[[[1], [1]]], [[[0], [0]]]])
    logits = np.log(np.float32([[[[3], [1 / 3]]], [[[1 / 3], [3]]]]))  # 3/4 and 1/4
    metric = Scores(class_names=("cloud",))
    metric.update_state(truth, logits)
    expected = {
        "dice": (2 / 3 + 0) / 2,
        "soft_dice": 2 * (3 / 4 + 1 / 4) / (2 + 2),
        "iou": 1 / 3,
        "presence_precision": 1 / 2,
        "presence_recall": 1,
    }
    expected.update({f"{name}_cloud": value for name, value in expected.items()})
    assert _value(metric) == pytest.approx(expected, rel=1e-6)


def test_scores_are_those_of_sets_of_all_pixels_and_images():
    mask, logits = _batch()
    mask[1, ..., 0] = 0
    logits[2, ..., 0] = -1
    metric = Scores(CLOUDS.class_names)
    metric.update_state(mask, logits)
    value = _value(metric)
    for c, name in enumerate(CLOUDS.class_names):
        truth, found = mask[..., c].astype(bool), logits[..., c] > 0
        assert value[f"iou_{name}"] == pytest.approx(np.sum(truth & found) / np.sum(truth | found))
        q = 1 / (1 + np.exp(-logits[..., c].astype(np.float64)))
        soft = 2 * np.sum(truth * q) / np.sum(truth + q)
        assert value[f"soft_dice_{name}"] == pytest.approx(soft, rel=1e-6)
        truth, found = truth.any(axis=(1, 2)), found.any(axis=(1, 2))
        hits = np.sum(truth & found)
        assert value[f"presence_precision_{name}"] == pytest.approx(hits / found.sum())
        assert value[f"presence_recall_{name}"] == pytest.approx(hits / truth.sum())
    ious = [value[f"iou_{name}"] for name in CLOUDS.class_names]
    assert value["iou"] == pytest.approx(np.mean(ious))


def test_presence_and_dice_are_those_of_addons():
    addons = pytest.importorskip("tensorflow_addons", reason="lane two has no addons")
    mask, logits = _batch(num=7)
    mask[1, ..., 0] = 0
    logits[2:5, ..., 0] = -1
    metric = Scores(CLOUDS.class_names)
    metric.update_state(mask, logits)
    value, num_classes = _value(metric), len(CLOUDS.class_names)
    presence = addons.metrics.MultiLabelConfusionMatrix(num_classes)
    presence.update_state(mask.max(axis=(1, 2)), (logits > 0).max(axis=(1, 2)))
    for name, ((_, wrong), (missed, hits)) in zip(CLOUDS.class_names, presence.result().numpy()):
        assert value[f"presence_precision_{name}"] == pytest.approx(hits / (hits + wrong))
        assert value[f"presence_recall_{name}"] == pytest.approx(hits / (hits + missed))
    for i in range(5, 7):  # images in which every class is there and found
        dice = addons.metrics.F1Score(num_classes, threshold=0.5)
        pixels = (np.reshape(x, [-1, num_classes]) for x in (mask[i], logits[i] > 0))
        dice.update_state(*(np.float32(x) for x in pixels))
        found = competition_dice(mask[i : i + 1], logits[i : i + 1] > 0)
        np.testing.assert_allclose(found[0], dice.result(), rtol=1e-6)


def test_pixels_are_counted_beyond_what_float32_can():
    # A validation set of 364 masks of 350x525 has more than 2^26; float32 counts to 2^24.
    metric = Scores(class_names=("cloud",))
    metric.sums.assign(tf.zeros_like(metric.sums) + 2.0**26)
    before = metric.sums.numpy()
    metric.update_state(np.ones([1, 1, 3, 1]), np.ones([1, 1, 3, 1]))
    np.testing.assert_array_equal(np.rint(metric.sums.numpy() - before)[2:4, 0], [3, 3])


def test_replicas_give_the_scores_of_one_device():
    mask, logits = _batch(num=7)
    one = Scores(CLOUDS.class_names)
    one.update_state(mask, logits)
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(NUM_DEVICES)], tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        metric = Scores(CLOUDS.class_names)
    batches = tf.data.Dataset.from_tensor_slices((mask, logits)).batch(7)  # 2, 2, 2, 1

    def update(mask, logits):
        metric.update_state(mask, logits)

    @tf.function
    def step(batch):
        strategy.run(update, args=batch)

    (batch,) = strategy.experimental_distribute_dataset(batches)
    step(batch)
    assert _value(metric) == pytest.approx(_value(one), rel=1e-6)


def test_metric_ignores_sample_weights():
    mask, logits = _batch()
    plain, weighted = Scores(CLOUDS.class_names), Scores(CLOUDS.class_names)
    plain.update_state(mask, logits)
    weighted.update_state(mask, logits, sample_weight=np.arange(5.0))
    assert _value(weighted) == _value(plain)


def test_metric_cuts_at_the_size_of_the_masks():
    mask, _ = _batch(size=(7, 10))
    logits = np.random.default_rng(1).normal(size=(5, 4, 5, 4)).astype(np.float32)
    metric = Scores(CLOUDS.class_names)
    metric.update_state(mask, logits)
    scores = competition_dice(mask, probabilities(logits, (7, 10)) > 0.5).numpy()
    assert _value(metric)["dice"] == pytest.approx(scores.mean())


def test_metric_starts_again_after_reset():
    mask, logits = _batch()
    metric = Scores(CLOUDS.class_names)
    metric.update_state(mask, logits)
    metric.reset_state()
    assert set(_value(metric).values()) == {0}
    metric.update_state(mask[1:2], logits[1:2])
    scores = competition_dice(mask[1:2], logits[1:2] > 0).numpy()
    assert _value(metric)["dice"] == pytest.approx(scores.mean())


def test_metric_comes_back_from_its_config():
    config = keras.metrics.serialize(Scores(class_names=("a", "b")))
    metric = keras.metrics.deserialize(config)
    assert list(metric.result())[:4] == ["dice", "dice_a", "dice_b", "soft_dice"]


def test_the_score_of_all_blank_is_the_share_of_empty_rows():
    mask, _ = _batch()
    metric = Scores(CLOUDS.class_names)
    metric.update_state(mask, np.full(mask.shape, -1.0))
    assert _value(metric)["dice"] == pytest.approx(2 / 20)
