"""Batch prediction: a folder of images to a submission, resumable and in shards."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import operator
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

from clouds_tf import figures, files
from clouds_tf.prediction import engine as engines
from clouds_tf.prediction.predictor import LoadedModel, load_model
from clouds_tf.serving import pictures, submission
from clouds_tf.serving.answers import Answer, answer_images
from clouds_tf.serving.inputs import Inputs, Remark, read_inputs, read_sample_rows
from clouds_tf.serving.parts import Parts

ON_ERROR = ("blank", "fail")
_BATCHES_IN_PART = 8  # what a killed process loses at most
_IMAGES_IN_PICTURE = 6
_STRETCH = 0.02  # of the aspect ratio; more changes what the network sees

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class PredictionResult:
    """What a call of `predict` has done.

    Attributes:
        output: the submission; None where the call did one shard of several.
        num_images: number of images of the call, unreadable ones among them.
        unreadable: images without a prediction, with the reason; their rows are blank.
        skipped: files of the folder that are no images, with the reason.
        stretched: images of another shape than the training's.
        warning: why TensorFlow computed where OpenVINO was asked for, or "".
    """

    output: str | None
    num_images: int
    unreadable: tuple[Remark, ...] = ()
    skipped: tuple[Remark, ...] = ()
    stretched: tuple[Remark, ...] = ()
    warning: str = ""


def parse_shard(text: str) -> tuple[int, int]:
    """Reads "i/n", the i-th of n shards from 0 on, as (i, n); ValueError for anything else."""
    parts = text.split("/")
    if len(parts) != 2 or not all(p.isdecimal() for p in parts) or int(parts[0]) >= int(parts[1]):
        raise ValueError(f"shard: got {text!r}, expected i/n with i from 0 to n - 1, such as 0/3")
    return int(parts[0]), int(parts[1])


def predict(
    saved_model: str | LoadedModel,
    images_dir: str,
    output: str,
    sample_submission: str | None = None,
    *,
    batch_size: int = 16,
    num_devices: int | None = None,
    engine: str = "tensorflow",
    shard: tuple[int, int] = (0, 1),
    on_error: str = "blank",
    table: str | None = None,
    masks_dir: str | None = None,
    overlay_dir: str | None = None,
    picture: str | None = None,
    progress: Progress | None = None,
) -> PredictionResult:
    """Predicts a folder of images and writes a submission.

    The work is done in parts of eight batches, each a file in the folder `output`.parts. Run again,
    the call predicts what is missing there: after an interruption, or where several processes had
    a shard each. When nothing is missing, the parts become `output`. Memory holds the names of all
    images, but not their masks, unless the rows of a sample are not sorted by image.

    Args:
        saved_model: folder of a version that `export` wrote, or a model that `load_model` loaded.
        images_dir: folder of the images.
        output: the CSV, or Parquet file by its ending, to write.
        sample_submission: CSV with the rows to fill in; None takes all images, sorted by name.
        batch_size: images in a batch.
        num_devices: number of GPUs to use; None takes all.
        engine: "tensorflow", or "openvino" on the CPU; not for a model that is loaded already.
        shard: (i, n) predicts every n-th part from the i-th on, and merges only if n is 1.
        on_error: "blank" leaves the rows of an unreadable image blank, "fail" raises.
        table: CSV to write with presence and areas, see `submission.write_table`; or None.
        masks_dir: folder for masks at the size of each image, see `pictures.write_masks`; or None.
        overlay_dir: folder for a picture of each image with its masks, or None.
        picture: PNG to write of the first images with their masks, or None.
        progress: called with the number of images done and of all.

    Returns:
        A PredictionResult.

    Raises:
        FileNotFoundError: there is no SavedModel, sample, folder or image that the sample names.
        ValueError: an argument is wrong, a package is missing, an output cannot be written, the
            sample is malformed, there are no images, an image is unreadable, or another process
            predicts them too.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error: got {on_error!r}, expected one of {', '.join(ON_ERROR)}")
    parse_shard("{}/{}".format(*shard))
    engines.require(engine)
    _check_outputs(output, table, masks_dir, overlay_dir, picture)
    model = saved_model
    if isinstance(model, str):
        model = load_model(model, num_devices, engine)
    inputs = read_inputs(images_dir, sample_submission, model.metadata.dataset)
    job = _Job(model, images_dir, inputs, batch_size, on_error, masks_dir, overlay_dir)
    parts = Parts(output, job.settings())
    whole = shard[1] == 1
    parts.start()
    with parts.in_use(alone=whole):
        mine = range(shard[0], job.num_parts, shard[1])
        _predict_missing(job, parts, mine, whole, progress or (lambda done, total: None))
        if whole:
            _write_outputs(job, parts, output, table, picture)
        result = _summary(job, parts, mine, output if whole else None)
    if whole:
        parts.remove()
    return result


def _check_outputs(
    output: str,
    table: str | None,
    masks_dir: str | None,
    overlay_dir: str | None,
    picture: str | None,
) -> None:
    """Raises ValueError if one of the outputs could not be written."""
    submission.check_output(output)
    for name, path in (("--overlay_dir", overlay_dir), ("--picture", picture)):
        if path:
            files.require("matplotlib", "plots", name)
    for path in filter(None, (table, picture)):
        files.check_output(path)
    for folder in filter(None, (masks_dir, overlay_dir)):
        files.check_output(os.path.join(folder, "image.png"))


