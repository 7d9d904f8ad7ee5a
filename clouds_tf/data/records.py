"""`Records`, an open folder of shards: its description, and its batches as tf.data."""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf

from clouds_tf import files
from clouds_tf.data.augmentations import find_augmentation
from clouds_tf.data.batching import (
    Position,
    batch_pairs,
    fold_in,
    mix_batches,
    mixed_parts,
    slices,
)
from clouds_tf.data.cache import Cache, check_cache
from clouds_tf.data.examples import load_example
from clouds_tf.data.mixing import check_mix, find_mix
from clouds_tf.data.records_info import Located, RecordsInfo, read_info
from clouds_tf.data.sample_weights import weights_of
from clouds_tf.data.service import all_epochs
from clouds_tf.data.soft_targets import SoftTargets
from clouds_tf.dataset import Dataset
from clouds_tf.lazy import unconverted
from clouds_tf.messages import Fault, counted, raise_faults
from clouds_tf.settings import check_size

Size = tuple[int, int]

# Version of the order of an epoch, incremented when the same seed gives another one: a run that
# stopped within an epoch cannot resume in another order.
ORDER = 2
_PARALLEL_READS = 16  # hides the latency of remote storage
_READ_AHEAD = 128  # number of records read in advance


class Records:
    """An open folder of shards; create it with `Records.open`.

    Attributes:
        path: the folder.
        info: content of its dataset_info.json.
        identity: a short string that differs when the records differ in images, folds or sizes.
    """

    def __init__(self, path: str, info: RecordsInfo, identity: str) -> None:
        self.path, self.info, self.identity = path, info, identity
        self._located: dict[tuple[int, ...], Located] = {}

    @classmethod
    def open(cls, path: str) -> Records:
        """Reads the dataset_info.json of a folder of shards and checks that the shards exist.

        Raises:
            FileNotFoundError: dataset_info.json or a shard is missing.
            ValueError: dataset_info.json is damaged or of another version, or a shard has another
                length.
        """
        return cls(path, *read_info(path))

    def __repr__(self) -> str:
        return f"Records({self.path!r}, {counted(self.info.num_examples, 'image')})"

    @property
    def dataset(self) -> Dataset:
        """The data set of the images."""
        return self.info.dataset

    def verify(self) -> None:
        """Reads all shards; raises ValueError with those whose checksums differ."""
        faults = []
        for shard in self.info.shards:
            path = os.path.join(self.path, shard.file)
            found = files.sha256(path)
            if found != shard.sha256:
                faults.append(Fault(path, 0, f"SHA-256 is {found}, expected {shard.sha256}"))
        raise_faults(faults)

    def split(self, fold: int) -> tuple[list[int], list[int]]:
        """The folds to train on and to hold out: ([every fold but `fold`], [fold]).

        Images that are never held out, fold -1, are trained on in every split.

        Raises:
            ValueError: there is no such fold, or no image in it or outside of it.
        """
        num_folds = self.info.num_folds
        if not 0 <= fold < num_folds:
            raise ValueError(f"fold: got {fold}, expected 0 to {num_folds - 1}, as {self.path} has")
        others = [other for other in range(num_folds) if other != fold]
        for folds, where in (([fold], f"fold {fold}"), (others, f"the folds other than {fold}")):
            if not self.info.count(folds):
                raise ValueError(
                    f"fold: got {fold}, but {self.path} has no images in {where}; write the "
                    "records again, with folds that all have images"
                )
        return [*self.info.extra_folds, *others], [fold]

    def steps_per_epoch(self, folds: Collection[int], batch_size: int) -> int:
        """Number of batches in an epoch, which shows every image once."""
        return len(slices(self.info.count(folds), batch_size))

    def _locate(self, folds: Sequence[int]) -> Located:
        if tuple(folds) not in self._located:
            self._located[tuple(folds)] = Located(self.path, self.info, folds)
        return self._located[tuple(folds)]

    # AutoGraph would take seconds to rewrite all functions that are called here; none needs it.
    @unconverted
    def training_batches(
        self,
        folds: Sequence[int],
        image_size: Size,
        batch_size: int,
        epochs: int,
        seed: int = 0,
        start: Position = Position(),
        *,
        augmentation: str = "flips",
        mix: str = "none",
        sample_weights: Mapping[str, float] | None = None,
        cache: str = "none",
        cache_dir: str | None = None,
        data_service: str | None = None,
        soft_targets: SoftTargets | None = None,
    ) -> tf.data.Dataset:
        """Batches of all remaining epochs, one after the other.

        An epoch shows every image exactly once, in an order that follows from (seed, epoch), with
        an augmentation that follows from (seed, epoch, file name). So a resumed run sees the same
        batches as an uninterrupted one, whatever its cache.

        Args:
            folds: the folds to train on.
            image_size: (height, width) of images and masks.
            batch_size: maximum number of images in a batch, over all replicas; see
                `batching.slices`.
            epochs: number of epochs in the whole run.
            seed: seed of the order and of the augmentation.
            start: the first batch to show, and the worker's part.
            augmentation: random change of each image; see `augmentations.check_augmentation`.
            mix: random mix of each batch, see `mixing.find_mix`; it depends on (seed, step).
            sample_weights: weight of each image by its file name; batches then have a third part,
                float32 [B], as Keras takes it.
            cache: cache of decoded images for the next epochs: "none", "memory" or "disk". Each
                worker caches the images that it has shown.
            cache_dir: a local folder for "disk". Runs with the same records, folds and size share
                its content.
            data_service: grpc://host:port of the dispatcher of a tf.data service, whose workers
                then read, decode and augment. Each image is still shown once in an epoch, but in
                no fixed order.
            soft_targets: maps that are blended into the masks, which are then float32. During
                augmentation they are uint8 of 0..255.

        Returns:
            A tf.data.Dataset of (image uint8 [B, h, w, channels] 0..255, mask uint8 [B, h, w, C] of
            {0, 1}), and of weights, if given; with mixup, images and masks are float32, and masks
            are in 0..1. If a shard cannot be read, iterating raises tf.errors.OpError, which names
            the shard.

        Raises:
            ValueError: an argument is out of range; the folder of a disk cache is missing, or
                another run is filling it; nothing listens at data_service, or it is combined with
                a cache, several workers or a first step; or soft targets are combined with a disk
                cache, or an image has none.
        """
        check_size("image_size", image_size)
        check_mix(mix, sample_weights)
        check_cache(cache, cache_dir)
        _check_together(cache, data_service, soft_targets, epochs, start)
        located = self._locate(folds)
        augment = find_augmentation(augmentation, self.dataset.channels)
        parts = mixed_parts(self.info.count(folds), batch_size, start.worker, start.num_workers)
        positions = [part.positions if mix != "none" else part.own for part in parts]
        sizes = [len(part) for part in positions]
        num_shown = _count_before(sizes, start.step)
        places = tf.constant([place for part in positions for place in part], tf.int64)
        load = functools.partial(_load_numbered, image_size, self.dataset, soft_targets)
        weights = self.weights_of(folds, sample_weights)
        name = (self.identity, *folds, *image_size, start.worker, start.num_workers)
        kept = Cache.open(cache, cache_dir, name, image_size, self.dataset, located.count)

        def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            """(epoch, number of the record) of each image of an epoch, in its order."""
            numbers = tf.gather(_order(located.count, seed, epoch), places)
            numbers = numbers[tf.where(epoch == start.epoch, num_shown, 0) :]
            return tf.data.Dataset.from_tensor_slices(numbers).map(lambda number: (epoch, number))

        def read(epoch: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Any]:
            """A parsed record; with a cache, the result of `load`."""
            if kept is None:
                return epoch, place, located.read(place)
            return epoch, place, kept.get(place, epoch, lambda: load(located.read(place)))

        def finish(epoch: tf.Tensor, place: tf.Tensor, element: Any) -> dict[str, tf.Tensor]:
            number, example = load(element) if kept is None else element
            example = augment(example, fold_in([seed, 0], epoch, number))
            if soft_targets:
                example = {**example, "mask": tf.cast(example["mask"], tf.float32) / 255}
            return example if weights is None else {**example, "weight": tf.gather(weights, place)}

        in_parallel = functools.partial(_in_parallel, read=read, finish=finish)
        examples = all_epochs(one_epoch, in_parallel, start.epoch, epochs, data_service)
        batches = batch_pairs(examples, sizes, start.step)
        if mix != "none":
            first_step = start.epoch * len(sizes) + start.step
            batches = mix_batches(batches.enumerate(first_step), find_mix(mix), parts, seed)
        return batches.prefetch(tf.data.AUTOTUNE)

    @unconverted
    def held_out_batches(
        self,
        folds: Sequence[int],
        image_size: Size,
        batch_size: int,
        mask_size: Size | None = None,
        worker: int = 0,
        num_workers: int = 1,
    ) -> tf.data.Dataset:
        """Batches of held-out images, once, in the order of the shards.

        Args:
            folds: the folds that are held out.
            image_size: (height, width) of the images.
            batch_size: maximum number of images in a batch; see `batching.slices`.
            mask_size: (height, width) of the masks, which are decoded from the runs at that size;
                None takes the data set's submission_size, at which metrics are computed.
            worker: number of this worker, from 0.
            num_workers: number of workers that share each batch.

        Returns:
            A tf.data.Dataset of (image uint8 [B, h, w, channels], mask uint8 [B, *mask_size, C]).

        Raises:
            ValueError: an argument is out of its range.
        """
        mask_size = mask_size or self.dataset.submission_size
        check_size("image_size", image_size)
        check_size("mask_size", mask_size)
        positions = slices(self.info.count(folds), batch_size, worker, num_workers)
        located = self._locate(folds)

        def load(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return load_example(record, image_size, mask_size, self.dataset)

        numbers = tf.constant([i for part in positions for i in range(*part)], tf.int64)
        records = tf.data.Dataset.from_tensor_slices(numbers).map(
            located.read, num_parallel_calls=_PARALLEL_READS
        )
        examples = records.map(load, num_parallel_calls=tf.data.AUTOTUNE)
        sizes = [end - start for start, end in positions]
        return batch_pairs(examples, sizes).prefetch(tf.data.AUTOTUNE)

    def weights_of(
        self, folds: Sequence[int], sample_weights: Mapping[str, float] | None
    ) -> tf.Tensor | None:
        """Weights of the images of some folds, in the order of the shards; see `sample_weights`."""
        if sample_weights is None:
            return None
        others = [fold for fold in self.info.all_folds if fold not in folds]
        return weights_of(sample_weights, self.first_names(folds), self.first_names(others))

    def batch_names(
        self, folds: Sequence[int], batch_size: int, seed: int, epoch: int, step: int
    ) -> list[str]:
        """File names of one batch of `training_batches`, without decoding images."""
        located = self._locate(folds)
        start, end = slices(located.count, batch_size)[step]
        return located.names(_order(located.count, seed, tf.constant(epoch))[start:end])

    def first_names(self, folds: Sequence[int], number: int | None = None) -> list[str]:
        """File names of the first `number` images of `held_out_batches`; None for all."""
        located = self._locate(folds)
        if number is None:
            return [*located.all_names]
        return located.names(range(min(number, located.count)))


def _order(count: int, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Order of the images of an epoch, int64 [count]; increment ORDER when it changes."""
    seeds = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), seeds)


def _load_numbered(
    image_size: Size, dataset: Dataset, soft: SoftTargets | None, record: dict[str, tf.Tensor]
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """An example, and a number that follows from the name of its image."""
    number = tf.strings.to_hash_bucket_fast(record["filename"], 1 << 31)
    example = load_example(record, image_size, image_size, dataset)
    if soft:
        example["mask"] = soft.blend(record["filename"], example["mask"])
    return number, example


def _in_parallel(numbers: tf.data.Dataset, read: Any, finish: Any) -> tf.data.Dataset:
    """Reads ahead, and decodes on all CPU cores."""
    elements = numbers.map(read, num_parallel_calls=_PARALLEL_READS).prefetch(_READ_AHEAD)
    return elements.map(finish, num_parallel_calls=tf.data.AUTOTUNE)


def _count_before(sizes: Sequence[int], step: int) -> tf.Tensor:
    """Number of examples in the batches before a step of an epoch, int64 []."""
    if not 0 <= step <= len(sizes):
        raise ValueError(f"step: got {step}, expected 0 to {len(sizes)}")
    return tf.constant(sum(sizes[:step]), tf.int64)


def _check_together(
    cache: str,
    data_service: str | None,
    soft_targets: SoftTargets | None,
    epochs: int,
    start: Position,
) -> None:
    """Raises ValueError for incompatible arguments of `training_batches`."""
    if soft_targets and cache == "disk":  # whose files do not depend on the folder of maps
        raise ValueError("cache: got disk, expected none or memory with soft_targets")
    if epochs < 1:
        raise ValueError(f"epochs: got {epochs}, expected at least 1")
    if not 0 <= start.epoch <= epochs:
        raise ValueError(f"epoch: got {start.epoch}, expected 0 to {epochs}")
    if data_service and (cache != "none" or start.num_workers > 1):
        raise ValueError(
            f"data_service: got cache={cache!r} and {start.num_workers} workers as well, expected "
            "no cache and 1 worker"
        )
    if data_service and start.step:
        raise ValueError(
            f"data_service: got step {start.step} as well, expected 0: a service shows the images "
            "of an epoch in no fixed order, so those already shown are unknown; resume at the "
            "start of an epoch, or without the service"
        )
