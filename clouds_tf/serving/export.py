"""Trained models -> one SavedModel that answers JPEG or PNG bytes with RLE, without Python."""

import dataclasses
import json
import os

import tensorflow as tf

from clouds_tf import files, rle
from clouds_tf.data.preprocessing import resize_image
from clouds_tf.inference.ensemble import mean_prediction
from clouds_tf.inference.fusing import fuse
from clouds_tf.inference.postprocessing import plain_rules, postprocess
from clouds_tf.schema import CLASS_NAMES, CLOUDS, NUM_CLASSES, SCHEMA_VERSION, SUBMISSION_SIZE
from clouds_tf.serving.untrusted import MAX_IMAGE_PIXELS, decode_images

METADATA_FILE = "assets.extra/metadata.json"  # in the SavedModel


class CloudModel(tf.Module):
    """Bytes or pixels -> probabilities -> masks -> RLE, in one graph.

    Args:
        models: Keras models from images to logits; several are averaged.
        image_sizes: for each model, the (height, width) that it was trained with.
        rules: four Rules of post-processing, in the order of CLASS_NAMES.
        test_time_augmentation: "none" or "flips".
        max_image_pixels: larger images are refused before they are decoded.
        training: JSON-like, where the models come from; part of the metadata.
        fold: whether batch norm and upsampling go into the convolutions.
    """

    def __init__(
        self,
        models,
        image_sizes,
        rules=plain_rules(NUM_CLASSES),
        test_time_augmentation="none",
        max_image_pixels=MAX_IMAGE_PIXELS,
        training=None,
        fold=True,
    ):
        super().__init__(name="clouds_tf")
        if fold:
            models = [fuse(model) for model in models]
        # A SavedModel of the Keras objects would hold the graphs of every layer as well, and take
        # minutes to write; the variables are all that has to be tracked.
        self.weights = [model.variables for model in models]
        image_sizes = [tuple(size) for size in image_sizes]

        @tf.function(
            input_signature=[[tf.TensorSpec([None, *s, 3], tf.uint8) for s in image_sizes]]
        )
        def predict_images(images):
            calls = [lambda image, m=model: m(image, training=False) for model in models]
            probabilities, presence = mean_prediction(
                calls, images, SUBMISSION_SIZE, test_time_augmentation
            )
            return probabilities, presence, images[0]

        def predict(inputs, read):
            """Inputs [N, ...] -> probabilities, presence, and images to find the gap in.

            read(inputs, size) gives uint8 [N, *size, 3].
            """
            shapes = [*SUBMISSION_SIZE, NUM_CLASSES], [NUM_CLASSES], [*image_sizes[0], 3]

            def predict_some():
                resized = {size: read(inputs, size) for size in set(image_sizes)}
                return predict_images([resized[size] for size in image_sizes])

            predicted = tf.cond(
                tf.shape(inputs)[0] > 0,
                predict_some,
                # oneDNN fails on a convolution of no image.
                lambda: (
                    tf.zeros([0, *shapes[0]]),
                    tf.zeros([0, *shapes[1]]),
                    tf.zeros([0, *shapes[2]], tf.uint8),
                ),
            )
            return [tf.ensure_shape(x, [None, *shape]) for x, shape in zip(predicted, shapes)]

        def predict_bytes(image_bytes):
            return predict(image_bytes, lambda x, size: decode_images(x, size, max_image_pixels))

        def answer(probabilities, presence, images):
            masks = postprocess(
                probabilities, presence, images, rules, CLOUDS.gap_brightness
            )
            return {
                "encoded_pixels": rle.encode(tf.transpose(masks, [0, 3, 1, 2])),
                "presence": presence,
                "area_fraction": tf.reduce_mean(tf.cast(masks, tf.float32), axis=[1, 2]),
            }

        image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
        images = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")

        @tf.function(input_signature=[image_bytes])
        def serve(image_bytes):
            return answer(*predict_bytes(image_bytes))

        @tf.function(input_signature=[image_bytes])
        def serve_probabilities(image_bytes):
            return {"probabilities": predict_bytes(image_bytes)[0]}

        @tf.function(input_signature=[images])
        def serve_pixels(images):
            predicted = predict(images, resize_image)
            return {**answer(*predicted), "probabilities": predicted[0]}

        def describe(version):
            metadata = {
                "version": version,
                "schema_version": SCHEMA_VERSION,
                "class_names": CLASS_NAMES,
                "mask_size": SUBMISSION_SIZE,
                "image_sizes": image_sizes,
                "postprocessing": {
                    name: dataclasses.asdict(rule) for name, rule in zip(CLASS_NAMES, rules)
                },
                "test_time_augmentation": test_time_augmentation,
                "max_image_pixels": max_image_pixels,
                "training": training,
            }
            return json.dumps(metadata, indent=1)

        self.serve = serve
        self.serve_probabilities = serve_probabilities
        self.serve_pixels = serve_pixels
        self.describe = describe


def export(module, export_dir, finish=lambda path: None):
    """Writes a SavedModel into the next free numbered folder, whole or not at all.

    Its signatures, where N may be 0 and images may be of different sizes:
        serving_default: image_bytes, string [N], JPEGs or PNGs, to
            encoded_pixels, string [N, 4], the RLE at 350x525, "" where the class is absent;
            presence, float32 [N, 4] in [0, 1], as `mean_prediction` gives it;
            area_fraction, float32 [N, 4] in [0, 1], the share of the image in the class's mask.
        probabilities: image_bytes to
            probabilities, float32 [N, 350, 525, 4] in [0, 1], before post-processing.
        from_pixels: images, uint8 [N, H, W, 3], to all four.
        metadata: image_bytes, which it does not look at, to
            metadata, string [N], each the JSON that METADATA_FILE holds too.

    Args:
        module: a `CloudModel`.
        export_dir: the folder of all versions, as TensorFlow Serving wants it.
        finish: called with the path of the SavedModel before it takes its place, to look at it and
            to add files; where it raises, nothing is left.

    Returns:
        The path of the new version: export_dir/1, or the number after the highest.
    """
    versions = [0]
    if tf.io.gfile.exists(export_dir):
        names = [name.rstrip("/") for name in tf.io.gfile.listdir(export_dir)]
        versions += [int(name) for name in names if name.isdecimal()]
    version = max(versions) + 1
    path = os.path.join(export_dir, str(version))
    metadata = module.describe(version)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve_metadata(image_bytes):
        # A server that merges requests wants an output for each input.
        return {"metadata": tf.fill(tf.shape(image_bytes), metadata)}

    signatures = {
        "serving_default": module.serve,
        "probabilities": module.serve_probabilities,
        "from_pixels": module.serve_pixels,
        "metadata": serve_metadata,
    }
    with files.written_whole(path) as temporary:
        tf.saved_model.save(module, temporary, signatures)
        files.write_text(os.path.join(temporary, METADATA_FILE), metadata + "\n")
        finish(temporary)
    return path
