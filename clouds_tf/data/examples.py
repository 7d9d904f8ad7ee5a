"""Sharded TFRecords: a tf.train.Example is written and parsed by the pair of functions here."""

import concurrent.futures
import hashlib
import json
import multiprocessing
import os

import numpy as np
import tensorflow as tf

from clouds_tf import files, rle
from clouds_tf.data import annotations
from clouds_tf.data.preprocessing import decode_image
from clouds_tf.schema import (
    CLASS_NAMES,
    ENCODED_KEY,
    FILENAME_KEY,
    FOLD_KEY,
    HEIGHT_KEY,
    IMAGE_SIZE,
    MASK_HEIGHT_KEY,
    MASK_WIDTH_KEY,
    RUNS_KEY,
    SCHEMA_VERSION,
    TRAIN_CSV,
    TRAIN_IMAGES,
    WIDTH_KEY,
)

INFO_FILE = "dataset_info.json"
_JPEG_QUALITY = 95


def make_example(filename, encoded, size, rles, mask_size, fold):
    """Makes the tf.train.Example of one image.

    Args:
        filename: the name of the image's file.
        encoded: the bytes of its JPEG.
        size: (height, width) of that JPEG.
        rles: four RLE strings, in the order of CLASS_NAMES.
        mask_size: (height, width) of the masks that the RLE encodes.
        fold: the fold in which the image is held out.

    Returns:
        A tf.train.Example, which `parse_example` reads.

    Raises:
        tf.errors.InvalidArgumentError: a RLE is malformed.
    """

    def string(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def integers(*values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    # The text is parsed once, here: doing so in every epoch would take longer than to draw it.
    runs = rle.parse(tf.constant(rles), mask_size)
    runs = np.column_stack([runs.value_rowids(), runs.values])
    feature = {
        FILENAME_KEY: string(filename.encode()),
        ENCODED_KEY: string(encoded),
        HEIGHT_KEY: integers(size[0]),
        WIDTH_KEY: integers(size[1]),
        RUNS_KEY: integers(*runs.ravel()),
        MASK_HEIGHT_KEY: integers(mask_size[0]),
        MASK_WIDTH_KEY: integers(mask_size[1]),
        FOLD_KEY: integers(fold),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature))


def parse_example(serialized):
    """Parses what `make_example` made; nothing is decoded yet.

    Args:
        serialized: a serialized tf.train.Example, string [].

    Returns:
        A dict: filename string [], encoded string [] (JPEG), size int64 [2], runs int64 [R, 3]
        (class, start, length, as `rle.draw` takes them), mask_size int64 [2], fold int64 [].
    """
    scalars = {key: tf.io.FixedLenFeature([], tf.string) for key in (FILENAME_KEY, ENCODED_KEY)}
    for key in (HEIGHT_KEY, WIDTH_KEY, MASK_HEIGHT_KEY, MASK_WIDTH_KEY, FOLD_KEY):
        scalars[key] = tf.io.FixedLenFeature([], tf.int64)
    parsed = tf.io.parse_single_example(
        serialized,
        {**scalars, RUNS_KEY: tf.io.FixedLenSequenceFeature([3], tf.int64, allow_missing=True)},
    )
    return {
        "filename": parsed[FILENAME_KEY],
        "encoded": parsed[ENCODED_KEY],
        "size": tf.stack([parsed[HEIGHT_KEY], parsed[WIDTH_KEY]]),
        "runs": parsed[RUNS_KEY],
        "mask_size": tf.stack([parsed[MASK_HEIGHT_KEY], parsed[MASK_WIDTH_KEY]]),
        "fold": parsed[FOLD_KEY],
    }


def _read_image(path, image_size):
    """The bytes of a JPEG, reduced to image_size if that is given, and their (height, width)."""
    try:
        encoded = tf.io.read_file(path)
        # A look at the header is not enough: a truncated file shows only when it is decoded.
        image = tf.io.decode_jpeg(encoded, channels=3, ratio=1 if image_size else 8)
        if image_size:
            image = decode_image(encoded, image_size)
            encoded = tf.io.encode_jpeg(image, quality=_JPEG_QUALITY, chroma_downsampling=False)
        return encoded.numpy(), tuple(tf.io.extract_jpeg_shape(encoded)[:2].numpy().tolist())
    except tf.errors.NotFoundError:
        raise FileNotFoundError(f"{path}: no such image, but the CSV has rows for it") from None
    except tf.errors.InvalidArgumentError:
        raise ValueError(f"{path}: not a whole, readable JPEG") from None


def _write_shard(path, members, images_dir, image_size, mask_size):
    """Writes one shard; `members` are (file name, four RLE, fold). Returns the path."""
    with files.written_whole(path) as temporary, tf.io.TFRecordWriter(temporary) as writer:
        for filename, rles, fold in members:
            encoded, size = _read_image(os.path.join(images_dir, filename), image_size)
            example = make_example(filename, encoded, size, rles, mask_size, fold)
            writer.write(example.SerializeToString())
    return path


def write_records(
    data_dir,
    output_dir,
    num_shards=16,
    num_folds=5,
    image_size=None,
    mask_size=IMAGE_SIZE,
    seed=0,
    num_workers=2,
    progress=iter,
):
    """Writes a folder of data as shards of TFRecords, and dataset_info.json last.

    Images are ordered by fold, shuffled within it, and cut into shards of equal count. So a shard
    holds one or two folds, and who wants one fold reads only its shards.

    Args:
        data_dir: a folder with train.csv and train_images/.
        output_dir: where the shards go.
        num_shards: number of files, from 1 to the number of images.
        num_folds: number of folds, from 2.
        image_size: (height, width) to reduce the images to; None keeps the bytes of the files.
        mask_size: (height, width) of the masks that the RLE encodes.
        seed: of the folds and of the order.
        num_workers: number of processes; 1 writes in this one.
        progress: wraps the iterable of finished shards, such as tqdm.

    Returns:
        The content of dataset_info.json, as `read_info` gives it.

    Raises:
        FileNotFoundError, ValueError: train.csv or an image is missing or faulty, or an argument is
            out of its range. Shards that were finished stay; dataset_info.json is not written.
    """
    table = annotations.read_csv(os.path.join(data_dir, TRAIN_CSV), mask_size)
    if not 1 <= num_shards <= len(table):
        raise ValueError(
            f"num_shards: got {num_shards}, expected 1 to {len(table)}, one image each"
        )
    folds = annotations.split_into_folds(annotations.presence(table), num_folds, seed)
    random_order = np.random.default_rng(seed).permutation(len(table))
    order = random_order[np.argsort(folds[random_order], kind="stable")]
    rles = table[list(CLASS_NAMES)].to_numpy(dtype=object)
    shards, jobs = [], []
    for shard, members in enumerate(np.array_split(order, num_shards)):
        name = f"clouds-{shard:05d}-of-{num_shards:05d}.tfrecord"
        counts = {str(fold): int(np.sum(folds[members] == fold)) for fold in set(folds[members])}
        shards.append({"file": name, "num_examples": len(members), "folds": counts})
        examples = [(table["filename"][i], tuple(rles[i]), int(folds[i])) for i in members]
        images_dir = os.path.join(data_dir, TRAIN_IMAGES)
        jobs.append((os.path.join(output_dir, name), examples, images_dir, image_size, mask_size))

    tf.io.gfile.makedirs(output_dir)
    for _ in progress(_run(_write_shard, jobs, num_workers)):
        pass
    info = {
        "schema_version": SCHEMA_VERSION,
        "class_names": list(CLASS_NAMES),
        "num_examples": len(table),
        "num_folds": num_folds,
        "image_size": image_size and list(image_size),
        "mask_size": list(mask_size),
        "seed": seed,
        "shards": shards,
    }
    files.write_text(os.path.join(output_dir, INFO_FILE), json.dumps(info, indent=1) + "\n")
    return info


def _run(function, jobs, num_workers):
    """Yields function(*job) for every job, as they finish, from num_workers processes."""
    if num_workers == 1:
        yield from (function(*job) for job in jobs)
        return
    # TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(num_workers, mp_context=context) as executor:
        try:
            futures = [executor.submit(function, *job) for job in jobs]
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


def read_info(records_dir):
    """Reads the dataset_info.json of a folder of shards and checks that the shards are there.

    Raises:
        FileNotFoundError: it, or a shard that it names, is not there.
        ValueError: other classes, or another version of the schema.
    """
    path = os.path.join(records_dir, INFO_FILE)
    info = json.loads(files.read_text(path))
    for key, expected in (("schema_version", SCHEMA_VERSION), ("class_names", list(CLASS_NAMES))):
        if info.get(key) != expected:
            raise ValueError(f"{path}: {key}: got {info.get(key)}, expected {expected}")
    for shard in info["shards"]:
        if not tf.io.gfile.exists(os.path.join(records_dir, shard["file"])):
            raise FileNotFoundError(f"{os.path.join(records_dir, shard['file'])}: no such shard")
    return info


def fingerprint(records_dir):
    """A short string that differs when the records differ in images, folds or sizes."""
    text = files.read_text(os.path.join(records_dir, INFO_FILE))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
