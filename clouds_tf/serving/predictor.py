"""A folder of images -> a submission, by way of a SavedModel; interrupted work is gone on with."""

import collections
import hashlib
import itertools
import operator
import os
from concurrent import futures

import tensorflow as tf

from clouds_tf import figures, rle
from clouds_tf.data import annotations
from clouds_tf.schema import CLASS_NAMES, NUM_CLASSES, SUBMISSION_SIZE
from clouds_tf.serving import submission
from clouds_tf.serving.untrusted import decode_images

_BATCHES_IN_PART = 8  # what a killed process loses at most
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


def devices(num_devices=None):
    """The names of the GPUs of this machine, of all or of the first ones; without any, of the CPU.

    Raises:
        ValueError: there are not so many.
    """
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    names = [device.name for device in tf.config.list_logical_devices(kind)]
    if num_devices is not None and num_devices > len(names):
        raise ValueError(f"num_devices: got {num_devices}, expected 1 to {len(names)} ({kind}s)")
    return names[:num_devices]


def load(saved_model, device=None):
    """Loads the default signature of a SavedModel that `export` wrote.

    Args:
        saved_model: the folder of a version.
        device: the name of the device that keeps the weights and computes.

    Returns:
        A function from image_bytes, string [N], to a dict with encoded_pixels, string [N, 4].

    Raises:
        FileNotFoundError: there is no SavedModel.
        ValueError: it has no such signature.
    """
    if not tf.saved_model.contains_saved_model(saved_model):
        raise FileNotFoundError(f"{saved_model}: no SavedModel; expected a folder such as E/1")
    with tf.device(device):
        module = tf.saved_model.load(saved_model)
    signature = module.signatures.get("serving_default")
    if signature is None or "encoded_pixels" not in signature.structured_outputs:
        raise ValueError(f"{saved_model}: not a SavedModel of export: no output encoded_pixels")

    def predict(image_bytes):
        with tf.device(device):
            return signature(image_bytes=image_bytes)

    predict.module = module  # the signature holds its variables only weakly
    return predict


def fingerprint(saved_model):
    """Tells SavedModels apart: a string of the checksums of the graph and of the weights."""
    return tf.saved_model.experimental.read_fingerprint(saved_model).singleprint()


def parse_shard(text):
    """Reads "i/n", the i-th of n shards from 0 on, as (i, n); ValueError for anything else."""
    parts = text.split("/")
    if len(parts) != 2 or not all(p.isdecimal() for p in parts) or int(parts[0]) >= int(parts[1]):
        raise ValueError(f"shard: got {text!r}, expected i/n with i from 0 to n - 1, such as 0/3")
    return int(parts[0]), int(parts[1])


def read_order(images_dir, sample_submission=None):
    """Yields (file name, class names) of each image: in the order of the sample, else by name."""
    if sample_submission is None:
        for name in sorted(tf.io.gfile.listdir(images_dir)):
            if name.lower().endswith(_IMAGE_ENDINGS):
                yield name, CLASS_NAMES
        return
    rows = annotations.iterate_rows(sample_submission)
    for filename, group in itertools.groupby(rows, key=operator.itemgetter(0)):
        yield filename, tuple(class_name for _, class_name, _ in group)


def _survey(images_dir, sample_submission):
    """Counts the images, makes sure that they are there, and takes the checksum of the order."""
    count, checksum = 0, hashlib.sha256()
    for filename, class_names in read_order(images_dir, sample_submission):
        path = os.path.join(images_dir, filename)
        if not tf.io.gfile.exists(path):
            raise FileNotFoundError(f"{path}: no such image, but {sample_submission} names it")
        count += 1
        checksum.update(repr((filename, class_names)).encode())
    if not count:
        raise ValueError(f"{images_dir}: no images ({', '.join(_IMAGE_ENDINGS)})")
    return count, checksum.hexdigest()


