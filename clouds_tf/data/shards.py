"""Sharded TFRecords: written and resumed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import tensorflow as tf

from clouds_tf import files
from clouds_tf.data import planning, runners
from clouds_tf.data.examples import SCHEMA_VERSION, make_example
from clouds_tf.data.planning import PlannedImage, plan_shards
from clouds_tf.data.records_info import (
    FRAMING,
    INFO_FILE,
    RecordsInfo,
    Shard,
    write_info,
)
from clouds_tf.data.source_images import check_images, read_image
from clouds_tf.dataset import TRAIN_IMAGES, Dataset
from clouds_tf.manifest import Manifest, checksum, file_identity
from clouds_tf.messages import Fault, raise_faults
from clouds_tf.settings import check_size

_FOLDS_FILE = "folds.csv"
_REJECTED_FILE = "rejected.csv"
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


def _write_shard(
    manifest: Manifest, name: str, images: Sequence[PlannedImage], how: _Conversion
) -> str:
    """Writes one shard, a piece of a manifest, unless it is there already.

    One with a faulty image is not written at all, or under "skip" without that image.

    Args:
        manifest: the folder of the shards.
        name: file name of the shard.
        images: the images that it should hold, in order.
        how: how they become examples.

    Returns:
        The name.
    """
    path, source = os.path.join(manifest.folder, name), _describe_sources(images, how)
    if manifest.is_done(name, source):
        shard, _ = _read_piece(manifest, name)
        if shard and shard.sha256 == files.sha256(path):
            return name
    faults, written, offsets = [], [], [0]
    with manifest.piece(name, source, [name]) as piece:
        with tf.io.TFRecordWriter(path) as writer:
            for image in images:
                file = os.path.join(how.images_dir, image.filename)
                try:
                    encoded, size = read_image(
                        file, how.dataset.mask_size, how.image_size, how.jpeg_quality
                    )
                except ValueError as error:
                    faults.append(Fault(file, 0, str(error)))
                    continue
                example = make_example(
                    image.filename, encoded, size, image.rles, image.fold, how.dataset
                )
                # The order of a map is that of its keys, not of their hashes, which differ by
                # process.
                record = example.SerializeToString(deterministic=True)
                writer.write(record)
                written.append(image.fold)
                offsets.append(offsets[-1] + len(record) + FRAMING)
        shard = Shard(
            file=name,
            num_examples=len(written),
            folds={fold: written.count(fold) for fold in sorted(set(written))},
            num_bytes=tf.io.gfile.stat(path).length,
            sha256=files.sha256(path),
            offsets=tuple(offsets[:-1]),
        )
        found = [dataclasses.astuple(fault) for fault in faults]
        piece.value = {"shard": shard.to_json(), "faults": found}
        if faults and how.on_error == "fail":
            tf.io.gfile.remove(path)
            piece.value["shard"], piece.error = None, f"{len(faults)} faults"
    return name


def _describe_sources(images: Sequence[PlannedImage], how: _Conversion) -> str:
    """A checksum of the images, rows and folds of a shard."""
    found = []
    for image in images:
        with contextlib.suppress(FileNotFoundError):
            path = os.path.join(how.images_dir, image.filename)
            found.append([image.filename, file_identity(path)])
    return checksum([[dataclasses.astuple(image) for image in images], found])


def _read_piece(manifest: Manifest, name: str) -> tuple[Shard | None, list[Fault]]:
    """The description of a shard, None if it has faults, and its faults."""
    piece = manifest.read(name)
    assert piece is not None  # it was just written
    shard = Shard.from_json(piece.value["shard"]) if piece.value["shard"] else None
    return shard, [Fault(*fault) for fault in piece.value["faults"]]


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
        FileNotFoundError, ValueError: train.csv or images are missing or faulty, an argument is out
            of its range, or another process writes into the folder. Shards that were finished
            stay; dataset_info.json is not written.
    """
    _check_arguments(num_workers, jpeg_quality, on_error, seed, image_size)
    plan, faults = plan_shards(data_dir, dataset, num_shards, num_folds, seed, folds_csv, exclude)
    images_dir = os.path.join(data_dir, TRAIN_IMAGES)
    if faults and on_error == "fail":
        paths = [[os.path.join(images_dir, image.filename) for image in part] for part in plan]
        jobs: list[tuple] = [(part, dataset.mask_size) for part in paths]
        faults += sum(runners.run(check_images, jobs, num_workers), [])
        raise_faults(sorted(faults))
    how = _Conversion(images_dir, dataset, image_size, jpeg_quality, on_error)
    names = [f"clouds-{i:05d}-of-{len(plan):05d}.tfrecord" for i in range(len(plan))]
    settings = {**dataclasses.asdict(how), "images_dir": None, "schema": SCHEMA_VERSION}
    manifest = Manifest(output_dir, settings)
    with manifest.open():
        manifest.prune(names.__contains__)
        _remove_leftovers(manifest)
        jobs = [(manifest, name, part, how) for name, part in zip(names, plan)]
        if runner == "local":
            written = runners.run(_write_shard, jobs, num_workers)
        else:
            written = _write_in_beam(jobs, runner, beam_options)
        shards, found = _collect(manifest, written, sum(map(len, plan)), progress)
        faults += found
        if on_error == "fail":
            raise_faults(sorted(faults))
        elif faults:
            rejected = os.path.join(output_dir, _REJECTED_FILE)
            cells = map(dataclasses.astuple, sorted(faults))
            files.write_table(rejected, ("file", "line", "reason"), cells)
        if not any(shard.num_examples for shard in shards):
            raise ValueError(f"{images_dir}: no image can be read; {len(faults)} faults")
        members = sorted((image.filename, image.fold) for part in plan for image in part)
        files.write_table(os.path.join(output_dir, _FOLDS_FILE), ("filename", "fold"), members)
        info = _describe(shards, how, seed, len(faults))
        write_info(output_dir, info)
    return info


