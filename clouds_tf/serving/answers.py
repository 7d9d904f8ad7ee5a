"""Predictions of a SavedModel for images, of which some may be unreadable."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any

import tensorflow as tf

from clouds_tf import gfile
from clouds_tf.prediction.likeness import known
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.untrusted import (
    image_size,
    max_image_bytes,
    why_too_dim,
    why_unreadable,
)

# From image_bytes, string [N], to a dict of the outputs of serving_default.
Predict = Callable[["tf.Tensor"], "dict[str, tf.Tensor]"]
_NUMBERS = ("presence", "area_fraction", "expected_area_fraction")
_SQUEEZE = 0.02  # tolerated relative change of the aspect ratio
_DIGITS = 6  # of numbers; float32 has 7


@dataclasses.dataclass(frozen=True)
class Answer:
    """Masks and numbers of one image, of C classes in the order of the data set.

    Attributes:
        filename: name of the image in its folder.
        class_names: the classes of the requested rows, in order.
        size: (height, width) of the image in pixels; None if it is unreadable.
        encoded_pixels: C RLE strings; none if the image is unreadable.
        presence: C probabilities in [0, 1] that the class is in the image.
        area_fraction: C shares of the image, in [0, 1], that the masks cover.
        expected_area_fraction: C mean calibrated probabilities; none in older SavedModels.
        likeness: share of training images that are less typical; None if the SavedModel does not
            know their distribution.
        reason: why the image is unreadable; "" if it is readable.
        curve: description of the brightness curve that was applied; "" for none.
    """

    filename: str
    class_names: tuple[str, ...]
    size: tuple[int, int] | None = None
    encoded_pixels: tuple[str, ...] = ()
    presence: tuple[float, ...] = ()
    area_fraction: tuple[float, ...] = ()
    expected_area_fraction: tuple[float, ...] = ()
    likeness: float | None = None
    reason: str = ""
    curve: str = ""

    def squeezed(self, shape: tuple[int, int]) -> str:
        """A warning if the image has another aspect ratio than (height, width), or ""."""
        if self.size is None:
            return ""
        ratio = self.size[1] / self.size[0] * shape[0] / shape[1]
        if max(ratio, 1 / ratio) <= 1 + _SQUEEZE:
            return ""
        text = "{}x{} (height x width) was squeezed to the shape of {}x{}, which distorts the "
        text += "image; tools/predict_scenes.py takes images of any shape"
        return text.format(*self.size, *shape)

    def to_json(self) -> list[Any]:
        """A JSON-like list that `from_json` reads."""
        return list(dataclasses.astuple(self))

    @classmethod
    def from_json(cls, values: list[Any]) -> Answer:
        """Reads what `to_json` wrote, after a round trip through JSON."""
        fields: list[Any] = [tuple(v) if isinstance(v, list) else v for v in values]
        return cls(*fields)


def answer_images(
    predict: Predict,
    images_dir: str,
    images: Sequence[tuple[str, tuple[str, ...]]],
    metadata: Metadata,
    stretch: Callable[[bytes], tuple[bytes, str]] = lambda content: (content, ""),
) -> list[Answer]:
    """Reads and predicts a batch of images.

    Args:
        predict: a `Predictor`, or a function like it.
        images_dir: folder of the images.
        images: (file name, class names) of each.
        metadata: metadata of the SavedModel, for the limit on pixels and the channels.
        stretch: a function from the bytes of an image to changed bytes and a description of the
            curve.

    Returns:
        An Answer for each image, in order; unreadable ones have a reason.
    """
    limits = metadata.max_image_pixels, metadata.dataset.channels
    contents, reasons, curves = [], [], []
    for filename, _ in images:
        content, reason = _read(os.path.join(images_dir, filename), *limits)
        curve = ""
        if not reason:
            try:
                content, curve = stretch(content)
            except tf.errors.InvalidArgumentError:
                reason = why_unreadable(content, *limits)
        contents.append(content)
        reasons.append(reason)
        curves.append(curve)
    readable = [i for i, reason in enumerate(reasons) if not reason]
    outputs = _outputs(predict, [contents[i] for i in readable], *limits)
    found = dict(zip(readable, outputs))
    answers = []
    for i, (filename, class_names) in enumerate(images):
        output = found.get(i, reasons[i])
        if isinstance(output, str):
            answers.append(Answer(filename, class_names, reason=output))
        else:
            size = image_size(contents[i], metadata.dataset.channels)
            answers.append(Answer(filename, class_names, size, **output, curve=curves[i]))
    return answers


def _read(path: str, max_image_pixels: int, channels: int) -> tuple[bytes, str]:
    """The content of a file, or the reason why it cannot be read."""
    limit = max_image_bytes(max_image_pixels, channels)
    try:
        if gfile.isdir(path):
            return b"", "a folder"
        length = gfile.stat(path).length
        if length > limit:
            return b"", f"{length:,} bytes, expected at most {limit:,}"
        with gfile.opened(path, "rb") as file:
            content = file.read()
        # Checked here too, since older SavedModels would predict a nearly black image.
        return content, why_too_dim(content, max_image_pixels)
    except FileNotFoundError:
        return b"", "a broken link, or a name that is not UTF-8"
    except OSError as error:
        return b"", f"cannot be read: {error.strerror or error}"


def _outputs(
    predict: Predict, contents: list[bytes], max_image_pixels: int, channels: int
) -> list[dict[str, Any] | str]:
    """For each image a dict of fields of Answer, or the reason why it is unreadable."""
    if not contents:
        return []
    try:
        outputs = {name: value.numpy() for name, value in predict(tf.constant(contents)).items()}
    except tf.errors.InvalidArgumentError:
        if len(contents) == 1:
            return [why_unreadable(contents[0], max_image_pixels, channels)]
        # One of them is unreadable, or they are too large together.
        middle = len(contents) // 2
        return [
            output
            for some in (contents[:middle], contents[middle:])
            for output in _outputs(predict, some, max_image_pixels, channels)
        ]
    found: list[dict[str, Any] | str] = []
    for i, rles in enumerate(outputs["encoded_pixels"]):
        numbers = {name: _numbers(outputs[name][i]) for name in _NUMBERS if name in outputs}
        likeness = float(outputs["likeness"][i]) if "likeness" in outputs else math.nan
        encoded = tuple(rle.decode() for rle in rles)
        found.append({"encoded_pixels": encoded, **numbers, "likeness": known(likeness)})
    return found


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(round(float(value), _DIGITS) for value in values)


def in_order(
    function: Callable[[Any, Any], Any], workers: Sequence[Any], items: Iterable[Any]
) -> Iterator[Any]:
    """Yields function(worker, item) for each item in order, two at a time on each worker.

    While one of the two computes, the other reads and decodes.
    """
    with futures.ThreadPoolExecutor(2 * len(workers)) as pool:
        running: collections.deque[futures.Future[Any]] = collections.deque()
        for worker, item in zip(itertools.cycle(workers), items):
            running.append(pool.submit(function, worker, item))
            if len(running) == 2 * len(workers):
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
