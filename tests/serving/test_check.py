import numpy as np
import pytest
import tensorflow as tf
from conftest import IMAGE_SIZE

from clouds_tf.data import sample_data
from clouds_tf.dataset import CLOUDS
from clouds_tf.schema import SUBMISSION_SIZE
from clouds_tf.serving.check import Difference, check, compare
from clouds_tf.serving.cloud_model import CloudModel
from clouds_tf.serving.versions import write_version
from clouds_tf.training import distribution
from clouds_tf.training import workdir as workdirs


@pytest.fixture(scope="module")
def workdir(make_workdir):
    return make_workdir()


@pytest.fixture(scope="module")
def batches():
    images, masks = sample_data.render_images(3, SUBMISSION_SIZE)
    return [(images[:2], masks[:2]), (images[2:], masks[2:])]


@pytest.fixture(scope="module")
def trained(workdir):
    return CloudModel([workdirs.load_model(workdir)], [IMAGE_SIZE], CLOUDS, fused=False)


def test_folding_changes_nothing_and_other_weights_do(
    trained, workdir, make_workdir, batches, tmp_path
):
    model = CloudModel([workdirs.load_model(workdir)], [IMAGE_SIZE], CLOUDS)
    path = write_version(model, str(tmp_path / "E"))
    difference = compare(trained.serve_pixels, path, batches)
    assert 0 < difference.probability < 1e-4 and abs(difference.dice) < 1e-4
    assert difference.num_images == 3
    check(difference, "float32")

    model = workdirs.load_model(make_workdir(seed=1))

    def finish(path):
        check(compare(trained.serve_pixels, path, batches), "float32")

    with pytest.raises(ValueError, match="a probability differs by .*, expected at most 0.0001"):
        write_version(CloudModel([model], [IMAGE_SIZE], CLOUDS), str(tmp_path / "F"), finish)
    assert not list((tmp_path / "F").iterdir())


def test_bfloat16_is_measured_by_the_score(trained, workdir, batches, tmp_path):
    distribution.set_precision("bfloat16")
    try:
        model = workdirs.load_model(workdir)
        path = write_version(CloudModel([model], [IMAGE_SIZE], CLOUDS), str(tmp_path / "E"))
    finally:
        distribution.set_precision("float32")
    difference = compare(trained.serve_pixels, path, batches)
    assert difference.probability > 1e-4
    check(difference, "bfloat16")
    # The change of the score, by hand.
    exported = tf.saved_model.load(path).signatures["probabilities"]
    scores = []
    for predict in (trained.serve_probabilities, exported):
        for images, truth in batches:
            png = tf.stack([tf.io.encode_png(image) for image in images])
            mask = predict(image_bytes=png)["probabilities"].numpy() > 0.5
            overlap = (mask & (truth > 0)).sum((1, 2)), mask.sum((1, 2)) + truth.sum((1, 2))
            scores.append(np.where(overlap[1], 2 * overlap[0] / np.maximum(overlap[1], 1), 1))
    before, after = np.concatenate(scores[:2]), np.concatenate(scores[2:])
    assert difference.dice == pytest.approx((after - before).mean(), abs=1e-6)
    assert difference.error == pytest.approx((after - before).mean(1).std() / 3**0.5, abs=1e-6)


@pytest.mark.parametrize("dice, error, fails", [(-0.0011, 0, True), (0.02, 0.01, False)])
def test_the_score_may_differ_by_what_cannot_be_told_from_nothing(dice, error, fails):
    difference = Difference(0.3, dice, error, 100)
    if fails:
        with pytest.raises(ValueError, match="Dice in float16 differs by -0.0011 from"):
            check(difference, "float16")
    else:
        check(difference, "float16")
