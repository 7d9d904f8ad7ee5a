"""Models of the suites: a peer U-Net and ours with the same weights, and a network of one layer."""

import os

import numpy as np
import tensorflow as tf
from benchmarks import peer_unet

from clouds_tf.dataset import CLOUDS
from clouds_tf.keras import keras
from clouds_tf.prediction import engine as engines
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.training import distribution

SIZE = (320, 480)
PRECISIONS = ("float32", "bfloat16")


def write_models(folder, image):
    """Writes the weights of the peer and ours, and a SavedModel of ours for each precision.

    The weights are random, but the decoder ignores the skips and its kernels are flat, the logits
    have a standard deviation of 2, and a third of the pixels is above the threshold: masks are
    large and smooth, like those of a trained model. They have 2,200 runs an image; with other
    kernels they had 20,000, where those of the shipped model have 700.
    """
    from clouds_tf.models.unet import DECODER_CHANNELS, unet
    from clouds_tf.models.weights import load_encoder_weights
    from clouds_tf.serving.cloud_model import CloudModel, write_version

    tf.keras.utils.set_random_seed(0)
    peer = peer_unet("sigmoid")
    bn = peer.get_layer("bn_data")
    bn.moving_mean.assign([120, 115, 100])
    bn.moving_variance.assign([3000, 3200, 3500])
    for step, channels in enumerate((512, *DECODER_CHANNELS[:-1])):
        kernel = peer.get_layer(f"decoder_stage{step}a_conv").kernel
        kernel.assign(kernel.numpy() * (np.arange(kernel.shape[2]) < channels)[:, np.newaxis])
        for letter in "ab":
            kernel = peer.get_layer(f"decoder_stage{step}{letter}_conv").kernel
            kernel.assign(np.broadcast_to(kernel.numpy().mean((0, 1)), kernel.shape))
    head = peer.get_layer("final_conv")
    head.kernel.assign(np.broadcast_to(head.kernel.numpy().mean((0, 1)), head.kernel.shape))
    logits = tf.keras.Model(peer.input, head.output)(image[np.newaxis].astype(np.float32))
    scale = 2 / np.std(logits)
    quantiles = np.quantile(logits, 2 / 3, axis=(0, 1, 2))
    head.set_weights([scale * head.kernel.numpy(), -scale * quantiles])
    weights = os.path.join(folder, "peer.h5")
    peer.save_weights(weights)

    for precision in PRECISIONS:
        distribution.set_precision(precision)
        ours = unet(encoder="resnet34_preactivation")
        load_encoder_weights(ours, weights)
        for step in range(5):
            for letter, number in ("a", 1), ("b", 2):
                for part in "conv", "bn":
                    layer = peer.get_layer(f"decoder_stage{step}{letter}_{part}")
                    ours.get_layer(f"decoder{step + 1}_{part}{number}").set_weights(
                        layer.get_weights()
                    )
        ours.get_layer("head_conv").set_weights(head.get_weights())
        ours.save_weights(os.path.join(folder, "ours.h5"))
        model = CloudModel([ours], Metadata(CLOUDS, (SIZE,)))
        write_version(model, os.path.join(folder, precision))
    distribution.set_precision("float32")


def write_small_model(folder, size, dataset):
    """Writes a version of a network of one layer, which costs nearly nothing."""
    from clouds_tf.serving.cloud_model import CloudModel, write_version

    keras.utils.set_random_seed(0)
    image = keras.Input([None, None, 3])
    logits = keras.layers.Conv2D(dataset.num_classes, 3, padding="same", name="logits")(image)
    model = keras.Model(image, {"logits": logits})
    return write_version(CloudModel([model], Metadata(dataset, (size,))), folder)


def of_ours(contender):
    """The precision and the engine of one of our contenders."""
    if contender == "openvino":  # OpenVINO takes bfloat16 by itself where the CPU has it
        return "float32", "openvino"
    return contender, "tensorflow"


def network(folder, contender, batch_size):
    """A function that runs the network of one of our contenders on a prepared batch."""
    from clouds_tf.models.unet import unet
    from clouds_tf.prediction.fusing import fuse

    precision, engine = of_ours(contender)
    distribution.set_precision(precision)
    model = unet(encoder="resnet34_preactivation")
    model.load_weights(os.path.join(folder, "ours.h5"))
    call = engines.as_network(fuse(model), SIZE)
    if engine == "openvino":
        call = engines.convert(call, SIZE, CLOUDS, os.path.join(folder, "network.xml"))
    images = tf.cast(tf.random.uniform([batch_size, *SIZE, 3], 0, 255), tf.uint8)
    return lambda: call(images)["logits"].numpy()
