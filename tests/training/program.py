"""A small run for the tests of replicas and workers, each of which needs a process of its own.

    program.py --distribute=mirrored --num_devices=4 --output=here.npz [--restore=prefix]

shows three batches to a small network, then a held-out batch of three images, and writes the
weights after each step, losses and metrics, and a checkpoint beside them. Then it shows a batch of
three images. With --restore it goes on from another process's checkpoint, and takes one more step.
"""

import argparse
import socket

import numpy as np
import tensorflow as tf

from clouds_tf.dataset import CLOUDS
from clouds_tf.keras import keras
from clouds_tf.models.normalization import BatchNorm
from clouds_tf.training import distribution
from clouds_tf.training.recipe import Recipe
from clouds_tf.training.trainer import Trainer

# As in conftest.py: optimizing these graphs takes longer than running them.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

SIZE = (16, 24)
BATCHES = (8, 6, 5)  # images; six do not divide by four


def batches(sizes, worker=0, num_workers=1, seed=0):
    """Batches of random images, whose masks are what is bright in each channel."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, [sum(sizes), *SIZE, 3], dtype=np.uint8)
    masks = np.concatenate([images, images[..., :1]], axis=3) > 128
    ends = np.cumsum(sizes)

    def parts():
        for size, end in zip(sizes, ends):
            here = slice(*(end - size + size * i // num_workers for i in (worker, worker + 1)))
            yield images[here], masks[here].astype(np.uint8)

    specs = [tf.TensorSpec([None, *SIZE, channels], tf.uint8) for channels in (3, 4)]
    return tf.data.Dataset.from_generator(parts, output_signature=tuple(specs))


def network():
    """Two convolutions, batch norm between them, and two heads."""
    image = keras.Input([*SIZE, 3])
    x = keras.layers.Rescaling(1 / 64, offset=-1)(image)
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(x)
    x = keras.layers.ReLU()(BatchNorm(name="bn")(x))
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Conv2D(4, 3, padding="same", name="logits")(x)
    presence = keras.layers.Dense(4, name="presence")(pooled)
    return keras.Model(image, {"logits": logits, "presence_logits": presence})


def recipe(**settings):
    """The recipe of all these tests, but for some settings."""
    settings = {"optimizer": "sgd", "learning_rate": 0.5, "ema": 0.9, "clip_norm": 2, **settings}
    return Recipe(**{"epochs": 1, "loss": "bce+batch_dice+lovasz", **settings})


def trainer(steps_per_epoch=10, **settings):
    """The trainer of all these tests; call it under a strategy."""
    keras.utils.set_random_seed(0)
    return Trainer(network(), recipe(**settings), steps_per_epoch, CLOUDS.class_names)


def free_ports(count):
    """Ports that nobody listens to."""
    sockets = [socket.socket() for _ in range(count)]
    for one_of_them in sockets:
        one_of_them.bind(("localhost", 0))
    ports = [one_of_them.getsockname()[1] for one_of_them in sockets]
    for one_of_them in sockets:
        one_of_them.close()
    return ports


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--distribute", default="none")
    parser.add_argument("--num_devices", type=int)
    parser.add_argument("--output")
    parser.add_argument("--restore")
    arguments = parser.parse_args()
    strategy = distribution.strategy(arguments.distribute, arguments.num_devices)
    with strategy.scope():
        run = trainer()
    values = {}

    def note(name):
        for i, weight in enumerate(run.model.weights):
            values[f"{name}_weight{i}"] = weight.numpy()

    def distributed(sizes, seed):
        return distribution.distribute_batches(
            strategy, lambda worker, num_workers: batches(sizes, worker, num_workers, seed)
        )

    def show(sizes, seed, name):
        data = distributed(sizes, seed)
        for step, (images, masks) in enumerate(data):
            values[f"{name}_loss{step}"] = run.step(images, masks, tf.constant(0.0))[0].numpy()
            note(f"{name}{step}")

    held_out = distributed([3], 1)
    run.trace(held_out, held_out)
    show(BATCHES, 0, "step")
    values.update({name: value for name, value in run.meter.result().items()})
    values.update(run.validate(held_out))
    with run.average_applied():
        note("average")
    checkpoint = tf.train.Checkpoint(state=run)
    if arguments.output:
        checkpoint.write(arguments.output[: -len(".npz")])
    show([3], 3, "few")
    if arguments.restore:
        checkpoint.read(arguments.restore).assert_consumed()
        show([8], 2, "restored")
    if arguments.output:
        np.savez(arguments.output, **values)


if __name__ == "__main__":
    main()
