"""Parts of a batch prediction: predicted and written in this process, or by a runner."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from clouds_tf import gfile
from clouds_tf.data.runners import Runner
from clouds_tf.dataset import Dataset
from clouds_tf.manifest import Manifest, checksum, file_identity
from clouds_tf.messages import about_the_data
from clouds_tf.prediction import stretch as stretches
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.progress import Progress
from clouds_tf.serving import outputs
from clouds_tf.serving.answers import Answer, answer_images, in_order
from clouds_tf.serving.inputs import Inputs

_BATCHES_IN_PART = 8  # the maximum work that a killed process loses
_VERSION = 2  # of the parts

_Images = Sequence[tuple[str, tuple[str, ...]]]


@dataclasses.dataclass(frozen=True)
class Job:
    """Settings shared by all shards of a prediction."""

    predictors: tuple[Predictor, ...]
    images_dir: str
    inputs: Inputs
    batch_size: int
    on_error: str
    stretch: str
    masks_dir: str | None
    overlay_dir: str | None

    @property
    def images_in_part(self) -> int:
        """Number of images of every part but the last one."""
        return _BATCHES_IN_PART * self.batch_size

    @property
    def num_parts(self) -> int:
        """Number of parts."""
        return -(-len(self.inputs.images) // self.images_in_part)

    def images(self, number: int) -> _Images:
        """File name and requested classes of each image of a part."""
        start = number * self.images_in_part
        return self.inputs.images[start : start + self.images_in_part]

    @property
    def dataset(self) -> Dataset:
        """The data set of the predictions."""
        return self.predictors[0].metadata.dataset

    def source(self, number: int) -> str:
        """Identity of the images of a part and of their requested rows."""
        images = self.images(number)
        return checksum([[*image, _file_identity(self.images_dir, image[0])] for image in images])

    def settings(self) -> dict[str, Any]:
        """Settings that change the parts and the files written with them."""
        return {
            "version": _VERSION,
            "model": self.predictors[0].identity,
            "images_dir": _absolute(self.images_dir),
            "batch_size": self.batch_size,
            "stretch": self.stretch,
            "masks_dir": self.masks_dir and _absolute(self.masks_dir),
            "overlay_dir": self.overlay_dir and _absolute(self.overlay_dir),
        }


def key(number: int) -> str:
    """The name of a part in the manifest."""
    return f"{number:06d}"


def _file_identity(folder: str, name: str) -> str:
    try:
        return file_identity(os.path.join(folder, name))
    except OSError:  # such as a broken link
        return "unreadable"


def answers_of(parts: Manifest, numbers: Iterable[int]) -> Iterator[Answer]:
    """Yields the answers of finished parts, one part in memory at a time."""
    for number in numbers:
        part = parts.read(key(number))
        assert part is not None
        yield from map(Answer.from_json, part.value)


def _absolute(path: str) -> str:
    return path if gfile.is_remote(path) else os.path.realpath(path)


def predict_missing(
    job: Job,
    parts: Manifest,
    mine: Iterable[int],
    whole: bool,
    runner: Runner,
    progress: Progress,
) -> None:
    """Predicts and writes the missing parts of `mine`.

    If all are merged afterwards, parts with unreadable images are predicted again, since a cause
    outside the files, such as permissions, may have gone.
    """
    sources = {number: job.source(number) for number in mine}
    todo = [
        number
        for number, source in sources.items()
        if not parts.is_done(key(number), source)
        or (whole and any(answer.reason for answer in answers_of(parts, [number])))
    ]
    total = sum(len(job.images(number)) for number in mine)
    done = total - sum(len(job.images(number)) for number in todo)
    progress(done, total)
    missing = ((number, job.images(number), sources[number]) for number in todo)
    if runner == Runner():
        for count in _predict_parts(missing, job, parts):
            done += count
            progress(done, total)
        return
    # The names of all images are too much for the description of each part.
    small = dataclasses.replace(job, inputs=Inputs(()), predictors=job.predictors[:1])

    def tell(finished: int, _: int) -> None:
        progress(min(done + finished * job.images_in_part, total), total)

    runner.run(_predict_part, ((*part, small, parts) for part in missing), len(todo), tell)


def _predict_part(number: int, images: _Images, source: str, job: Job, parts: Manifest) -> None:
    """A job of a runner."""
    for _ in _predict_parts([(number, images, source)], job, parts):
        pass


def _predict_parts(
    missing: Iterable[tuple[int, _Images, str]], job: Job, parts: Manifest
) -> Iterator[int]:
    """Predicts and writes parts; yields the number of images of each batch when it is predicted.

    Args:
        missing: number, images and their identity of each part.
        job: its predictors share the batches.
        parts: where the parts are written.
    """
    batches = (
        ((number, source), images[start : start + job.batch_size])
        for number, images, source in missing
        for start in range(0, len(images), job.batch_size)
    )
    metadata = job.predictors[0].metadata
    limit, gap = metadata.max_image_pixels, job.dataset.gap_brightness
    stretch = functools.partial(stretches.stretched_bytes, job.stretch, gap, limit)

    def answer(predict: Any, batch: tuple[Any, Any]) -> tuple[Any, list[Answer]]:
        found = answer_images(predict, job.images_dir, batch[1], metadata, stretch)
        # In this thread, because to draw pictures keeps the interpreter of the main one busy.
        return batch[0], [_with_files(job, one, _write_masks) for one in found]

    answered = in_order(answer, job.predictors, batches)
    for (number, source), group in itertools.groupby(answered, key=operator.itemgetter(0)):
        answers = []
        for _, some in group:
            answers += [_with_files(job, one, _write_overlay) for one in some]
            yield len(some)
        with parts.piece(key(number), source) as part:
            part.value = [answer.to_json() for answer in answers]


def _write_masks(job: Job, answer: Answer) -> None:
    if job.masks_dir:
        outputs.write_masks(job.masks_dir, answer, job.dataset)


def _write_overlay(job: Job, answer: Answer) -> None:
    if job.overlay_dir:
        outputs.write_overlay(job.overlay_dir, answer, job.images_dir, job.dataset)


def _with_files(job: Job, answer: Answer, write: Callable[[Job, Answer], None]) -> Answer:
    """Writes files of one readable image; its answer gets a reason if that fails.

    Raises:
        ValueError: the image has a reason, and on_error is "fail".
    """
    name = answer.filename
    if not answer.reason:
        try:
            write(job, answer)
            return answer
        except Exception as error:  # from any library, about this image alone
            line = about_the_data(str(error)) or type(error).__name__
            answer = Answer(name, answer.class_names, reason=f"cannot be drawn: {line}")
    if job.on_error == "fail":
        raise ValueError(f"{os.path.join(job.images_dir, name)}: {answer.reason}")
    outputs.remove_pictures(job.overlay_dir, job.masks_dir, name, job.dataset)
    return answer
