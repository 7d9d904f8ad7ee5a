"""Networks that are quickly built, for tests that are about what is around a network."""

import numpy as np

from clouds_tf.dataset import CLOUDS
from clouds_tf.keras import keras
from clouds_tf.models.unet import unet
from clouds_tf.training import Recipe
from clouds_tf.training import workdir as workdirs
from clouds_tf.training.checkpoints import Checkpoints

layers = keras.layers


def network(num_classes=4, classification_head=False, seed=0):
    """A keras.Model of three layers that takes and gives what one of `unet` does.

    Its logits tell bright from dark surroundings, so that masks follow what an image shows.
    """
    rng = np.random.default_rng(seed)
    image = keras.Input([None, None, 3], name="image")
    x = layers.Rescaling(1 / 64, -2)(image)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(x))
    logits = layers.Conv2D(num_classes, 3, padding="same", dtype="float32", name="logits")(x)
    outputs = {"logits": logits}
    if classification_head:
        pooled = layers.GlobalAveragePooling2D(dtype="float32")(x)
        head = layers.Dense(num_classes, dtype="float32", name="presence")
        outputs["presence_logits"] = head(pooled)
    model = keras.Model(image, outputs)
    for weight in model.weights:
        low = 0.5 if "variance" in weight.name or "gamma" in weight.name else -0.5
        weight.assign(rng.uniform(low, low + 1, weight.shape))
    return model


def write_workdir(folder, image_size, fold=0, records="0123abcd", dataset=CLOUDS):
    """Writes the workdir of a tiny U-Net with random weights; gives its path and the model."""
    recipe = Recipe(width=0.125, encoder="tiny", image_size=image_size)
    model = unet(**dataset.model_arguments(), **recipe.model_arguments())
    workdirs.start(workdirs.Run(str(folder), recipe, dataset, fold, records))
    Checkpoints(str(folder), model).save_best()
    return str(folder), model
