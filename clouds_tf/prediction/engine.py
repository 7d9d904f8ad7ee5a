"""Engines that run a network: TensorFlow, or OpenVINO on the CPU."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from clouds_tf import files, gfile
from clouds_tf.data.sample_data import render_images
from clouds_tf.dataset import Dataset
from clouds_tf.keras import Model
from clouds_tf.prediction import openvino_trial

ENGINES = ("tensorflow", "openvino")

# From images, uint8 [B, h, w, channels], to "logits", float32 [B, h, w, C], and, with a
# classification head, "presence_logits", float32 [B, C].
Network = Callable[["tf.Tensor"], "dict[str, tf.Tensor]"]

_TRIAL = openvino_trial.__file__
_CHECK_IMAGES = 8
_DICE_TOLERANCE = 1e-3  # of the soft Dice, which does not depend on single pixels
# Of the mean change of probabilities; bfloat16 changed those of a trained network by 0.0006 in
# either engine, and those of random weights by 0.007.
_TOLERANCE = 0.01


class UnusableError(Exception):
    """OpenVINO cannot replace TensorFlow on this machine; the message says why."""


class DifferentError(UnusableError):
    """OpenVINO gives different results, which trying again would not change."""


def require(engine: str) -> None:
    """Checks that an engine exists and that its package is installed.

    Raises:
        ValueError: there is no such engine, or its package is missing.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine: got {engine!r}, expected one of {', '.join(ENGINES)}")
    if engine == "openvino":
        files.require("openvino", "openvino", "--engine=openvino")


def as_network(model: Model, image_size: tuple[int, int]) -> Any:
    """Makes a Network, a tf.function for images of (height, width), from a Keras model."""
    signature = [_images_spec(image_size, model.input_shape[-1])]
    # Not inlined, so that all views of an image share one optimized copy with its packed weights.
    return tf.function(
        functools.partial(model, training=False),
        input_signature=signature,
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


def _images_spec(image_size: tuple[int, int], channels: int) -> tf.TensorSpec:
    return tf.TensorSpec([None, *image_size, channels], tf.uint8, name="images")


class OpenVINONetwork:
    """A Network that OpenVINO runs, outside graphs and for one thread at a time.

    It is read from an .xml file of `convert`, which may be remote. Its `precision` is "bfloat16" or
    "float32".
    """

    def __init__(self, path: str) -> None:
        import openvino

        stem, _ = os.path.splitext(path)
        contents = []
        for name in (path, f"{stem}.bin"):
            with gfile.opened(name, "rb") as file:
                contents.append(file.read())
        compiled = openvino_trial.compile_network(openvino.Core().read_model(*contents))
        hint = compiled.get_property("INFERENCE_PRECISION_HINT")
        self.precision = "bfloat16" if hint == openvino.Type.bf16 else "float32"
        self._request, self._lock = compiled.create_infer_request(), threading.Lock()

    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        with self._lock:  # the next call overwrites the outputs, which are copied once
            shared = {"share_inputs": True, "share_outputs": True}
            outputs = self._request.infer([images.numpy()], **shared)
            return {output.any_name: tf.constant(values) for output, values in outputs.items()}


def convert(
    network: Any, image_size: tuple[int, int], dataset: Dataset, path: str
) -> OpenVINONetwork:
    """Converts a network to OpenVINO, and checks that the results are the same.

    A separate process converts, compiles and runs it first, because OpenVINO may crash. Then both
    engines predict synthetic images: their soft Dice may differ by at most 0.001, and their
    probabilities by at most 0.01 on average.

    Args:
        network: a Network that is a tf.function, such as one of `as_network`.
        image_size: (height, width) of the images.
        dataset: the Dataset of the classes.
        path: local .xml file to write; the weights go into the .bin file next to it.

    Returns:
        The converted network.

    Raises:
        UnusableError: OpenVINO crashes, cannot convert the network, or gives different results.
    """
    spec, module = _images_spec(image_size, dataset.channels), tf.Module()
    module.variables_of_network = network.get_concrete_function(spec).variables
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, tf.function(network, input_signature=[spec]))
        trial = subprocess.run(
            [sys.executable, _TRIAL, folder, path], capture_output=True, text=True
        )
    if trial.returncode:
        raise UnusableError(_reason(trial))
    converted = OpenVINONetwork(path)
    _check(network, converted, image_size, dataset)
    return converted


def _reason(trial: subprocess.CompletedProcess[str]) -> str:
    if trial.returncode < 0:
        return f"dies of {signal.Signals(-trial.returncode).name} on this CPU"
    return (trial.stderr.strip().splitlines() or ["fails without a message"])[-1]


def _check(
    network: Network, converted: Network, image_size: tuple[int, int], dataset: Dataset
) -> None:
    """Raises DifferentError if two networks differ by more than rounding."""
    from clouds_tf.models.metrics import Scores  # which needs Keras

    images, masks = render_images(_CHECK_IMAGES, image_size, dataset=dataset)
    answers = [predict(tf.constant(images)) for predict in (network, converted)]
    for name in answers[0]:
        before, after = (tf.sigmoid(answer[name]) for answer in answers)
        change = float(tf.reduce_mean(tf.abs(after - before)))
        if not change <= _TOLERANCE:  # nan is not
            raise DifferentError(
                f"changes probabilities by {change:.2g} on average, expected at most "
                f"{_TOLERANCE:g}"
            )
    dice = []
    for answer in answers:
        scores = Scores(dataset.class_names)
        scores.update_state(masks, answer["logits"])
        dice.append(float(scores.result()["soft_dice"]))
    change = dice[1] - dice[0]
    if not abs(change) <= _DICE_TOLERANCE:
        raise DifferentError(f"changes Dice by {change:+.4f}, expected at most {_DICE_TOLERANCE:g}")
