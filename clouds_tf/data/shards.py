"""Sharded TFRecords: written, resumed and verified."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import tensorflow as tf

from clouds_tf import files, manifest
from clouds_tf.data import folds, runners
from clouds_tf.data.annotations import write_table
from clouds_tf.data.examples import SCHEMA_VERSION, make_example
from clouds_tf.data.faults import Fault, raise_faults
from clouds_tf.data.planning import PlannedImage, plan_shards
from clouds_tf.data.records_info import (
    INFO_FILE,
    RecordsInfo,
    Shard,
    fingerprint,
    read_info,
    sha256,
    verify_records,
    write_info,
)
from clouds_tf.data.source_images import check_images, read_image
from clouds_tf.dataset import TRAIN_IMAGES, Dataset

__all__ = [
    "INFO_FILE",
    "RecordsInfo",
    "Shard",
    "fingerprint",
    "read_info",
    "verify_records",
    "write_records",
    "write_shard",
]

FOLDS_FILE = "folds.csv"
REJECTED_FILE = "rejected.csv"
_PLAN_ENDING = ".plan.json"  # of the list of images of a shard, for runners elsewhere


@dataclasses.dataclass(frozen=True)
class _Conversion:
    """How the images of a data folder become examples.

    Attributes:
        images_dir: folder of the images.
        dataset: the data set that they are of.
        image_size: (height, width) to reduce the images to; None keeps the bytes of the files.
        jpeg_quality: quality of reduced images, 1 to 100.
        on_error: "fail" or "skip".
    """

    images_dir: str
    dataset: Dataset
    image_size: tuple[int, int] | None
    jpeg_quality: int
    on_error: str


def write_shard(path: str, images: Sequence[PlannedImage], how: _Conversion) -> str:
    """Writes one shard, and a card beside it that says what it holds and what it was made from.

    A shard whose card agrees is left as it is. One with a faulty image is not written at all, or
    under "skip" without that image.

    Args:
        path: path of the shard.
        images: the images that it should hold, in order.
        how: how they become examples.

    Returns:
        The path.
    """
    made_from = _describe_sources(images, how)
    if tf.io.gfile.exists(path) and tf.io.gfile.exists(path + ".json"):
        card = json.loads(files.read_text(path + ".json"))
        # A shard with faults has no entry; the file is an older one then.
        whole = card["shard"] and card["shard"]["sha256"] == sha256(path)
        if whole and card["made_from"] == made_from:
            return path
    faults, written = [], []
    with files.written_whole(path) as temporary, tf.io.TFRecordWriter(temporary) as writer:
        for image in images:
            source = os.path.join(how.images_dir, image.filename)
            try:
                encoded, size = read_image(
                    source, how.dataset.mask_size, how.image_size, how.jpeg_quality
                )
            except ValueError as error:
                faults.append(Fault(source, 0, str(error)))
                continue
            example = make_example(
                image.filename, encoded, size, image.rles, image.fold, how.dataset
            )
            # The order of a map is that of its keys, not of their hashes, which differ by process.
            writer.write(example.SerializeToString(deterministic=True))
            written.append(image.fold)
    shard = None
    if faults and how.on_error == "fail":
        tf.io.gfile.remove(path)
    else:
        shard = Shard(
            file=os.path.basename(path),
            num_examples=len(written),
            folds={fold: written.count(fold) for fold in sorted(set(written))},
            num_bytes=tf.io.gfile.stat(path).length,
            sha256=sha256(path),
        ).to_json()
    found = [dataclasses.astuple(fault) for fault in faults]
    card = {"shard": shard, "faults": found, "made_from": made_from}
    files.write_text(path + ".json", json.dumps(card, indent=1) + "\n")
    return path


def _describe_sources(images: Sequence[PlannedImage], how: _Conversion) -> str:
    """A checksum of everything that the content of a shard depends on."""
    stats = []
    for image in images:
        path = os.path.join(how.images_dir, image.filename)
        stats.append(manifest.file_identity(path) if tf.io.gfile.exists(path) else None)
    settings = {**dataclasses.asdict(how), "images_dir": None}
    planned = [dataclasses.astuple(image) for image in images]
    text = json.dumps([SCHEMA_VERSION, settings, planned, stats])
    return hashlib.sha256(text.encode()).hexdigest()


def _read_card(path: str) -> tuple[Shard | None, list[Fault]]:
    """The description of a shard, None if it has faults, and its faults."""
    card = json.loads(files.read_text(path + ".json"))
    shard = Shard.from_json(card["shard"]) if card["shard"] else None
    return shard, [Fault(*fault) for fault in card["faults"]]


def write_records(
    data_dir: str,
    output_dir: str,
    dataset: Dataset,
    *,
    num_shards: int | None = None,
    num_folds: int = 5,
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
    num_workers: int = 2,
    jpeg_quality: int = 95,
    folds_csv: str | None = None,
    exclude: str | None = None,
    on_error: str = "fail",
    runner: str = "local",
    beam_options: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> RecordsInfo:
    """Writes a folder of data as shards of TFRecords, folds.csv, and dataset_info.json last.

    Killed at any moment and called again, it writes only the shards that are missing, and the
    result is that of one undisturbed call.

    Args:
        data_dir: a folder with train.csv and train_images/.
        output_dir: folder for the shards.
        dataset: the data set in data_dir. Runs along rows are turned into columns.
        num_shards: number of files, from 1 to the number of images; None takes 16, or one for each
            image where there are fewer.
        num_folds: number of folds, from 2 to 1,000.
        image_size: (height, width) to reduce the images to; None keeps the bytes of the files.
        seed: seed of the folds and of the order, at least 0.
        num_workers: number of processes; 1 writes in this one.
        jpeg_quality: quality of reduced images, 1 to 100.
        folds_csv: a CSV with the columns filename and fold, to take instead of new folds.
        exclude: a text file with a file name on each line: images to leave out.
        on_error: "fail" looks at all the data and then raises an error that lists all faults;
            "skip" leaves faulty images out and lists them in rejected.csv.
        runner: "local", or the name of an Apache Beam runner, such as "direct" or "dataflow", which
            then decides on the number of processes.
        beam_options: options of that runner, such as ["--project=P", "--region=R"].
        progress: called with the number of images written, and of all.

    Returns:
        The content of dataset_info.json.

    Raises:
        FileNotFoundError, ValueError: train.csv or images are missing or faulty, or an argument is
            out of its range. Shards that were finished stay; dataset_info.json is not written.
    """
    _check_arguments(num_workers, jpeg_quality, on_error, seed, image_size)
    plan, faults = plan_shards(data_dir, dataset, num_shards, num_folds, seed, folds_csv, exclude)
    images_dir = os.path.join(data_dir, TRAIN_IMAGES)
    if faults and on_error == "fail":
        paths = [[os.path.join(images_dir, image.filename) for image in part] for part in plan]
        jobs: list[tuple] = [(part, dataset.mask_size) for part in paths]
        faults += sum(runners.run(check_images, jobs, num_workers), [])
        raise_faults(sorted(faults))
    _remove_leftovers(output_dir)
    how = _Conversion(images_dir, dataset, image_size, jpeg_quality, on_error)
    name = os.path.join(output_dir, "clouds-{:05d}-of-{:05d}.tfrecord")
    jobs = [(name.format(i, len(plan)), part, how) for i, part in enumerate(plan)]
    if runner == "local":
        written = runners.run(write_shard, jobs, num_workers)
    else:
        written = _write_in_beam(jobs, runner, beam_options)
    shards, found = _collect(written, sum(map(len, plan)), progress)
    faults += found
    if on_error == "fail":
        raise_faults(sorted(faults))
    elif faults:
        rejected = os.path.join(output_dir, REJECTED_FILE)
        cells = map(dataclasses.astuple, sorted(faults))
        write_table(rejected, ("file", "line", "reason"), cells)
    num_examples = sum(shard.num_examples for shard in shards)
    if not num_examples:
        raise ValueError(f"{images_dir}: no image can be read; {len(faults)} faults")
    members = sorted((image.filename, image.fold) for part in plan for image in part)
    write_table(os.path.join(output_dir, FOLDS_FILE), ("filename", "fold"), members)
    folds_with_images = [fold for shard in shards for fold in shard.folds]
    folds.check_folds(folds_with_images, images_dir)
    info = RecordsInfo(
        dataset=dataset,
        image_size=image_size,
        num_examples=num_examples,
        num_folds=max(folds_with_images) + 1,
        seed=seed,
        num_rejected=len(faults),
        shards=tuple(sorted(shards, key=lambda shard: shard.file)),
    )
    write_info(output_dir, info)
    return info


def _collect(
    paths: Iterable[str], total: int, progress: Callable[[int, int], None]
) -> tuple[list[Shard], list[Fault]]:
    """The shards without a fault among those that are written, as they come, and all faults."""
    shards: list[Shard] = []
    faults: list[Fault] = []
    for shard, found in map(_read_card, paths):
        faults += found
        if shard:
            shards.append(shard)
            progress(sum(shard.num_examples for shard in shards), total)
    return shards, faults


def _check_arguments(
    num_workers: int,
    jpeg_quality: int,
    on_error: str,
    seed: int,
    image_size: tuple[int, int] | None,
) -> None:
    """Raises ValueError for an argument of `write_records` that is out of its range."""
    if num_workers < 1:
        raise ValueError(f"num_workers: got {num_workers}, expected at least 1")
    if not 1 <= jpeg_quality <= 100:
        raise ValueError(f"jpeg_quality: got {jpeg_quality}, expected 1 to 100")
    if on_error not in ("fail", "skip"):
        raise ValueError(f"on_error: got {on_error!r}, expected 'fail' or 'skip'")
    if seed < 0:
        raise ValueError(f"seed: got {seed}, expected at least 0")
    if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
        raise ValueError(f"image_size: got {image_size}, expected (height, width) in pixels")


def _write_in_beam(
    jobs: Sequence[tuple[str, Sequence[PlannedImage], _Conversion]],
    runner: str,
    beam_options: Sequence[str],
) -> Iterator[str]:
    """Writes shards in Apache Beam, which gets their plans by way of files.

    The RLE of all images are 200 MB of text and more, too much for a description of a pipeline.
    """
    for path, images, _ in jobs:
        plan = [dataclasses.astuple(image) for image in images]
        files.write_text(path + _PLAN_ENDING, json.dumps(plan))
    small = [(path, how) for path, _, how in jobs]
    runners.run_in_beam(_write_planned_shard, small, runner, beam_options)
    for path, *_ in jobs:
        tf.io.gfile.remove(path + _PLAN_ENDING)
        yield path


def _write_planned_shard(path: str, how: _Conversion) -> None:
    """Writes a shard whose images are listed in a file beside it."""
    plan = json.loads(files.read_text(path + _PLAN_ENDING))
    images = [PlannedImage(filename, tuple(rles), fold) for filename, rles, fold in plan]
    write_shard(path, images, how)


def _remove_leftovers(output_dir: str) -> None:
    """Removes what a killed run left half-written, and the files that say that all is well."""
    for name in tf.io.gfile.listdir(output_dir) if tf.io.gfile.isdir(output_dir) else ():
        if files.is_unfinished(name) or name in (INFO_FILE, REJECTED_FILE):
            tf.io.gfile.remove(os.path.join(output_dir, name))
