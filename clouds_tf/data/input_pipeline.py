"""Shards -> batches of images and masks, as tf.data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import tensorflow as tf

from clouds_tf import rle
from clouds_tf.data import disk_cache
from clouds_tf.data.augmentation import MIXES, check_augmentation, find_augmentation
from clouds_tf.data.batching import (
    MixedPart,
    batch_pairs,
    batch_sizes,
    mixed_parts,
    slices,
    take,
)
from clouds_tf.data.packing import classes_last
from clouds_tf.data.preprocessing import decode_image
from clouds_tf.data.reading import read_records, shuffle
from clouds_tf.data.records_info import fingerprint, read_info
from clouds_tf.data.service import serve_epochs

Size = tuple[int, int]

CACHES = ("none", "memory", "disk")
# Records that wait to be decoded, to bridge the time in which the shuffle of an epoch fills.
_READ_AHEAD = 128


def count_examples(records_dir: str, folds: Collection[int]) -> int:
    """Counts the images of some folds of a folder of shards."""
    return read_info(records_dir).count(folds)


def split_folds(records_dir: str, fold: int) -> tuple[list[int], list[int]]:
    """The folds to train on and to hold out: ([every fold but `fold`], [fold]).

    Raises:
        ValueError: the records have no such fold.
    """
    num_folds = read_info(records_dir).num_folds
    if not 0 <= fold < num_folds:
        raise ValueError(f"fold: got {fold}, expected 0 to {num_folds - 1}, as {records_dir} has")
    return [f for f in range(num_folds) if f != fold], [fold]


def steps_per_epoch(records_dir: str, folds: Collection[int], batch_size: int) -> int:
    """Number of batches in which an epoch shows every image once."""
    return len(batch_sizes(count_examples(records_dir, folds), batch_size))


def load_example(
    record: dict[str, tf.Tensor], image_size: Size, mask_size: Size, num_classes: int
) -> dict[str, tf.Tensor]:
    """Decodes a parsed record: image and masks, each at the size asked for.

    Args:
        record: a dict as `parse_example` returns it.
        image_size: (height, width) of the image.
        mask_size: (height, width) of the masks.
        num_classes: number of classes C of the records.

    Returns:
        A dict: image uint8 [h, w, 3], mask uint8 [h', w', C] of {0, 1}.
    """
    runs = tf.cast(record["runs"], tf.int32)
    masks = rle.draw(runs, num_classes, record["mask_size"], mask_size)
    return {
        "image": decode_image(record["encoded"], image_size),
        "mask": classes_last(tf.reshape(masks, [num_classes, *mask_size])),
    }


# AutoGraph takes seconds to rewrite all functions that are called here; none of them needs it.
@tf.autograph.experimental.do_not_convert
def training_batches(
    records_dir: str,
    folds: Sequence[int],
    image_size: Size,
    batch_size: int,
    epochs: int,
    seed: int = 0,
    initial_epoch: int = 0,
    augmentation: str = "flips",
    mix: str = "none",
    cache: str = "none",
    cache_dir: str | None = None,
    data_service: str | None = None,
    worker: int = 0,
    num_workers: int = 1,
    initial_step: int = 0,
) -> tf.data.Dataset:
    """Batches of every epoch to come, one after the other.

    An epoch shows every image exactly once, in an order and with an augmentation of its own: what
    an image looks like depends on (seed, epoch, file name) alone, so a run that is resumed in epoch
    k sees what an undisturbed one would have seen.

    Args:
        records_dir: a folder of shards.
        folds: the folds to train on.
        image_size: (height, width) of images and masks.
        batch_size: the most images in a batch, over all replicas; see `batching.batch_sizes`.
        epochs: number of epochs in the whole run.
        seed: seed of the order and of the augmentation.
        initial_epoch: the first epoch to show, counted from 0.
        augmentation: what happens to each image; see `augmentation.check_augmentation`.
        mix: what happens to each batch, a key of MIXES; it depends on (seed, step).
        cache: where decoded images wait for the next epoch: "none", "memory" or "disk". With a
            cache the order of the images is another, as it shuffles what is decoded; on disk within
            a window of 256 MB.
        cache_dir: a folder for "disk", on this machine. What is in it is used by runs on the same
            records, folds and size, and is begun anew after a run that was killed before it had
            seen all images.
        data_service: grpc://host:port of the dispatcher of a tf.data service, whose workers then
            read, decode and augment. Each image is still shown once in an epoch, but in the order
            in which it comes.
        worker: number of this worker, from 0.
        num_workers: number of workers that share each batch. Together, and in the order of their
            numbers, their parts of batch i are the batch i of a single worker, mixed or not. Each
            reads all records and decodes its own images alone (under a mix one more per batch), but
            with a cache all of them.
        initial_step: number of batches of the first epoch to leave out; they are not decoded.

    Returns:
        A tf.data.Dataset of (image uint8 [B, h, w, 3] 0..255, mask uint8 [B, h, w, C] of {0, 1});
        both float32, and masks of 0..1, under mixup.

    Raises:
        FileNotFoundError, ValueError: the records are missing or damaged; an argument is out of its
            range; no folder for a cache on disk, or another run is filling it; nothing listens at
            data_service, or it is asked for together with a cache, several workers or a first step.
    """
    info = read_info(records_dir)
    _check_size("image_size", image_size)
    _check_training(augmentation, mix, cache, epochs, initial_epoch)
    _check_service(data_service, cache, num_workers, initial_step)
    num_classes, augment = info.dataset.num_classes, find_augmentation(augmentation)
    parts, positions = _positions(info.count(folds), batch_size, mix, worker, num_workers)
    sizes = [len(part) for part in positions]
    shown = tf.constant(_count_before(sizes, initial_step), tf.int64)
    load = functools.partial(_load_numbered, image_size=image_size, num_classes=num_classes)
    name = "_".join(map(str, (fingerprint(records_dir), *folds, *image_size, worker, num_workers)))
    path = disk_cache.prepare(cache_dir, name) if cache == "disk" else ""
    buffer_size = disk_cache.shuffle_buffer(cache, image_size, num_classes)
    cached = _in_parallel(read_records(records_dir, info, folds), load).cache(path)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        """What an epoch shows, in its order: parsed records, or decoded images from a cache."""
        order = tf.stack([tf.cast(seed, tf.int64), epoch])
        if cache == "none":
            elements = read_records(records_dir, info, folds, order)
        else:
            elements = shuffle(cached, order, buffer_size)
        elements = take(elements, positions).skip(tf.where(epoch == initial_epoch, shown, 0))
        return tf.data.Dataset.zip((tf.data.Dataset.from_tensors(epoch).repeat(), elements))

    def finish(epoch: tf.Tensor, element: Any) -> dict[str, tf.Tensor]:
        number, example = load(element) if cache == "none" else element
        return augment(example, _fold_in([seed, 0], epoch, number))

    def finished_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        return _in_parallel(one_epoch(epoch), finish)

    epochs_to_come = tf.data.Dataset.range(initial_epoch, epochs)
    if data_service:
        served = serve_epochs(finished_epoch, initial_epoch, epochs, data_service)
        examples = epochs_to_come.flat_map(served)
    else:
        # One stream of all epochs, so that an epoch's shuffle fills while the last one is decoded.
        examples = _in_parallel(epochs_to_come.flat_map(one_epoch).prefetch(_READ_AHEAD), finish)
    batches = batch_pairs(examples, sizes, initial_step)
    if mix != "none":
        first_step = initial_epoch * len(sizes) + initial_step
        batches = _mix(batches.enumerate(first_step), mix, parts, seed)
    return batches.prefetch(tf.data.AUTOTUNE)


def _load_numbered(
    record: dict[str, tf.Tensor], image_size: Size, num_classes: int
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """A number that follows from the name of an image, and its example."""
    number = tf.strings.to_hash_bucket_fast(record["filename"], 1 << 31)
    return number, load_example(record, image_size, image_size, num_classes)


def _count_before(sizes: Sequence[int], initial_step: int) -> int:
    """Number of examples in the batches before a step of an epoch."""
    if not 0 <= initial_step <= len(sizes):
        raise ValueError(f"initial_step: got {initial_step}, expected 0 to {len(sizes)}")
    return sum(sizes[:initial_step])


def _in_parallel(dataset: tf.data.Dataset, function: Callable) -> tf.data.Dataset:
    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE)


def _positions(
    count: int, batch_size: int, mix: str, worker: int, num_workers: int
) -> tuple[Sequence[MixedPart], list[Sequence[int]]]:
    """This worker's parts of the batches, and the places in an epoch of what each of them needs."""
    parts = mixed_parts(count, batch_size, worker, num_workers)
    if mix != "none":
        return parts, [part.positions for part in parts]
    return parts, [range(*part) for part in slices(count, batch_size, worker, num_workers)]


