"""Sharded TFRecords: planned, written, resumed and verified."""

import hashlib
import json
import os

import numpy as np
import tensorflow as tf

from clouds_tf import files
from clouds_tf.data import annotations, runners
from clouds_tf.data.examples import SCHEMA_VERSION, make_example
from clouds_tf.data.preprocessing import decode_image
from clouds_tf.schema import CLASS_NAMES, IMAGE_SIZE, TRAIN_CSV, TRAIN_IMAGES

INFO_FILE = "dataset_info.json"
FOLDS_FILE = "folds.csv"
REJECTED_FILE = "rejected.csv"
_SKEW = 0.02  # of the ratio of the sides, between an image and its masks
_PLAN_ENDING = ".plan.json"  # of what a shard will hold, for runners elsewhere
_DEFAULT_SHARDS = 16


def read_shard(path, num_examples):
    """Reads the serialized examples of a shard.

    Args:
        path: of the shard, string [].
        num_examples: how many were written, int64 [].

    Returns:
        A tf.data.Dataset of string []. Where one cannot be read, it raises InvalidArgumentError,
        which names the shard; the DataLossError of tf.data does not.
    """

    def fail(path):
        message = tf.strings.join(
            [path, ": damaged, got fewer than the ", tf.strings.as_string(num_examples)]
            + [" examples that were written; see make_tfrecords.py --verify"]
        )
        with tf.control_dependencies([tf.raw_ops.Assert(condition=False, data=[message])]):
            return tf.identity(path)

    # What follows the readable examples is never looked at, unless there are too few of them.
    readable = tf.data.TFRecordDataset(path).ignore_errors(log_warning=True)
    return readable.concatenate(tf.data.Dataset.from_tensors(path).map(fail)).take(num_examples)


def _read_image(path, image_size, mask_size, jpeg_quality):
    """The bytes of a JPEG, reduced to image_size if that is given, and their (height, width)."""
    if os.path.islink(path) and not os.path.exists(path):
        raise ValueError(f"a link to {os.readlink(path)}, which is not there")
    try:
        encoded = tf.io.read_file(path).numpy()
        if not encoded.startswith(b"\xff\xd8"):  # tf.io.decode_jpeg reads PNG and GIF too
            raise ValueError(f"not a JPEG, its first bytes are {encoded[:8]}")
        height, width = tf.io.extract_jpeg_shape(encoded)[:2].numpy().tolist()
        rows, columns = mask_size
        if abs(height * columns - width * rows) > _SKEW * width * rows + max(rows, columns):
            raise ValueError(
                f"{height}x{width} (height x width) is another shape than the masks' {rows}x"
                f"{columns}; is it rotated, or cut?"
            )
        # A look at the header is not enough: a truncated file shows only when it is decoded.
        tf.io.decode_jpeg(encoded, channels=3, ratio=1 if image_size else 8)
        if image_size:
            image = decode_image(encoded, image_size)
            encoded = tf.io.encode_jpeg(image, quality=jpeg_quality, chroma_downsampling=False)
            encoded = encoded.numpy()
        return encoded, tuple(tf.io.extract_jpeg_shape(encoded)[:2].numpy().tolist())
    except tf.errors.NotFoundError:
        raise ValueError("no such image, but the CSV has rows for it") from None
    except tf.errors.InvalidArgumentError:
        raise ValueError("not a whole, readable JPEG") from None
    except tf.errors.OpError as error:
        if tf.io.gfile.isdir(path):
            raise ValueError("a folder, expected a JPEG file") from None
        raise ValueError(f"cannot be read: {error.message}") from None


