"""Batch prediction: a folder of images to a submission, resumable and in shards."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from clouds_tf import figures, files, gfile
from clouds_tf.dataset import Dataset
from clouds_tf.manifest import Manifest, checksum, file_identity
from clouds_tf.messages import about_the_data, short_repr
from clouds_tf.prediction import engine as engines
from clouds_tf.prediction import stretch as stretches
from clouds_tf.prediction.likeness import unlike_warning
from clouds_tf.prediction.predictor import Predictor, devices
from clouds_tf.progress import Progress, shown
from clouds_tf.serving import outputs
from clouds_tf.serving.answers import Answer, answer_images, in_order
from clouds_tf.serving.inputs import Inputs, read_inputs, read_sample_rows
from clouds_tf.settings import parse_shard

ON_ERROR = ("blank", "fail")
_BATCHES_IN_PART = 8  # the most that a killed process loses
_IMAGES_IN_PICTURE = 6
_VERSION = 2  # of the parts


@dataclasses.dataclass(frozen=True)
class PredictionResult:
    """Result of `predict`.

    Attributes:
        output: the submission; None where the call did one shard of several.
        num_images: number of images of the call, unreadable ones among them.
        unreadable: images without a prediction, with the reason, such as "a.jpg: an empty file";
            their rows are blank.
        skipped: files of the folder that are not images, each with the reason.
        squeezed: images of another shape than the training's.
        curves: the brightness curves that `stretch` applied, in one line; "" for none.
        warnings: remarks on the results, such as that images do not look like those of the
            training.
    """

    output: str | None
    num_images: int
    unreadable: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    squeezed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    curves: str = ""

    __repr__ = short_repr


def predict(
    saved_model: str | Predictor | Sequence[Predictor],
    images_dir: str,
    output: str,
    sample_submission: str | None = None,
    *,
    batch_size: int = 16,
    num_devices: int | None = None,
    engine: str = "tensorflow",
    shard: tuple[int, int] = (0, 1),
    on_error: str = "blank",
    stretch: str = "none",
    table: str | None = None,
    masks_dir: str | None = None,
    overlay_dir: str | None = None,
    picture: str | None = None,
    progress: Progress | bool = True,
) -> PredictionResult:
    """Predicts a folder of images and writes a submission.

    The work is done in parts of eight batches, which the folder `output`.parts keeps until all of
    them become `output`. Another call predicts missing parts, and images that have
    changed: after an interruption, or where several processes had a shard each. Memory holds the
    names of all images, but not their masks, unless the rows of a sample are not sorted by image.

    Args:
        saved_model: folder of a version that `export` wrote; or one or several Predictors of it,
            which share the work.
        images_dir: folder of the images.
        output: the CSV, or Parquet file by its ending, to write.
        sample_submission: CSV with the rows to fill in; None takes all images, sorted by name.
        batch_size: images in a batch.
        num_devices: number of GPUs to use; None takes all.
        engine: "tensorflow", or "openvino" on the CPU; not for Predictors.
        shard: (i, n) predicts every n-th part from the i-th on, and merges only if n is 1.
        on_error: "blank" leaves the rows of an unreadable image blank, "fail" raises.
        stretch: brightness curve that is applied to each image first, one of `stretch.MODES`.
        table: CSV to write with presence and areas, see `outputs.write_table`; or None.
        masks_dir: folder for masks at the size of each image, see `outputs.write_masks`; or None.
        overlay_dir: folder for a picture of each image with its masks, or None.
        picture: PNG to write of the first images with their masks, or None.
        progress: called with (done, total) images; True shows a bar in a terminal or notebook.

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
    predictors: tuple[Predictor, ...]
    if isinstance(saved_model, str):
        names = ["CPU:0"] if engine == "openvino" else devices(num_devices)
        predictors = tuple(Predictor.open(saved_model, engine, name) for name in names)
    else:
        predictors = (saved_model,) if isinstance(saved_model, Predictor) else tuple(saved_model)
    for predictor in predictors:
        predictor.functions  # a damaged SavedModel is noticed before any work
    stretches.check(stretch, predictors[0].metadata.dataset)
    inputs = read_inputs(images_dir, sample_submission, predictors[0].metadata.dataset)
    job = _Job(
        predictors, images_dir, inputs, batch_size, on_error, stretch, masks_dir, overlay_dir
    )
    parts = Manifest(f"{output}.parts", job.settings())
    whole = shard[1] == 1
    with parts.open(alone=whole):
        parts.prune(keep=set(map(_key, range(job.num_parts))).__contains__)
        mine = range(shard[0], job.num_parts, shard[1])
        _predict_missing(job, parts, mine, whole, shown(progress, "image"))
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
    outputs.check_submission(output)
    for name, path in (("--overlay_dir", overlay_dir), ("--picture", picture)):
        if path:
            files.require("matplotlib", "plots", name)
    for path in filter(None, (table, picture)):
        files.check_output(path)
    for folder in filter(None, (masks_dir, overlay_dir)):
        files.check_output(os.path.join(folder, "image.png"))


