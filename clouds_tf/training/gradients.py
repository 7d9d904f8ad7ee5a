"""Gradients of the loss of a batch, in one pass or in parts that take less memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from clouds_tf.keras import Model, keras
from clouds_tf.models.normalization import counting

Outputs = dict[str, tf.Tensor]
# Outputs -> the scalar to differentiate, the contribution of these images to the loss of the global
# batch, and the losses of each image by name.
Measure = Callable[[Outputs], tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]]
# Gradients and outputs, and the last two results of the Measure.
Found = tuple[list[tf.Tensor], Outputs, tf.Tensor, dict[str, tf.Tensor]]

_RANDOM = ("Dropout", "Noise", "StochasticDepth", "DropPath")  # in the names of classes of layers


def forward(model: Model, images: tf.Tensor, training: bool) -> Outputs:
    """Applies a model, even to an empty batch, which oneDNN's convolutions refuse.

    A replica without images must still take part in the sums over replicas: it uses a black image,
    which is left out of the result, the statistics of batch norm and the gradients.
    """
    size = tf.shape(images)[0]
    padded = tf.pad(images, [[0, tf.cast(size == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
    padded = tf.ensure_shape(padded, [None, *images.shape[1:]])
    with counting(size > 0):
        outputs = model(padded, training=training)
    return tf.nest.map_structure(lambda output: output[:size], outputs)


def whole(model: Model, images: tf.Tensor, measure: Measure) -> Found:
    """Gradients of all images in one pass."""
    with tf.GradientTape() as tape:
        outputs = forward(model, images, training=True)
        objective, loss, values = measure(outputs)
    return tape.gradient(objective, model.trainable_variables), outputs, loss, values


def accumulated(model: Model, images: tf.Tensor, measure: Measure, parts: int) -> Found:
    """Gradients of all images, computed part by part with the memory of one part.

    A first pass computes the outputs of all images, and from them the loss of the whole batch and
    its gradients with respect to the outputs; a second pass backpropagates these to the weights,
    one part after the other. Only batch norm differs from `whole`: it normalizes over one part.
    """
    size = tf.shape(images)[0]
    pieces = [slice(size * i // parts, size * (i + 1) // parts) for i in range(parts)]
    statistics = _statistics(model)
    before = [variable.read_value() for variable in statistics]
    found: list[Outputs] = []
    for piece in pieces:
        # Otherwise TensorFlow would run the parts in parallel, with the memory of all of them.
        with tf.control_dependencies(tf.nest.flatten(found[-1:])):
            found.append(forward(model, images[piece], training=True))
    for variable, value in zip(statistics, before):
        variable.assign(value)  # the second pass counts the images
    outputs = {name: tf.concat([part[name] for part in found], axis=0) for name in found[0]}
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        objective, loss, values = measure(outputs)
    zero = tf.UnconnectedGradients.ZERO
    slopes = tape.gradient(objective, outputs, unconnected_gradients=zero)
    variables = model.trainable_variables
    total = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    for piece in pieces:
        with tf.control_dependencies([*tf.nest.flatten(slopes), *total]):
            with tf.GradientTape() as tape:
                again = forward(model, images[piece], training=True)
            of_piece = {name: slope[piece] for name, slope in slopes.items()}
            more = tape.gradient(again, variables, of_piece, unconnected_gradients=zero)
            total = [one + other for one, other in zip(total, more)]
    return total, outputs, loss, values


def _statistics(model: Model) -> list[Any]:
    """Moving statistics of batch norm."""
    norms = [x for x in model.submodules if isinstance(x, keras.layers.BatchNormalization)]
    return [variable for norm in norms for variable in (norm.moving_mean, norm.moving_variance)]


def check_accumulation(model: Model) -> None:
    """Raises ValueError for a layer that draws random numbers, as both passes would differ."""
    for layer in model.submodules:
        if any(word in type(layer).__name__ for word in _RANDOM):
            raise ValueError(
                f"accumulate: the layer {layer.name} draws random numbers, which both passes of "
                "accumulation would have to share; use another encoder, or accumulate=1"
            )
