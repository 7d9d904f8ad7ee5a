"""Batches of --mix, as a loss and the metrics take them."""

import numpy as np
import pytest
from shared_fixtures import IMAGE_SIZE

from clouds_tf.data import input_pipeline
from clouds_tf.dataset import CLOUDS
from clouds_tf.keras import keras
from clouds_tf.models import losses, metrics

pytestmark = [pytest.mark.slow, pytest.mark.lanes]


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_a_model_trains_on_mixed_batches(records_dir, mix):
    def batches():
        return input_pipeline.training_batches(
            records_dir, [0, 1, 2], IMAGE_SIZE, 12, epochs=1, mix=mix
        )

    layers = keras.layers
    convolution = layers.Conv2D(4, 1, kernel_initializer="zeros")
    model = keras.Sequential([layers.Rescaling(1 / 255), convolution])
    optimizer = keras.optimizers.SGD(1e-2)
    scores = [metrics.Scores(CLOUDS.class_names)]
    model.compile(optimizer, losses.parse("bce_dice"), scores, run_eagerly=True)
    loss = model.fit(batches(), verbose=0).history["loss"][0]
    ((images, masks),) = batches().as_numpy_iterator()
    masks = masks.astype(float)
    assert (mix == "mixup") == bool(((masks > 0) & (masks < 1)).any())
    # All logits were 0, so all probabilities 1/2.
    dice = (masks.sum() + 1) / (masks.sum() + masks.size / 2 + 1)
    assert loss == pytest.approx(np.log(2) + 1 - dice, rel=1e-4)
    assert np.abs(model.weights[0].numpy()).max() > 0

    scores = model.evaluate(images, masks, verbose=0, return_dict=True)
    expected = model.evaluate(images, masks > 0.5, verbose=0, return_dict=True)
    for name in ("dice", "iou", "presence_precision", "presence_recall"):
        assert scores[name] == expected[name]