def predict_folder(
    predictors,
    images_dir,
    output,
    sample_submission=None,
    batch_size=16,
    shard=(0, 1),
    on_error="blank",
    overlay_dir=None,
    model=None,
    progress=lambda images, **_: images,
):
    """Predicts a folder of images, in parts of eight batches, and merges the parts.

    Each part is a file in the folder `output`.parts. Run again, it predicts what is missing there:
    after an interruption, or where several processes had a shard each. When nothing is missing,
    the parts become `output`. Memory does not grow with the number of images, but for their names
    where there is no sample.

    Args:
        predictors: functions as `load` gives them, one for each device.
        images_dir: the folder of the images.
        output: the CSV or Parquet file to write.
        sample_submission: CSV with the rows to fill in; None takes all images, sorted by name.
        batch_size: images in a batch.
        shard: (i, n): predicts every n-th part from the i-th on, and merges only if n is 1.
        on_error: "blank" leaves the rows of an unreadable image blank, "fail" raises.
        overlay_dir: a folder for a picture of each image with its masks, or None.
        model: says which model it is, to keep parts of different ones apart.
        progress: wraps the iterable of predicted images; is given the total and the initial count.

    Returns:
        The number of images of this shard, and the names of the unreadable ones.

    Raises:
        FileNotFoundError: the sample, or an image that it names, is not there.
        ValueError: the sample is malformed, an image is unreadable, there are no images, or the
            parts are those of another run.
    """
    submission.check_ending(output)
    num_images, order = _survey(images_dir, sample_submission)
    settings = {"model": model, "images_dir": images_dir, "order": order, "batch_size": batch_size}
    folder = f"{output}.parts"
    submission.start_parts(folder, settings)

    size = _BATCHES_IN_PART * batch_size
    sizes = {start // size: min(size, num_images - start) for start in range(0, num_images, size)}
    mine = [number for number in sizes if number % shard[1] == shard[0]]
    todo = {number for number in mine if not submission.has_part(folder, number)}
    predicted = progress(
        _predict_parts(predictors, images_dir, sample_submission, size, batch_size, todo),
        total=sum(sizes[number] for number in mine),
        initial=sum(sizes[number] for number in mine if number not in todo),
    )
    for number, group in itertools.groupby(predicted, key=operator.itemgetter(0)):
        rows = []
        for _, filename, class_names, answer in group:
            if answer is None and on_error == "fail":
                path = os.path.join(images_dir, filename)
                raise ValueError(f"{path}: not a whole, readable JPEG or PNG of a sensible size")
            rows += [(filename, name, answer and answer[name]) for name in class_names]
            if overlay_dir and answer is not None:
                figure = draw_images(images_dir, {filename: answer}, num_columns=1)
                stem, _ = os.path.splitext(filename)
                figures.save(figure, os.path.join(overlay_dir, f"{stem}.png"))
        submission.write_part(folder, number, rows)

    rows = submission.read_parts(folder, mine)
    unreadable = list(dict.fromkeys(filename for filename, _, found in rows if found is None))
    if shard[1] == 1:
        rows = submission.read_parts(folder, mine)
        submission.write(output, ((filename, name, found or "") for filename, name, found in rows))
        tf.io.gfile.rmtree(folder)
    return sum(sizes[number] for number in mine), unreadable


def _predict_parts(predictors, images_dir, sample_submission, size, batch_size, todo):
    """Yields (part, file name, class names, answer) of each image of the parts to do, in order."""

    def batches():
        order = enumerate(read_order(images_dir, sample_submission))
        for number, group in itertools.groupby(order, key=lambda item: item[0] // size):
            if number in todo:
                images = [image for _, image in group]
                for start in range(0, len(images), batch_size):
                    yield number, images[start : start + batch_size]

    def predict(predictor, batch):
        number, images = batch
        contents = [tf.io.read_file(os.path.join(images_dir, name)) for name, _ in images]
        return number, images, _answers(predictor, contents)

    for number, images, answers in _in_order(predict, predictors, batches()):
        for (filename, class_names), answer in zip(images, answers):
            yield number, filename, class_names, answer


def _in_order(function, workers, items):
    """Yields function(worker, item) of each item in order, two at a time on each worker.

    While one of the two computes, the other one reads and decodes.
    """
    with futures.ThreadPoolExecutor(2 * len(workers)) as pool:
        running = collections.deque()
        for worker, item in zip(itertools.cycle(workers), items):
            running.append(pool.submit(function, worker, item))
            if len(running) == 2 * len(workers):
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _answers(predict, contents):
    """For each image a dict of class name -> RLE, or None where its bytes are unreadable."""
    try:
        encoded = predict(tf.stack(contents))["encoded_pixels"].numpy()
    except tf.errors.InvalidArgumentError:
        if len(contents) == 1:
            return [None]
        return [_answers(predict, [one])[0] for one in contents]
    return [dict(zip(CLASS_NAMES, (found.decode() for found in rles))) for rles in encoded]


def draw(path, images_dir, num_images=6):
    """Draws the first images of a submission with the masks that it gives them.

    Args:
        path: a CSV with the rows of an image next to each other.
        images_dir: the folder of the images.
        num_images: how many to draw.

    Returns:
        A matplotlib Figure.
    """
    rows = itertools.islice(annotations.iterate_rows(path), num_images * NUM_CLASSES)
    by_image = collections.defaultdict(dict)
    for filename, class_name, found in rows:
        by_image[filename][class_name] = found
    return draw_images(images_dir, by_image)


def draw_images(images_dir, answers, **layout):
    """Draws images with their masks; answers: dict file name -> dict class name -> RLE."""
    images, masks = [], []
    for filename, by_class in answers.items():
        strings = [by_class.get(name, "") for name in CLASS_NAMES]
        mask = rle.decode(strings, SUBMISSION_SIZE, SUBMISSION_SIZE)
        masks.append(tf.transpose(mask, [1, 2, 0]).numpy())
        encoded = tf.io.read_file(os.path.join(images_dir, filename))
        images.append(decode_images(encoded[tf.newaxis], SUBMISSION_SIZE)[0].numpy())
    return figures.overlays(images, masks, list(answers), **layout)
