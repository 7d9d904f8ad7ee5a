"""Shards -> batches of images and masks, as tf.data."""

import fcntl
import functools
import glob
import math
import os
import re
import socket

import numpy as np
import tensorflow as tf

from clouds_tf import rle
from clouds_tf.data.augmentation import AUGMENTATIONS, MIXES
from clouds_tf.data.examples import parse_example
from clouds_tf.data.preprocessing import decode_image
from clouds_tf.data.shards import fingerprint, read_info, read_shard
from clouds_tf.schema import NUM_CLASSES, SUBMISSION_SIZE

# Bounds what the shuffle holds: serialized records, about 0.7 MB each at 1400x2100.
_SHUFFLE_BUFFER = 1024
# How many of them wait to be decoded, to bridge the time in which the shuffle of an epoch fills.
_READ_AHEAD = 128


def count_examples(records_dir, folds):
    """Counts the images of some folds of a folder of shards."""
    shards = read_info(records_dir)["shards"]
    return sum(shard["folds"].get(str(fold), 0) for shard in shards for fold in folds)


def split_folds(records_dir, fold):
    """The folds to train on and to hold out: ([every fold but `fold`], [fold]).

    Raises:
        ValueError: the records have no such fold.
    """
    num_folds = read_info(records_dir)["num_folds"]
    if not 0 <= fold < num_folds:
        raise ValueError(f"fold: got {fold}, expected 0 to {num_folds - 1}, as {records_dir} has")
    return [f for f in range(num_folds) if f != fold], [fold]


def batch_sizes(num_examples, batch_size):
    """Divides examples into the fewest batches of at most batch_size, as even as can be.

    Of 33 images and a batch size of 32 come batches of 16 and 17: a last batch of one would be a
    whole step on one image, and would leave all replicas but one without any.

    Returns:
        A list of whole numbers that differ by at most 1, and add up to num_examples.
    """
    return [end - start for start, end in slices(num_examples, batch_size)]