def _describe(
    shards: Sequence[Shard], how: _Conversion, seed: int, num_rejected: int
) -> RecordsInfo:
    """The content of dataset_info.json; ValueError if a fold has no image."""
    folds_with_images = [fold for shard in shards for fold in shard.folds]
    planning.check_folds(folds_with_images, how.images_dir)
    return RecordsInfo(
        dataset=how.dataset,
        image_size=how.image_size,
        num_examples=sum(shard.num_examples for shard in shards),
        num_folds=max(folds_with_images) + 1,
        seed=seed,
        num_rejected=num_rejected,
        shards=tuple(sorted(shards, key=lambda shard: shard.file)),
    )


def _collect(
    manifest: Manifest,
    names: Iterable[str],
    total: int,
    progress: Callable[[int, int], None],
) -> tuple[list[Shard], list[Fault]]:
    """The shards without a fault among those that are written, as they come, and all faults."""
    shards: list[Shard] = []
    faults: list[Fault] = []
    for name in names:
        shard, found = _read_piece(manifest, name)
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
    if image_size is not None:
        check_size("image_size", image_size)


def _write_in_beam(
    jobs: Sequence[tuple[Manifest, str, Sequence[PlannedImage], _Conversion]],
    runner: str,
    beam_options: Sequence[str],
) -> Iterator[str]:
    """Writes shards in Apache Beam, which gets their plans by way of files.

    The RLE of all images are 200 MB of text and more, too much for a description of a pipeline.
    """
    plans = {}
    for manifest, name, images, _ in jobs:
        plans[name] = os.path.join(manifest.folder, name + _PLAN_ENDING)
        plan = [dataclasses.astuple(image) for image in images]
        files.write_text(plans[name], json.dumps(plan))
    small = [(manifest, name, plans[name], how) for manifest, name, _, how in jobs]
    runners.run_in_beam(_write_planned_shard, small, runner, beam_options)
    for name, path in plans.items():
        tf.io.gfile.remove(path)
        yield name


def _write_planned_shard(manifest: Manifest, name: str, plan: str, how: _Conversion) -> None:
    """Writes a shard whose images are listed in a file."""
    rows = json.loads(files.read_text(plan))
    images = [PlannedImage(filename, tuple(rles), fold) for filename, rles, fold in rows]
    _write_shard(manifest, name, images, how)


def _remove_leftovers(manifest: Manifest) -> None:
    """Removes the markers of complete records, and shards that are in no manifest.

    These are of earlier versions, or of the plans of a Beam pipeline that was killed.
    """
    kept = {piece.key for piece in manifest.pieces()}
    for name in tf.io.gfile.listdir(manifest.folder):
        shard = re.fullmatch(r"(clouds-\d{5}-of-\d{5}\.tfrecord)(\.json|\.plan\.json)?", name)
        stale = shard and (name != shard[1] or name not in kept)
        if stale or files.is_unfinished(name) or name in (INFO_FILE, _REJECTED_FILE):
            tf.io.gfile.remove(os.path.join(manifest.folder, name))