def _mix(
    numbered_batches: tf.data.Dataset, mix: str, parts: Sequence[MixedPart], seed: int
) -> tf.data.Dataset:
    """Mixes batches by their step, and leaves out the examples that were there to be mixed in."""
    places = tf.ragged.constant([part.places for part in parts])
    numbers = tf.constant([(part.batch_size, part.first, part.size) for part in parts])

    def mix_one(step: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        part = step % len(parts)
        batch_size, first, size = tf.unstack(numbers[part])
        # The fold of 0 keeps the mixes of earlier versions, which folded in the worker.
        mixed = MIXES[mix](*batch, _fold_in([seed, 1], step, 0), places[part], batch_size)
        return tuple(x[first : first + size] for x in mixed)

    return numbered_batches.map(mix_one)


def _check_size(name: str, size: Size) -> None:
    """Raises ValueError unless a size is two positive numbers."""
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"{name}: got {size}, expected (height, width) in pixels")


def _check_training(
    augmentation: str, mix: str, cache: str, epochs: int, initial_epoch: int
) -> None:
    """Raises ValueError for an argument of `training_batches` that is out of its range."""
    check_augmentation(augmentation)
    for name, value, choices in (("mix", mix, MIXES), ("cache", cache, CACHES)):
        if value not in choices:
            raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(choices)}")
    if epochs < 1:
        raise ValueError(f"epochs: got {epochs}, expected at least 1")
    if not 0 <= initial_epoch <= epochs:
        raise ValueError(f"initial_epoch: got {initial_epoch}, expected 0 to {epochs}")