def slices(num_examples, batch_size, worker=0, num_workers=1):
    """Gives the part of each batch that is one worker's, where several share each batch.

    Args:
        num_examples: number of examples in an epoch.
        batch_size: the most examples in a batch, over all workers; see `batch_sizes`.
        worker: the number of the worker, from 0 on.
        num_workers: how many there are; their parts are as even as can be.

    Returns:
        A list of (start, end), the positions in the epoch, one pair for each batch.

    Raises:
        ValueError: there is no such worker, or a batch has not one example for each.
    """
    if not 0 <= worker < num_workers:
        raise ValueError(f"worker: got {worker}, expected 0 to {num_workers - 1}")
    steps = math.ceil(num_examples / batch_size)
    if num_examples // steps < num_workers:
        raise ValueError(
            f"batch_size: got {batch_size}, which makes batches of {num_examples // steps} of the "
            f"{num_examples} images, expected at least one image for each of {num_workers} workers"
        )
    bounds = [num_examples * i // steps for i in range(steps + 1)]
    return [
        tuple(start + (end - start) * part // num_workers for part in (worker, worker + 1))
        for start, end in zip(bounds, bounds[1:])
    ]


def steps_per_epoch(records_dir, folds, batch_size):
    """Number of batches in which an epoch shows every image once."""
    return len(batch_sizes(count_examples(records_dir, folds), batch_size))


def load_example(record, image_size, mask_size):
    """Decodes a parsed record: image and masks, each at the size asked for.

    Args:
        record: a dict as `parse_example` gives it.
        image_size: (height, width) of the image.
        mask_size: (height, width) of the masks.

    Returns:
        A dict: image uint8 [h, w, 3], mask uint8 [h', w', 4] of {0, 1}.
    """
    runs = tf.cast(record["runs"], tf.int32)
    masks = rle.draw(runs, NUM_CLASSES, record["mask_size"], mask_size)
    return {
        "image": decode_image(record["encoded"], image_size),
        "mask": _classes_last(tf.reshape(masks, [NUM_CLASSES, *mask_size])),
    }


def _classes_last(masks):
    """uint8 [4, h, w] -> [h, w, 4]."""
    # The bytes of one 32-bit number per pixel: tf.transpose takes longer.
    words = [
        tf.bitwise.left_shift(tf.cast(mask, tf.int32), 8 * i)
        for i, mask in enumerate(tf.unstack(masks, num=NUM_CLASSES))
    ]
    return tf.bitcast(tf.add_n(words), tf.uint8)


def _shuffle(records, seed):
    """Shuffles a dataset by a seed int64 [2] that may be a tensor.

    `tf.data.Dataset.shuffle` mixes the global seed into its own, and takes no tensor; this is the
    same op, but its order follows from `seed` alone.
    """
    spec = records.element_spec
    shuffled = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(records),
        buffer_size=_SHUFFLE_BUFFER,
        seed=seed[0] + 1,  # two zeros would mean an order that nobody can repeat
        seed2=seed[1],
        reshuffle_each_iteration=False,
        output_types=[part.dtype for part in tf.nest.flatten(spec)],
        output_shapes=[part.shape for part in tf.nest.flatten(spec)],
    )
    return tf.data.experimental.from_variant(shuffled, spec)


def _records(records_dir, folds, shuffle_seed=None):
    """Parsed records of some folds; in the order of the shards, or shuffled by a seed int64 [2]."""
    names = {str(fold) for fold in folds}
    shards = [shard for shard in read_info(records_dir)["shards"] if names & set(shard["folds"])]
    paths = tf.constant([os.path.join(records_dir, shard["file"]) for shard in shards])
    counts = tf.constant([shard["num_examples"] for shard in shards], tf.int64)
    order = tf.range(len(shards))
    if shuffle_seed is not None:
        order = tf.random.experimental.stateless_shuffle(order, shuffle_seed)
    shards = tf.data.Dataset.from_tensor_slices((tf.gather(paths, order), tf.gather(counts, order)))
    if shuffle_seed is None:
        records = shards.flat_map(read_shard)
    else:
        records = shards.interleave(
            read_shard, cycle_length=len(paths), num_parallel_calls=tf.data.AUTOTUNE
        )
        records = _shuffle(records, shuffle_seed)
    wanted = tf.constant(folds, tf.int64)
    records = records.map(parse_example)
    return records.filter(lambda record: tf.reduce_any(record["fold"] == wanted))


def _take(dataset, positions):
    """The elements at the positions of some slices; all that is not taken is never decoded."""
    taken = np.zeros(positions[-1][1], bool)
    for start, end in positions:
        taken[start:end] = True
    if taken.all():
        return dataset
    numbered = dataset.take(len(taken)).enumerate()
    return numbered.filter(lambda i, _: tf.gather(taken, i)).map(lambda _, element: element)


def _batches(examples, positions):
    """Batches of (image, mask), one for each of some slices."""
    pairs = examples.map(lambda example: (example["image"], example["mask"]))
    sizes = [end - start for start, end in positions]
    return pairs.batch(max(sizes)).rebatch(sizes)


def training_batches(
    records_dir,
    folds,
    image_size,
    batch_size,
    epochs,
    seed=0,
    initial_epoch=0,
    augmentation="flips",
    mix="none",
    cache="none",
    cache_dir=None,
    data_service=None,
    worker=0,
    num_workers=1,
):
    """Batches of every epoch to come, one after the other.

    An epoch shows every image exactly once, in an order and with an augmentation of its own: what
    an image looks like depends on (seed, epoch, file name) alone, so a run that goes on at epoch k
    sees what an undisturbed one would have seen.

    Args:
        records_dir: a folder of shards.
        folds: the folds to train on.
        image_size: (height, width) of images and masks.
        batch_size: the most images in a batch, over all replicas; see `batch_sizes`.
        epochs: number of epochs in the whole run.
        seed: of the order and of the augmentation.
        initial_epoch: the first epoch to show, counted from 0.
        augmentation: what happens to each image, a key of AUGMENTATIONS.
        mix: what happens to each batch, a key of MIXES; it depends on (seed, step).
        cache: where decoded images wait for the next epoch: "none", "memory" or "disk". With a
            cache the order of the images is another, as it shuffles what is decoded.
        cache_dir: a folder for "disk", on this machine. What is in it is used by runs on the same
            records, folds and size, and is begun anew after a run that was killed before it had
            seen all images.
        data_service: grpc://host:port of the dispatcher of a tf.data service, whose workers then
            read, decode and augment. Each image is shown once in an epoch still, but in the order
            in which it comes.
        worker: the number of this worker, from 0 on.
        num_workers: how many workers share each batch. Together, and in the order of their numbers,
            their parts of batch i are the batch i of a single worker; each reads all records and
            decodes its own, or all of them into its cache. A mix stays within a worker's part.

    Returns:
        A tf.data.Dataset of (image uint8 [B, h, w, 3] 0..255, mask uint8 [B, h, w, 4] of {0, 1});
        both float32, and masks of 0..1, under mixup.

    Raises:
        ValueError: no folder for a cache on disk, or another run is filling it; nothing listens at
            data_service, or it is asked for together with a cache or several workers; or as
            `slices` does.
    """
    if data_service and (cache != "none" or num_workers > 1):
        raise ValueError(
            f"data_service: got cache={cache!r} and {num_workers} workers beside it, expected no "
            "cache and 1 worker"
        )
    augment, mix_batch = AUGMENTATIONS[augmentation], MIXES[mix]
    positions = slices(count_examples(records_dir, folds), batch_size, worker, num_workers)

    def load(record):
        number = tf.strings.to_hash_bucket_fast(record["filename"], 1 << 31)
        return number, load_example(record, image_size, image_size)

    def in_parallel(dataset, function):
        return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE)

    if cache != "none":
        path = ""
        if cache == "disk":
            name = [fingerprint(records_dir), *folds, *image_size, worker, num_workers]
            path = _cache_path(cache_dir, "_".join(map(str, name)))
        cached = in_parallel(_records(records_dir, folds), load).cache(path)

    def one_epoch(epoch):
        """What an epoch shows, in its order: parsed records, or decoded images from a cache."""
        order = tf.stack([tf.cast(seed, tf.int64), epoch])
        if cache == "none":
            elements = _records(records_dir, folds, order)
        else:
            elements = _shuffle(cached, order)
        elements = _take(elements, positions)
        return tf.data.Dataset.zip((tf.data.Dataset.from_tensors(epoch).repeat(), elements))

    def finish(epoch, element):
        number, example = load(element) if cache == "none" else element
        return augment(example, _fold_in([seed, 0], epoch, number))

    def mix_step(step, batch):
        return mix_batch(*batch, _fold_in([seed, 1], step, worker))

    epochs_to_come = tf.data.Dataset.range(initial_epoch, epochs)
    if data_service:
        served = _served(
            lambda epoch: in_parallel(one_epoch(epoch), finish), initial_epoch, epochs, data_service
        )
        examples = epochs_to_come.flat_map(served)
    else:
        # One stream of all epochs, so that an epoch's shuffle fills while the last one is decoded.
        examples = in_parallel(epochs_to_come.flat_map(one_epoch).prefetch(_READ_AHEAD), finish)
    batches = _batches(examples, positions).enumerate(initial_epoch * len(positions))
    return batches.map(mix_step).prefetch(tf.data.AUTOTUNE)