def _sha256(path):
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_shard(path, members, images_dir, image_size, mask_size, jpeg_quality, on_error):
    """Writes one shard, and a card beside it that says what it holds and what it was made from.

    A shard whose card agrees is left as it is. One with a faulty image is not written at all, or
    under "skip" without that image.

    Args:
        path: of the shard.
        members: a list of (file name, four RLE, fold).
        images_dir: the folder of the images.
        image_size: (height, width) to reduce the images to; None keeps the bytes of the files.
        mask_size: (height, width) of the masks that the RLE encodes.
        jpeg_quality: of reduced images.
        on_error: "fail" or "skip".

    Returns:
        The path.
    """
    images = [os.path.join(images_dir, filename) for filename, _, _ in members]
    stats = [tf.io.gfile.stat(x) if tf.io.gfile.exists(x) else None for x in images]
    made_from = hashlib.sha256(
        json.dumps(
            [SCHEMA_VERSION, image_size, mask_size, jpeg_quality, on_error, members]
            + [[stat and [stat.length, stat.mtime_nsec] for stat in stats]]
        ).encode()
    ).hexdigest()
    if tf.io.gfile.exists(path) and tf.io.gfile.exists(path + ".json"):
        card = json.loads(files.read_text(path + ".json"))
        # A shard with faults has no entry; the file is an older one then.
        whole = card["shard"] and card["shard"]["sha256"] == _sha256(path)
        if whole and card["made_from"] == made_from:
            return path

    faults, folds = [], []
    with files.written_whole(path) as temporary, tf.io.TFRecordWriter(temporary) as writer:
        for image, (filename, rles, fold) in zip(images, members):
            try:
                encoded, size = _read_image(image, image_size, mask_size, jpeg_quality)
            except ValueError as error:
                faults.append(annotations.Fault(image, 0, str(error)))
                continue
            example = make_example(filename, encoded, size, rles, mask_size, fold)
            # The order of a map is that of its keys, not of their hashes, which differ by process.
            writer.write(example.SerializeToString(deterministic=True))
            folds.append(fold)
    shard = None
    if faults and on_error == "fail":
        tf.io.gfile.remove(path)
    else:
        shard = {
            "file": os.path.basename(path),
            "num_examples": len(folds),
            "folds": {str(fold): folds.count(fold) for fold in sorted(set(folds))},
            "num_bytes": tf.io.gfile.stat(path).length,
            "sha256": _sha256(path),
        }
    card = {"shard": shard, "faults": faults, "made_from": made_from}
    files.write_text(path + ".json", json.dumps(card, indent=1) + "\n")
    return path


def _read_card(path):
    """The entry of a shard in dataset_info.json, None if it has faults, and a list of Fault."""
    card = json.loads(files.read_text(path + ".json"))
    return card["shard"], [annotations.Fault(*fault) for fault in card["faults"]]


def check_images(images, mask_size):
    """Reads JPEG files of masks of this size and gives a list of Fault."""
    faults = []
    for image in images:
        try:
            _read_image(image, None, mask_size, None)
        except ValueError as error:
            faults.append(annotations.Fault(image, 0, str(error)))
    return faults


def plan(
    data_dir,
    num_shards=None,
    num_folds=5,
    mask_size=IMAGE_SIZE,
    seed=0,
    folds_csv=None,
    exclude=None,
):
    """Decides which image goes to which shard.

    Images are ordered by fold, shuffled within it, and cut into shards of equal count. So a shard
    holds one or two folds, and who wants one fold reads only its shards.

    Args:
        data_dir: a folder with train.csv and train_images/.
        num_shards: number of files, from 1 to the number of images; None takes 16, or one for each
            image where there are fewer.
        num_folds: number of folds, from 2.
        mask_size: (height, width) of the masks that the RLE encodes.
        seed: of the folds and of the order.
        folds_csv: a CSV with the columns filename and fold, to take instead of new folds.
        exclude: a text file with a file name on each line: images to leave out.

    Returns:
        A list of shards, each a list of (file name, four RLE, fold), and the list of faults in
        train.csv.

    Raises:
        FileNotFoundError, ValueError: there is no train.csv, its masks are of another size, a name
            to exclude is unknown, a fold is empty, or an argument is out of its range.
    """
    csv_path = os.path.join(data_dir, TRAIN_CSV)
    lines = files.read_text(exclude).splitlines() if exclude else []
    excluded = {line.strip() for line in lines} - {""}
    table, named, faults = annotations.check_csv(csv_path, mask_size, excluded)
    images_dir = os.path.join(data_dir, TRAIN_IMAGES)
    found = tf.io.gfile.listdir(images_dir) if tf.io.gfile.isdir(images_dir) else []
    unknown = sorted(excluded - named - set(found))
    if unknown:
        raise ValueError(f"{exclude}: no image has the name {', '.join(map(repr, unknown))}")
    if not faults:
        annotations.check_geometry(table, mask_size, csv_path, "--mask_size")
    faults += [
        annotations.Fault(os.path.join(images_dir, name), 0, f"no rows for it in {csv_path}")
        for name in sorted(found)
        if name.endswith(".jpg") and name not in named | excluded
    ]
    if num_shards is None:
        num_shards = max(1, min(_DEFAULT_SHARDS, len(table)))
    if not 1 <= num_shards <= len(table):
        annotations.raise_faults(faults)
        raise ValueError(
            f"num_shards: got {num_shards}, expected 1 to {len(table)}, one image each"
        )
    if folds_csv:
        folds = annotations.read_folds(folds_csv, table["filename"])
    else:
        folds = annotations.split_into_folds(annotations.presence(table), num_folds, seed)
        annotations.check_folds(folds, "num_folds")
    random_order = np.random.default_rng(seed).permutation(len(table))
    order = random_order[np.argsort(folds[random_order], kind="stable")]
    filenames, rles = table["filename"].tolist(), table[list(CLASS_NAMES)].values.tolist()
    shards = [
        [(filenames[i], rles[i], int(folds[i])) for i in members]
        for members in np.array_split(order, num_shards)
    ]
    return shards, faults