@dataclasses.dataclass(frozen=True)
class _Job:
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
        return _BATCHES_IN_PART * self.batch_size

    @property
    def num_parts(self) -> int:
        return -(-len(self.inputs.images) // self.images_in_part)

    def images(self, number: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
        start = number * self.images_in_part
        return self.inputs.images[start : start + self.images_in_part]

    @property
    def dataset(self) -> Dataset:
        return self.predictors[0].metadata.dataset

    def source(self, number: int) -> str:
        """Identity of the images of a part, and of the rows that are wanted of them."""
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


def _key(number: int) -> str:
    return f"{number:06d}"


def _file_identity(folder: str, name: str) -> str:
    try:
        return file_identity(os.path.join(folder, name))
    except OSError:  # such as a link to nothing
        return "unreadable"


def _answers(parts: Manifest, numbers: Iterable[int]) -> Iterator[Answer]:
    """Yields the answers of finished parts, one part in memory at a time."""
    for number in numbers:
        part = parts.read(_key(number))
        assert part is not None
        yield from map(Answer.from_json, part.value)


def _absolute(path: str) -> str:
    return path if gfile.is_remote(path) else os.path.realpath(path)


def _predict_missing(
    job: _Job, parts: Manifest, mine: Iterable[int], whole: bool, progress: Progress
) -> None:
    """Predicts and writes those parts of `mine` that are not there yet.

    Where all are merged afterwards, parts with unreadable images are done again: a cause outside
    the files, such as permissions, may be gone.
    """
    sources = {number: job.source(number) for number in mine}
    todo = [
        number
        for number, source in sources.items()
        if not parts.is_done(_key(number), source)
        or (whole and any(answer.reason for answer in _answers(parts, [number])))
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
    metadata = job.predictors[0].metadata
    limit, gap = metadata.max_image_pixels, job.dataset.gap_brightness
    stretch = functools.partial(stretches.stretched_bytes, job.stretch, gap, limit)

    def answer(predict: Any, batch: tuple[int, Any]) -> tuple[int, list[Answer]]:
        return batch[0], answer_images(predict, job.images_dir, batch[1], metadata, stretch)

    answered = in_order(answer, job.predictors, batches)
    for number, group in itertools.groupby(answered, key=operator.itemgetter(0)):
        answers = []
        for _, some in group:
            answers += [_with_pictures(job, one) for one in some]
            done += len(some)
            progress(done, total)
        with parts.piece(_key(number), sources[number]) as part:
            part.value = [answer.to_json() for answer in answers]


def _with_pictures(job: _Job, answer: Answer) -> Answer:
    """Writes the masks and the picture of one image; its answer gets a reason if that fails.

    Raises:
        ValueError: the image has a reason, and on_error is "fail".
    """
    dataset, name = job.dataset, answer.filename
    if not answer.reason:
        try:
            if job.overlay_dir:
                outputs.write_overlay(job.overlay_dir, answer, job.images_dir, dataset)
            if job.masks_dir:
                outputs.write_masks(job.masks_dir, answer, dataset)
            return answer
        except Exception as error:  # of whatever library: it is the fault of this image alone
            line = about_the_data(str(error)) or type(error).__name__
            answer = Answer(name, answer.class_names, reason=f"cannot be drawn: {line}")
    if job.on_error == "fail":
        raise ValueError(f"{os.path.join(job.images_dir, name)}: {answer.reason}")
    outputs.remove_pictures(job.overlay_dir, job.masks_dir, name, dataset)
    return answer


def _write_outputs(
    job: _Job, parts: Manifest, output: str, table: str | None, picture: str | None
) -> None:
    """Writes everything that is made of the answers to all images."""
    dataset, numbers = job.dataset, range(job.num_parts)
    if table:
        outputs.write_table(table, _answers(parts, numbers), dataset)
    if picture:
        readable = (answer for answer in _answers(parts, numbers) if not answer.reason)
        first = list(itertools.islice(readable, _IMAGES_IN_PICTURE))
        if first:
            figures.save(outputs.draw(first, job.images_dir, dataset), picture)
    outputs.write_submission(output, _rows(job, parts), dataset)


def _rows(job: _Job, parts: Manifest) -> Iterator[tuple[str, str, str]]:
    """The rows of the submission, in their order."""
    dataset = job.dataset
    answers = _answers(parts, range(job.num_parts))
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
    job: _Job, parts: Manifest, mine: Iterable[int], output: str | None
) -> PredictionResult:
    count, unreadable, squeezed, curves = 0, [], [], []
    likeness: dict[str, float | None] = {}
    for answer in _answers(parts, mine):
        count += 1
        curves.append(answer.curve)
        if answer.reason:
            unreadable.append(f"{answer.filename}: {answer.reason}")
            continue
        likeness[answer.filename] = answer.likeness
        if warning := answer.squeezed(job.dataset.mask_size):
            squeezed.append(f"{answer.filename}: {warning}")
    warnings = filter(None, (job.predictors[0].warning, unlike_warning(likeness, "image")))
    about = job.inputs.skipped, tuple(squeezed), tuple(warnings)
    line = stretches.summary(job.stretch, curves, "image")
    return PredictionResult(output, count, tuple(unreadable), *about, line)
