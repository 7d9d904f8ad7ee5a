"""Batch prediction of a folder of images to a submission; resumable, in shards."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

from clouds_tf import figures, files
from clouds_tf.data.runners import Runner
from clouds_tf.manifest import Manifest
from clouds_tf.messages import short_repr
from clouds_tf.prediction import engine as engines
from clouds_tf.prediction import stretch as stretches
from clouds_tf.prediction.likeness import unlike_warning
from clouds_tf.prediction.predictor import Predictor, devices
from clouds_tf.progress import Progress, shown
from clouds_tf.serving import outputs
from clouds_tf.serving.inputs import read_inputs, read_sample_rows
from clouds_tf.serving.parts import Job, answers_of, key, predict_missing
from clouds_tf.settings import parse_shard

ON_ERROR = ("blank", "fail")
_IMAGES_IN_PICTURE = 6


@dataclasses.dataclass(frozen=True)
class PredictionResult:
    """Result of `predict`.

    Attributes:
        output: the submission; None if the call predicted one shard of several.
        num_images: number of images of the call, including unreadable ones.
        unreadable: images without a prediction, with the reason, such as "a.jpg: an empty file";
            their rows are blank.
        skipped: files of the folder that are not images, each with the reason.
        squeezed: images with another aspect ratio than the training images.
        curves: the brightness curves that `stretch` applied, in one line; "" for none.
        warnings: remarks on the results, such as that images do not look like the training images.
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
    runner: Runner = Runner(),
    progress: Progress | bool = True,
) -> PredictionResult:
    """Predicts a folder of images and writes a submission.

    The work is done in parts of eight batches, which the folder `output`.parts keeps until all of
    them are merged. After an interruption, or after several processes have predicted a shard each,
    another call predicts missing parts and changed images, and merges them. Memory holds the names
    of all images, but not their masks, unless the rows of a sample are not grouped by image.

    Args:
        saved_model: folder of a version that `export` wrote; or Predictors of it, which share the
            work.
        images_dir: folder of the images.
        output: the file to write: Parquet if it ends in .parquet, otherwise a CSV.
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
        runner: where parts are predicted; each of several processes loads the model, and takes one
            device.
        progress: called with (done, total) images; True shows a bar in a terminal or notebook.

    Raises:
        FileNotFoundError: the SavedModel, the sample, the folder or an image of the sample is
            missing.
        ValueError: an argument is wrong, a package is missing, an output cannot be written, the
            sample is malformed, there are no images, an image is unreadable, or another process
            writes the same output.
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
        names: Sequence[str | None] = [None]  # the one that a process of a runner finds
        if runner == Runner():
            names = ["CPU:0"] if engine == "openvino" else devices(num_devices)
        predictors = tuple(Predictor.open(saved_model, engine, name) for name in names)
    else:
        predictors = (saved_model,) if isinstance(saved_model, Predictor) else tuple(saved_model)
    for predictor in predictors:
        predictor.functions  # a damaged SavedModel is noticed before any work
    stretches.check(stretch, predictors[0].metadata.dataset)
    inputs = read_inputs(images_dir, sample_submission, predictors[0].metadata.dataset)
    job = Job(
        predictors, images_dir, inputs, batch_size, on_error, stretch, masks_dir, overlay_dir
    )
    parts = Manifest(f"{output}.parts", job.settings())
    whole = shard[1] == 1
    with parts.open(alone=whole):
        parts.prune(keep=set(map(key, range(job.num_parts))).__contains__)
        mine = range(shard[0], job.num_parts, shard[1])
        predict_missing(job, parts, mine, whole, runner, shown(progress, "image"))
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
    """Raises ValueError if one of the outputs cannot be written."""
    outputs.check_submission(output)
    for name, path in (("--overlay_dir", overlay_dir), ("--picture", picture)):
        if path:
            files.require("matplotlib", "plots", name)
    for path in filter(None, (table, picture)):
        files.check_output(path)
    for folder in filter(None, (masks_dir, overlay_dir)):
        files.check_output(os.path.join(folder, "image.png"))


def _write_outputs(
    job: Job, parts: Manifest, output: str, table: str | None, picture: str | None
) -> None:
    """Writes all outputs that are made from the answers to all images."""
    dataset, numbers = job.dataset, range(job.num_parts)
    if table:
        outputs.write_table(table, answers_of(parts, numbers), dataset)
    if picture:
        readable = (answer for answer in answers_of(parts, numbers) if not answer.reason)
        first = list(itertools.islice(readable, _IMAGES_IN_PICTURE))
        if first:
            figures.save(outputs.draw(first, job.images_dir, dataset), picture)
    outputs.write_submission(output, _rows(job, parts), dataset)


def _rows(job: Job, parts: Manifest) -> Iterator[tuple[str, str, str]]:
    """The rows of the submission, in their order."""
    dataset = job.dataset
    answers = answers_of(parts, range(job.num_parts))
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
    job: Job, parts: Manifest, mine: Iterable[int], output: str | None
) -> PredictionResult:
    count, unreadable, squeezed, curves = 0, [], [], []
    likeness: dict[str, float | None] = {}
    for answer in answers_of(parts, mine):
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
