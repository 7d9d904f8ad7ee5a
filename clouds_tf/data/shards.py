"""Writes sharded TFRecords; resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from clouds_tf import files, gfile
from clouds_tf.data import planning, runners
from clouds_tf.data.examples import SCHEMA_VERSION, check_exclusive, make_example
from clouds_tf.data.planning import Conversion, PlannedImage, plan_shards
from clouds_tf.data.records_info import (
    FRAMING,
    INFO_FILE,
    RecordsInfo,
    Shard,
    write_info,
)
from clouds_tf.data.source_images import check_images, read_image
from clouds_tf.dataset import Dataset
from clouds_tf.manifest import Manifest, checksum, file_identity
from clouds_tf.messages import Fault, counted, raise_faults
from clouds_tf.progress import Progress, shown

_FOLDS_FILE = "folds.csv"
_REJECTED_FILE = "rejected.csv"
_PLAN_ENDING = ".plan.json"  # of the list of images of a shard, for Beam workers


@dataclasses.dataclass(frozen=True)
class _Source:
    """A folder of images, their data set, and how they become examples."""

    images_dir: str
    dataset: Dataset
    how: Conversion

    def locate(self, image: PlannedImage) -> tuple[str, tuple[int, int]]:
        """The path of an image, and the size of its masks."""
        path = os.path.join(image.folder or self.images_dir, image.filename)
        return path, image.mask_size or self.dataset.mask_size


def _write_shard(
    manifest: Manifest, name: str, images: Sequence[PlannedImage], source: _Source
) -> str:
    """Writes one shard, a piece of a manifest, unless it is up to date; returns its name.

    A shard with a faulty image is not written, or with on_error="skip" without that image.
    """
    path, identity = os.path.join(manifest.folder, name), _describe_sources(images, source)
    if manifest.is_done(name, identity):
        shard, _ = _read_piece(manifest, name)
        if shard and shard.sha256 == files.sha256(path):
            return name
    faults, written, offsets = [], [], [0]
    with manifest.piece(name, identity, [name]) as piece:
        with tf.io.TFRecordWriter(path) as writer:
            for image in images:
                file, mask_size = source.locate(image)
                try:
                    check_exclusive(image.rles, source.dataset)
                    encoded, size = read_image(
                        file,
                        mask_size,
                        source.how.image_size,
                        source.how.jpeg_quality,
                        source.dataset.channels,
                    )
                except ValueError as error:
                    faults.append(Fault(file, 0, str(error)))
                    continue
                example = make_example(
                    image.filename, encoded, size, image.rles, image.fold, source.dataset, mask_size
                )
                # Maps are sorted by key; the default order differs between processes.
                record = example.SerializeToString(deterministic=True)
                writer.write(record)
                written.append(image.fold)
                offsets.append(offsets[-1] + len(record) + FRAMING)
        shard = Shard(
            file=name,
            num_examples=len(written),
            folds={fold: written.count(fold) for fold in sorted(set(written))},
            num_bytes=gfile.stat(path).length,
            sha256=files.sha256(path),
            offsets=tuple(offsets[:-1]),
        )
        found = [dataclasses.astuple(fault) for fault in faults]
        piece.value = {"shard": shard.to_json(), "faults": found}
        if faults and source.how.on_error == "fail":
            gfile.remove(path)
            piece.value["shard"], piece.error = None, counted(len(faults), "fault")
    return name


def _describe_sources(images: Sequence[PlannedImage], source: _Source) -> str:
    """Checksum of the images, rows and folds of a shard."""
    found = []
    for image in images:
        with contextlib.suppress(FileNotFoundError):
            found.append([image.filename, file_identity(source.locate(image)[0])])
    return checksum([[image.to_json() for image in images], found])


def _read_piece(manifest: Manifest, name: str) -> tuple[Shard | None, list[Fault]]:
    """The description of a shard, or None if it has faults; and its faults."""
    piece = manifest.read(name)
    assert piece is not None  # it was just written
    shard = Shard.from_json(piece.value["shard"]) if piece.value["shard"] else None
    return shard, [Fault(*fault) for fault in piece.value["faults"]]


def write_records(
    data_dir: str,
    output_dir: str,
    dataset: Dataset,
    *,
    progress: Progress | bool = True,
    **settings: Any,
) -> RecordsInfo:
    """Converts a data folder to TFRecord shards, folds.csv and, last, dataset_info.json.

    If it is killed and called again, it writes only the missing shards, and the result is the same
    as without interruption.

    Args:
        data_dir: a folder with train.csv and train_images/, or the names in the data set.
        output_dir: folder for the shards.
        dataset: the data set in data_dir. Runs along rows are converted to runs along columns.
        progress: called with (done, total) images; True shows a bar in a terminal or notebook.
        settings: the fields of `planning.Conversion` that differ from their defaults.

    Returns:
        The content of dataset_info.json.

    Raises:
        FileNotFoundError, ValueError: train.csv or images are missing or faulty, an argument is out
            of range, or another process writes into the folder. Finished shards are kept, and
            dataset_info.json is not written.
    """
    how = Conversion(**settings)
    plan, faults = plan_shards(data_dir, dataset, how)
    source = _Source(os.path.join(data_dir, dataset.train_images), dataset, how)
    if faults and how.on_error == "fail":
        jobs: list[tuple] = [
            ([source.locate(image) for image in part], dataset.channels) for part in plan
        ]
        faults += sum(runners.run(check_images, jobs, how.num_workers), [])
        raise_faults(sorted(faults))
    names = [f"clouds-{i:05d}-of-{len(plan):05d}.tfrecord" for i in range(len(plan))]
    identity = {
        "images_dir": None,
        "dataset": dataset.to_json(),
        **{name: getattr(how, name) for name in ("image_size", "jpeg_quality", "on_error")},
        "schema": SCHEMA_VERSION,
    }
    manifest = Manifest(output_dir, identity)
    with manifest.open():
        manifest.prune(names.__contains__)
        _remove_leftovers(manifest)
        jobs = [(manifest, name, part, source) for name, part in zip(names, plan)]
        if how.runner == "local":
            written = runners.run(_write_shard, jobs, how.num_workers)
        else:
            written = _write_in_beam(jobs, how)
        shards, found = _collect(manifest, written, sum(map(len, plan)), shown(progress, "image"))
        faults += found
        if how.on_error == "fail":
            raise_faults(sorted(faults))
        elif faults:
            rejected = os.path.join(output_dir, _REJECTED_FILE)
            cells = map(dataclasses.astuple, sorted(faults))
            files.write_table(rejected, ("file", "line", "reason"), cells)
        if not any(shard.num_examples for shard in shards):
            raise ValueError(
                f"{source.images_dir}: no image can be read; {counted(len(faults), 'fault')}"
            )
        members = sorted((image.filename, image.fold) for part in plan for image in part)
        files.write_table(os.path.join(output_dir, _FOLDS_FILE), ("filename", "fold"), members)
        info = _describe(shards, source, len(faults))
        write_info(output_dir, info)
    return info


def _describe(shards: Sequence[Shard], source: _Source, num_rejected: int) -> RecordsInfo:
    """The content of dataset_info.json; ValueError if a fold has no image."""
    folds_with_images = [fold for shard in shards for fold in shard.folds]
    planning.check_folds(folds_with_images, source.images_dir)
    return RecordsInfo(
        dataset=source.dataset,
        image_size=source.how.image_size,
        num_examples=sum(shard.num_examples for shard in shards),
        num_folds=max(folds_with_images) + 1,
        seed=source.how.seed,
        num_rejected=num_rejected,
        shards=tuple(sorted(shards, key=lambda shard: shard.file)),
    )


def _collect(
    manifest: Manifest,
    names: Iterable[str],
    total: int,
    progress: Progress,
) -> tuple[list[Shard], list[Fault]]:
    """Collects the faultless shards, and all faults, while shards are written."""
    shards: list[Shard] = []
    faults: list[Fault] = []
    for name in names:
        shard, found = _read_piece(manifest, name)
        faults += found
        if shard:
            shards.append(shard)
            progress(sum(shard.num_examples for shard in shards), total)
    return shards, faults


def _write_in_beam(
    jobs: Sequence[tuple[Manifest, str, Sequence[PlannedImage], _Source]], how: Conversion
) -> Iterator[str]:
    """Writes shards in Apache Beam, with their plans in files.

    The RLE of all images has 200 MB of text or more, too much for the graph of a pipeline.
    """
    plans = {}
    for manifest, name, images, _ in jobs:
        plans[name] = os.path.join(manifest.folder, name + _PLAN_ENDING)
        files.write_text(plans[name], json.dumps([image.to_json() for image in images]))
    small = [(manifest, name, plans[name], source) for manifest, name, _, source in jobs]
    runners.run_in_beam(_write_planned_shard, small, how.runner, how.beam_options)
    for name, path in plans.items():
        gfile.remove(path)
        yield name


def _write_planned_shard(manifest: Manifest, name: str, plan: str, source: _Source) -> None:
    """Writes a shard whose images are listed in a file."""
    images = list(map(PlannedImage.from_json, json.loads(files.read_text(plan))))
    _write_shard(manifest, name, images, source)


def _remove_leftovers(manifest: Manifest) -> None:
    """Removes the completion markers, and files that are not in the manifest.

    The latter are shards of earlier versions, and plans of a killed Beam pipeline.
    """
    kept = {piece.key for piece in manifest.pieces()}
    for name in gfile.listdir(manifest.folder):
        shard = re.fullmatch(r"(clouds-\d{5}-of-\d{5}\.tfrecord)(\.json|\.plan\.json)?", name)
        stale = shard and (name != shard[1] or name not in kept)
        if stale or files.is_unfinished(name) or name in (INFO_FILE, _REJECTED_FILE):
            gfile.remove(os.path.join(manifest.folder, name))
