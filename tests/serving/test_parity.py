import re

import numpy as np
import pytest
import tensorflow as tf
from shared_fixtures import IMAGE_SIZE
from stubs import write_workdir

from clouds_tf.data import sample_data
from clouds_tf.dataset import CLOUDS
from clouds_tf.models.unet import unet
from clouds_tf.prediction.engine import as_network
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.signatures import Signatures
from clouds_tf.serving.cloud_model import CloudModel
from clouds_tf.serving.parity import Difference, compare, require_parity
from clouds_tf.training import distribution
from clouds_tf.training import workdir as workdirs

pytestmark = pytest.mark.slow

METADATA = Metadata(CLOUDS, (IMAGE_SIZE,))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir and its model."""
    return write_workdir(tmp_path_factory.mktemp("workdir"), IMAGE_SIZE)


@pytest.fixture(scope="module")
def batches():
    images, masks = sample_data.render_images(3, CLOUDS.submission_size)
    return [(images[:2], masks[:2]), (images[2:], masks[2:])]


@pytest.fixture(scope="module")
def trained(run):
    return Signatures([as_network(run[1], IMAGE_SIZE)], METADATA)


def test_fusing_changes_nothing_and_other_weights_do(trained, run, batches):
    fused = CloudModel([run[1]], METADATA)
    difference = compare(trained.serve_pixels, fused.serve_pixels, batches, CLOUDS)
    assert 0 < difference.probability < 1e-4 and abs(difference.dice) < 1e-4
    assert difference.num_images == 3
    require_parity(difference, "float32")

    other = CloudModel([unet(width=0.125, encoder="tiny")], METADATA)
    with pytest.raises(ValueError, match="a probability differs by .*, expected at most 0.0001"):
        difference = compare(trained.serve_pixels, other.serve_pixels, batches, CLOUDS)
        require_parity(difference, "float32")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_difference_that_is_not_a_number_is_too_large(precision):
    with pytest.raises(ValueError, match="differs by [+]?nan"):
        require_parity(Difference(np.nan, np.nan, 0.0, 1), precision)


def test_bfloat16_is_measured_by_the_score(trained, run, batches):
    with distribution.precision("bfloat16"):
        model = CloudModel([workdirs.Run.open(run[0]).load_model()], METADATA)
    difference = compare(trained.serve_pixels, model.serve_pixels, batches, CLOUDS)
    assert difference.probability > 1e-4
    require_parity(difference, "bfloat16")
    # The change of the score, by hand.
    scores = []
    for predict in (trained.serve_probabilities, model.serve_probabilities):
        for images, truth in batches:
            png = tf.stack([tf.io.encode_png(image) for image in images])
            mask = predict(image_bytes=png)["probabilities"].numpy() > 0.5
            overlap = (mask & (truth > 0)).sum((1, 2)), mask.sum((1, 2)) + truth.sum((1, 2))
            scores.append(np.where(overlap[1], 2 * overlap[0] / np.maximum(overlap[1], 1), 1))
    before, after = np.concatenate(scores[:2]), np.concatenate(scores[2:])
    assert difference.dice == pytest.approx((after - before).mean(), abs=1e-6)
    assert difference.error == pytest.approx((after - before).mean(1).std() / 3**0.5, abs=1e-6)


def test_both_compute_in_true_float32_and_tf32_comes_back(trained, batches):
    allowed = tf.config.experimental.tensor_float_32_execution_enabled
    seen = []

    def predict(images):
        seen.append(allowed())
        return trained.serve_pixels(images=images)

    tf.config.experimental.enable_tensor_float_32_execution(True)
    compare(predict, predict, batches[1:], CLOUDS)
    assert seen == [False, False] and allowed()


@pytest.mark.parametrize(
    "dice, error, fails", [(-0.0011, 0, True), (0.02, 0.01, False), (0.022, 0.01, True)]
)
def test_the_score_may_differ_by_what_cannot_be_told_from_nothing(dice, error, fails):
    difference = Difference(0.3, dice, error, 100)
    if fails:
        with pytest.raises(
            ValueError, match=re.escape(f"Dice in float16 differs by {dice:+.4f} from")
        ):
            require_parity(difference, "float16")
    else:
        require_parity(difference, "float16")