def write_records(
    data_dir,
    output_dir,
    num_shards=None,
    num_folds=5,
    image_size=None,
    mask_size=IMAGE_SIZE,
    seed=0,
    num_workers=2,
    jpeg_quality=95,
    folds_csv=None,
    exclude=None,
    on_error="fail",
    runner="local",
    beam_options=(),
    progress=lambda done, total: None,
):
    """Writes a folder of data as shards of TFRecords, folds.csv, and dataset_info.json last.

    Killed at any moment and called again, it writes only the shards that are missing, and the
    result is that of one undisturbed call.

    Args:
        data_dir: a folder with train.csv and train_images/.
        output_dir: where the shards go.
        num_shards: as `plan` has it.
        num_folds: as `plan` has it.
        image_size: (height, width) to reduce the images to; None keeps the bytes of the files.
        mask_size: (height, width) of the masks that the RLE encodes.
        seed: of the folds and of the order.
        num_workers: number of processes; 1 writes in this one.
        jpeg_quality: of reduced images, 1 to 100.
        folds_csv: as `plan` has it.
        exclude: as `plan` has it.
        on_error: "fail" looks at all the data and then raises an error that lists all faults;
            "skip" leaves faulty images out and lists them in rejected.csv.
        runner: "local", or the name of an Apache Beam runner, such as "direct" or "dataflow", which
            then decides on the number of processes.
        beam_options: what that runner wants to know, such as ["--project=P", "--region=R"].
        progress: a function, called with the number of images done and of all.

    Returns:
        The content of dataset_info.json, as `read_info` gives it.

    Raises:
        FileNotFoundError, ValueError: train.csv or images are missing or faulty, or an argument is
            out of its range. Shards that were finished stay; dataset_info.json is not written.
    """
    shards, faults = plan(data_dir, num_shards, num_folds, mask_size, seed, folds_csv, exclude)
    images_dir = os.path.join(data_dir, TRAIN_IMAGES)
    if faults and on_error == "fail":
        images = [[os.path.join(images_dir, x) for x, _, _ in members] for members in shards]
        faults += sum(runners.run(check_images, [(x, mask_size) for x in images], num_workers), [])
        annotations.raise_faults(sorted(faults))
    _remove_leftovers(output_dir)
    names = [f"clouds-{i:05d}-of-{len(shards):05d}.tfrecord" for i in range(len(shards))]
    how = (images_dir, image_size, mask_size, jpeg_quality, on_error)
    jobs = [(os.path.join(output_dir, x), members, *how) for x, members in zip(names, shards)]
    entries, total, done = [], sum(map(len, shards)), 0
    if runner == "local":
        paths = runners.run(write_shard, jobs, num_workers)
    else:
        paths = _write_in_beam(jobs, runner, beam_options)
    for entry, found in map(_read_card, paths):
        faults += found
        if entry:
            entries.append(entry)
            done += entry["num_examples"]
            progress(done, total)
    faults.sort()
    if on_error == "fail":
        annotations.raise_faults(faults)
    elif faults:
        rejected = os.path.join(output_dir, REJECTED_FILE)
        annotations.write_table(rejected, annotations.Fault._fields, faults)
    if not done:
        raise ValueError(f"{images_dir}: no image can be read; {len(faults)} faults")
    members = sorted((filename, fold) for shard in shards for filename, _, fold in shard)
    annotations.write_table(os.path.join(output_dir, FOLDS_FILE), ("filename", "fold"), members)
    info = {
        "schema_version": SCHEMA_VERSION,
        "class_names": list(CLASS_NAMES),
        "image_size": image_size and list(image_size),
        "mask_size": list(mask_size),
        "num_examples": done,
        "num_folds": max(fold for _, fold in members) + 1,
        "seed": seed,
        "num_rejected": len(faults),
        "shards": sorted(entries, key=lambda entry: entry["file"]),
    }
    files.write_text(os.path.join(output_dir, INFO_FILE), json.dumps(info, indent=1) + "\n")
    return info