def _served(make, initial_epoch, epochs, data_service):
    """Lets a tf.data service make the datasets of epochs.

    Args:
        make: a function from an epoch, int64 [], to a tf.data.Dataset.
        initial_epoch: the first epoch.
        epochs: the epoch behind the last one.
        data_service: grpc://host:port of its dispatcher.

    Returns:
        Another such function; the dataset it gives is made by all workers of the service together.
    """
    service = tf.data.experimental.service
    _check_listening(data_service)
    traced = tf.function(make)  # so that the graph is built once and not for every epoch
    datasets = [traced(tf.constant(epoch, tf.int64)) for epoch in range(initial_epoch, epochs)]
    ids = [service.register_dataset(data_service, dataset) for dataset in datasets]

    def served(epoch):
        return service.from_dataset_id(
            service.ShardingPolicy.DYNAMIC,
            data_service,
            tf.gather(ids, epoch - initial_epoch),
            datasets[0].element_spec,
        )

    return served


def _check_listening(data_service):
    """Raises ValueError unless something listens there; TensorFlow would wait for an hour."""
    match = re.fullmatch(r"grpc://(.+):(\d+)", data_service)
    if not match:
        raise ValueError(f"data_service: got {data_service!r}, expected grpc://host:port")
    try:
        socket.create_connection((match[1], int(match[2])), timeout=10).close()
    except OSError as error:
        raise ValueError(f"data_service: nothing listens at {data_service}: {error}") from None


