"""A folder of images -> the rows of a submission, by way of a SavedModel."""

import itertools
import os

import tensorflow as tf

from clouds_tf import figures, rle
from clouds_tf.data import annotations
from clouds_tf.data.preprocessing import decode_image
from clouds_tf.schema import CLASS_NAMES, NUM_CLASSES, SUBMISSION_SIZE


def load(saved_model):
    """Loads the default signature of a SavedModel that `export` wrote.

    Returns:
        A function from image_bytes, string [N], to a dict with encoded_pixels, string [N, 4].

    Raises:
        FileNotFoundError: there is no SavedModel.
        ValueError: it has no such signature.
    """
    if not tf.saved_model.contains_saved_model(saved_model):
        raise FileNotFoundError(f"{saved_model}: no SavedModel; expected a folder such as E/1")
    module = tf.saved_model.load(saved_model)
    signature = module.signatures.get("serving_default")
    if signature is None or "encoded_pixels" not in signature.structured_outputs:
        raise ValueError(f"{saved_model}: not a SavedModel of export: no output encoded_pixels")

    def predict(image_bytes):
        return signature(image_bytes=image_bytes)

    predict.module = module  # the signature holds its variables only weakly
    return predict


def read_order(sample_submission, images_dir):
    """The rows that a submission must have, as (file name, [class names]) per image.

    Raises:
        FileNotFoundError: the sample, or an image that it names, is not there.
        ValueError: the sample is malformed.
    """
    rows = annotations.read_rows(sample_submission)
    order = [
        (filename, [class_name for _, class_name in group])
        for filename, group in itertools.groupby(
            zip(rows["filename"], rows["class"]), key=lambda row: row[0]
        )
    ]
    for filename, _ in order:
        path = os.path.join(images_dir, filename)
        if not tf.io.gfile.exists(path):
            raise FileNotFoundError(f"{path}: no such image, but {sample_submission} names it")
    return order


def predict_rows(predict, images_dir, order, batch_size=16):
    """Predicts images in batches, as they are read.

    Args:
        predict: as `load` gives it.
        images_dir: the folder of the images.
        order: as `read_order` gives it.
        batch_size: images in a batch.

    Yields:
        (file name, class name, RLE) for every row, in order.

    Raises:
        ValueError: an image is not a whole JPEG; it is named.
    """
    paths = [os.path.join(images_dir, filename) for filename, _ in order]
    contents = tf.data.Dataset.from_tensor_slices(paths).map(tf.io.read_file, tf.data.AUTOTUNE)
    batches = contents.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    remaining = iter(order)
    done = 0
    for image_bytes in batches:
        size = len(image_bytes)
        try:
            encoded = predict(image_bytes)["encoded_pixels"].numpy()
        except tf.errors.InvalidArgumentError:
            _name_unreadable(predict, image_bytes, paths[done : done + size])
            raise
        done += size
        for image_rles, (filename, class_names) in zip(encoded, itertools.islice(remaining, size)):
            by_class = dict(zip(CLASS_NAMES, image_rles))
            for class_name in class_names:
                yield filename, class_name, by_class[class_name].decode()


def _name_unreadable(predict, image_bytes, paths):
    for one, path in zip(image_bytes, paths):
        try:
            predict(one[tf.newaxis])
        except tf.errors.InvalidArgumentError:
            raise ValueError(f"{path}: not a whole, readable JPEG") from None


def draw(submission, images_dir, num_images=6):
    """Draws the first images of a submission with the masks that it gives them.

    Args:
        submission: a CSV with the rows of an image next to each other.
        images_dir: the folder of the images.
        num_images: how many to draw.

    Returns:
        A matplotlib Figure.
    """
    rows = annotations.read_rows(submission).head(num_images * NUM_CLASSES)
    images, masks = [], []
    for filename, group in rows.groupby("filename", sort=False):
        by_class = dict(zip(group["class"], group["rle"]))
        strings = [by_class.get(name, "") for name in CLASS_NAMES]
        mask = rle.decode(strings, SUBMISSION_SIZE, SUBMISSION_SIZE)
        masks.append(tf.transpose(mask, [1, 2, 0]).numpy())
        encoded = tf.io.read_file(os.path.join(images_dir, filename))
        images.append(decode_image(encoded, SUBMISSION_SIZE).numpy())
    return figures.overlays(images, masks, rows["filename"].unique())