def _write_in_beam(jobs, runner, beam_options):
    """Writes shards in Apache Beam, which gets their plans by way of files.

    The RLE of all images are 200 MB of text and more, too much for a description of a pipeline.
    """
    for path, members, *_ in jobs:
        files.write_text(path + _PLAN_ENDING, json.dumps(members))
    small = [(path, *how) for path, _, *how in jobs]
    runners.run_in_beam(_write_planned_shard, small, runner, beam_options)
    for path, *_ in jobs:
        tf.io.gfile.remove(path + _PLAN_ENDING)
        yield path


def _write_planned_shard(path, *how):
    """Writes a shard whose members are in a file beside it."""
    write_shard(path, json.loads(files.read_text(path + _PLAN_ENDING)), *how)


def _remove_leftovers(output_dir):
    """Removes what a killed run left half-written, and what says that all is well."""
    for name in tf.io.gfile.listdir(output_dir) if tf.io.gfile.isdir(output_dir) else ():
        if files.is_unfinished(name) or name in (INFO_FILE, REJECTED_FILE):
            tf.io.gfile.remove(os.path.join(output_dir, name))


def read_info(records_dir):
    """Reads the dataset_info.json of a folder of shards and checks that the shards are there.

    Raises:
        FileNotFoundError: it, or a shard that it names, is not there.
        ValueError: other classes, another version of the schema, or a shard of another length.
    """
    path = os.path.join(records_dir, INFO_FILE)
    try:
        info = json.loads(files.read_text(path))
        for key in ("num_examples", "num_folds", "mask_size", "shards"):
            info[key]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: damaged, or not written by make_tfrecords ({error!r}); the command that "
            "wrote these records mends it"
        ) from None
    for key, expected in (("schema_version", SCHEMA_VERSION), ("class_names", list(CLASS_NAMES))):
        if info.get(key) != expected:
            raise ValueError(f"{path}: {key}: got {info.get(key)}, expected {expected}")
    for shard in info["shards"]:
        path = os.path.join(records_dir, shard["file"])
        if not tf.io.gfile.exists(path):
            raise FileNotFoundError(f"{path}: no such shard")
        length = tf.io.gfile.stat(path).length
        if length != shard["num_bytes"]:
            raise ValueError(f"{path}: has {length} bytes, expected {shard['num_bytes']}")
    return info


def verify_records(records_dir):
    """Reads a folder of shards from end to end.

    Returns:
        What `read_info` gives.

    Raises:
        FileNotFoundError, ValueError: as `read_info` does, or the checksum of a shard is another;
            all such shards are named.
    """
    info = read_info(records_dir)
    faults = []
    for shard in info["shards"]:
        path = os.path.join(records_dir, shard["file"])
        found = _sha256(path)
        if found != shard["sha256"]:
            faults.append(
                annotations.Fault(path, 0, f"SHA-256 is {found}, expected {shard['sha256']}")
            )
    annotations.raise_faults(faults)
    return info


def fingerprint(records_dir):
    """A short string that differs when the records differ in images, folds or sizes."""
    text = files.read_text(os.path.join(records_dir, INFO_FILE))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