@dataclasses.dataclass(frozen=True)
class _Job:
    """What all shards of a prediction have in common."""

    model: LoadedModel
    images_dir: str
    inputs: Inputs
    batch_size: int
    on_error: str
    masks_dir: str | None
    overlay_dir: str | None

    @property
    def images_in_part(self) -> int:
        return _BATCHES_IN_PART * self.batch_size

    @property
    def num_parts(self) -> int:
        return -(-len(self.inputs.images) // self.images_in_part)

    def images(self, number: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
        start = number * self.images_in_part
        return self.inputs.images[start : start + self.images_in_part]

    def settings(self) -> dict[str, Any]:
        """Whatever changes the parts, and the files that are written with them."""
        return {
            "model": self.model.fingerprint,
            "images_dir": _absolute(self.images_dir),
            "images": self.inputs.checksum(),
            "batch_size": self.batch_size,
            "masks_dir": self.masks_dir and _absolute(self.masks_dir),
            "overlay_dir": self.overlay_dir and _absolute(self.overlay_dir),
        }


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.realpath(path)


def _predict_missing(
    job: _Job, parts: Parts, mine: Iterable[int], whole: bool, progress: Progress
) -> None:
    """Predicts and writes those parts of `mine` that are not there yet.

    Where all are merged afterwards, parts with unreadable images are done again: somebody may have
    repaired the files.
    """
    todo = [
        number
        for number in mine
        if not parts.has(number)
        or (whole and any(answer.reason for answer in parts.read([number])))
    ]
    total = sum(len(job.images(number)) for number in mine)
    done = total - sum(len(job.images(number)) for number in todo)
    progress(done, total)
    batches = (
        (number, images[start : start + job.batch_size])
        for number in todo
        for images in [job.images(number)]
        for start in range(0, len(images), job.batch_size)
    )
    limit = job.model.metadata.max_image_pixels

    def answer(predict: Any, batch: tuple[int, Any]) -> tuple[int, list[Answer]]:
        return batch[0], answer_images(predict, job.images_dir, batch[1], limit)

    answered = _in_order(answer, job.model.predictors, batches)
    for number, group in itertools.groupby(answered, key=operator.itemgetter(0)):
        answers = []
        for _, some in group:
            for one in some:
                _write_pictures(job, one)
            answers += some
            done += len(some)
            progress(done, total)
        parts.write(number, answers)


def _write_pictures(job: _Job, answer: Answer) -> None:
    """Writes the files that belong to one image; ValueError if it is unreadable and must not be."""
    dataset = job.model.metadata.dataset
    if answer.reason:
        if job.on_error == "fail":
            raise ValueError(f"{os.path.join(job.images_dir, answer.filename)}: {answer.reason}")
        return
    if job.overlay_dir:
        pictures.write_overlay(job.overlay_dir, answer, job.images_dir, dataset)
    if job.masks_dir:
        pictures.write_masks(job.masks_dir, answer, dataset)


def _in_order(
    function: Callable[[Any, Any], Any], workers: tuple[Any, ...], items: Iterable[Any]
) -> Iterator[Any]:
    """Yields function(worker, item) of each item in order, two at a time on each worker.

    While one of the two computes, the other one reads and decodes.
    """
    with futures.ThreadPoolExecutor(2 * len(workers)) as pool:
        running: collections.deque[futures.Future[Any]] = collections.deque()
        for worker, item in zip(itertools.cycle(workers), items):
            running.append(pool.submit(function, worker, item))
            if len(running) == 2 * len(workers):
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _write_outputs(
    job: _Job, parts: Parts, output: str, table: str | None, picture: str | None
) -> None:
    """Writes everything that is made of the answers to all images."""
    dataset, numbers = job.model.metadata.dataset, range(job.num_parts)
    if table:
        submission.write_table(table, parts.read(numbers), dataset)
    if picture:
        readable = (answer for answer in parts.read(numbers) if not answer.reason)
        first = list(itertools.islice(readable, _IMAGES_IN_PICTURE))
        if first:
            figures.save(pictures.draw(first, job.images_dir, dataset), picture)
    submission.write(output, _rows(job, parts), dataset)


def _rows(job: _Job, parts: Parts) -> Iterator[tuple[str, str, str]]:
    """The rows of the submission, in their order."""
    dataset = job.model.metadata.dataset
    answers = parts.read(range(job.num_parts))
    if job.inputs.sample is None:
        for answer in answers:
            by_class = dict(zip(dataset.class_names, answer.encoded_pixels))
            for name in answer.class_names:
                yield answer.filename, name, by_class.get(name, "")
        return
    found = {answer.filename: answer.encoded_pixels for answer in answers}
    places = {name: i for i, name in enumerate(dataset.class_names)}
    for filename, name in read_sample_rows(job.inputs.sample, dataset):
        rles = found[filename]
        yield filename, name, rles[places[name]] if rles else ""


def _summary(
    job: _Job, parts: Parts, mine: Iterable[int], output: str | None
) -> PredictionResult:
    count, unreadable, stretched = 0, [], []
    height, width = job.model.metadata.dataset.mask_size
    for answer in parts.read(mine):
        count += 1
        if answer.reason:
            unreadable.append(Remark(answer.filename, answer.reason))
        elif answer.size is not None:
            stretch = answer.size[1] / answer.size[0] * height / width
            if max(stretch, 1 / stretch) > 1 + _STRETCH:
                text = "{}x{} (height x width) was squeezed to the shape of {}x{}, which changes "
                text += "what the network sees; tools/predict_scenes.py takes images of any shape"
                text = text.format(*answer.size, height, width)
                stretched.append(Remark(answer.filename, text))
    return PredictionResult(
        output,
        count,
        tuple(unreadable),
        job.inputs.skipped,
        tuple(stretched),
        job.model.warning,
    )