def _check_service(
    data_service: str | None, cache: str, num_workers: int, initial_step: int
) -> None:
    """Raises ValueError for what cannot be asked for together with a data service."""
    if data_service and (cache != "none" or num_workers > 1):
        raise ValueError(
            f"data_service: got cache={cache!r} and {num_workers} workers beside it, expected no "
            "cache and 1 worker"
        )
    if data_service and initial_step:
        raise ValueError(
            f"data_service: got initial_step={initial_step} beside it, expected 0: a service shows "
            "the images of an epoch in no fixed order, so the ones already shown are unknown; go "
            "on from the start of an epoch, or without the service"
        )


def _fold_in(seed: Any, *numbers: Any) -> tf.Tensor:
    """Derives a seed int [2] from a seed and numbers."""
    for number in numbers:
        seed = tf.random.experimental.stateless_fold_in(seed, number)
    return seed


def validation_batches(
    records_dir: str,
    folds: Sequence[int],
    image_size: Size,
    batch_size: int,
    mask_size: Size | None = None,
    worker: int = 0,
    num_workers: int = 1,
) -> tf.data.Dataset:
    """Batches of held-out images, once, in the order of the shards, masks as the metric has them.

    Args:
        records_dir: a folder of shards.
        folds: the folds that are held out.
        image_size: (height, width) of the images.
        batch_size: the most images in a batch; see `batching.batch_sizes`.
        mask_size: (height, width) of the masks, decoded at that size straight from the runs; None
            takes the data set's submission_size.
        worker: number of this worker, from 0.
        num_workers: number of workers that share each batch.

    Returns:
        A tf.data.Dataset of (image uint8 [B, h, w, 3], mask uint8 [B, *mask_size, C]).

    Raises:
        FileNotFoundError, ValueError: the records are missing or damaged, or an argument is out of
            its range.
    """
    info = read_info(records_dir)
    mask_size = mask_size or info.dataset.submission_size
    _check_size("image_size", image_size)
    _check_size("mask_size", mask_size)
    positions = slices(info.count(folds), batch_size, worker, num_workers)

    def load(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return load_example(record, image_size, mask_size, info.dataset.num_classes)

    records = take(read_records(records_dir, info, folds), [range(*part) for part in positions])
    examples = records.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    sizes = [end - start for start, end in positions]
    return batch_pairs(examples, sizes).prefetch(tf.data.AUTOTUNE)


def batch_files(
    records_dir: str,
    folds: Sequence[int],
    batch_size: int,
    seed: int,
    epoch: int,
    step: int,
    cache: str = "none",
    image_size: Size | None = None,
) -> list[str]:
    """The files of one batch of `training_batches` with these arguments, without decoding any.

    Args:
        epoch: epoch of the batch, counted from 0.
        step: step in that epoch, counted from 0.
        image_size: needed with a cache on disk, whose shuffle depends on it.

    Returns:
        A list of strings.
    """
    info = read_info(records_dir)
    order = tf.constant([seed, epoch], tf.int64)
    if cache == "none":
        records = read_records(records_dir, info, folds, order)
    else:
        if cache == "disk" and image_size is None:
            raise ValueError("image_size: got nothing, expected the size of the images on disk")
        size = image_size or (1, 1)
        buffer_size = disk_cache.shuffle_buffer(cache, size, info.dataset.num_classes)
        records = shuffle(read_records(records_dir, info, folds), order, buffer_size)
    start, end = slices(info.count(folds), batch_size)[step]
    names = records.map(lambda record: record["filename"]).skip(start).take(end - start)
    return [name.decode() for name in names.as_numpy_iterator()]