def _cache_path(cache_dir, name):
    """The path of a cache on disk, from which what a killed run left unfinished is removed."""
    if not cache_dir:
        raise ValueError("cache_dir: got nothing, expected a folder for the cache on disk")
    folder = os.path.join(cache_dir, name)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "images")
    if not os.path.exists(path + ".index"):  # which is written last
        _lock(os.path.join(folder, "lock"))
        for unfinished in glob.glob(glob.escape(path) + "*"):
            os.remove(unfinished)
    return path


@functools.lru_cache(maxsize=None)  # so that a process does not lock itself out
def _lock(path):
    """Locks a file until this process ends, in whatever way; ValueError if another one has it."""
    file = open(path, "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ValueError(
            f"cache_dir: another run is filling {os.path.dirname(path)}; wait until its first "
            "epoch has ended, or give another folder"
        ) from None
    return file


def _fold_in(seed, *numbers):
    for number in numbers:
        seed = tf.random.experimental.stateless_fold_in(seed, number)
    return seed


def validation_batches(
    records_dir,
    folds,
    image_size,
    batch_size,
    mask_size=SUBMISSION_SIZE,
    worker=0,
    num_workers=1,
):
    """Batches of held-out images, once, in the order of the shards, masks as the metric has them.

    Args:
        records_dir: a folder of shards.
        folds: the folds that are held out.
        image_size: (height, width) of the images.
        batch_size: the most images in a batch; see `batch_sizes`.
        mask_size: (height, width) of the masks, decoded at that size straight from the RLE.
        worker: as `training_batches` has it.
        num_workers: as `training_batches` has it.

    Returns:
        A tf.data.Dataset of (image uint8 [B, h, w, 3], mask uint8 [B, *mask_size, 4]).

    Raises:
        ValueError: as `slices` does.
    """
    positions = slices(count_examples(records_dir, folds), batch_size, worker, num_workers)

    def load(record):
        return load_example(record, image_size, mask_size)

    records = _take(_records(records_dir, folds), positions)
    examples = records.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return _batches(examples, positions).prefetch(tf.data.AUTOTUNE)


def batch_files(records_dir, folds, batch_size, seed, epoch, step, cache="none"):
    """The file names of the images in one batch of `training_batches`, without decoding any.

    Args:
        records_dir, folds, batch_size, seed, cache: as `training_batches` has them.
        epoch, step: which batch, both counted from 0.

    Returns:
        A list of strings.
    """
    order = tf.constant([seed, epoch], tf.int64)
    if cache == "none":
        records = _records(records_dir, folds, order)
    else:
        records = _shuffle(_records(records_dir, folds), order)
    start, end = slices(count_examples(records_dir, folds), batch_size)[step]
    names = records.map(lambda record: record["filename"]).skip(start).take(end - start)
    return [name.decode() for name in names.as_numpy_iterator()]
