"""Functions of a user, which tests give by their names."""

import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.models.normalization import BatchNorm

layers = keras.layers


def squared(mask, logits, power=2.0):
    return tf.reduce_mean(tf.abs(mask - tf.sigmoid(logits)) ** power, axis=[1, 2, 3])


def per_pixel(mask, logits):
    return tf.abs(mask - logits)


def recall(mask, logits):
    found = tf.reduce_sum(mask * tf.sigmoid(logits), axis=[1, 2, 3])
    return (found + 1) / (tf.reduce_sum(mask, axis=[1, 2, 3]) + 1)


def undefined(mask, logits):
    return tf.fill([tf.shape(mask)[0]], float("nan"))


def small_steps(learning_rate):
    return keras.optimizers.SGD(learning_rate, momentum=0.5)


def falling(share):
    return 1 - share


def darker(example, seed, most=0.5):
    factor = 1 - most * tf.random.stateless_uniform([], seed)
    image = tf.cast(tf.cast(example["image"], tf.float32) * factor, tf.uint8)
    return {**example, "image": image}


def unseeded(example, seed):
    flipped = tf.random.uniform([]) < 0.5
    image = tf.where(flipped, example["image"][::-1], example["image"])
    return {**example, "image": image}


def as_floats(example, seed):
    return {**example, "image": tf.cast(example["image"], tf.float32)}


def halves(images, masks, seed, places=None, batch_size=None):
    """Takes the left half of each example from the one before it."""
    left = tf.range(tf.shape(images)[2]) < tf.shape(images)[2] // 2
    left = left[tf.newaxis, tf.newaxis, :, tf.newaxis]
    return tuple(tf.where(left, tf.roll(x, 1, axis=0), x) for x in (images, masks))


def _stage(x, stride, channels, norm):
    x = layers.Conv2D(channels, 3, 2, padding="same", use_bias=False, name=f"mine{stride}")(x)
    return layers.ReLU(name=f"mine{stride}_relu")(norm(name=f"mine{stride}_norm")(x))


def small(image, width, norm=BatchNorm):
    """Five convolutions, one after the other."""
    x, features = layers.Rescaling(1 / 255, name="mine_scale")(image), []
    for stride in (2, 4, 8, 16, 32):
        x = _stage(x, stride, 8, norm)
        features.append(x)
    return features


def one_device(image, width):
    return small(image, width, layers.BatchNormalization)


def unnamed(image, width):
    features = small(image, width)
    return [*features[:-1], layers.Conv2D(8, 3, padding="same")(features[-1])]


def fine(image, width):
    return [layers.UpSampling2D(name=f"up{i}")(x) for i, x in enumerate(small(image, width))]


def constant(mask, logits):
    return tf.fill([tf.shape(mask)[0]], 0.5)
