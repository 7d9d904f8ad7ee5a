"""Trained models -> one SavedModel that answers JPEG bytes with RLE, without Python."""

import os

import tensorflow as tf

from clouds_tf import files, rle
from clouds_tf.data.preprocessing import decode_image
from clouds_tf.models.folding import fold_batch_norm, fold_upsampling
from clouds_tf.schema import NUM_CLASSES, SUBMISSION_SIZE
from clouds_tf.serving.ensemble import mean_prediction
from clouds_tf.serving.postprocessing import PLAIN, postprocess


class CloudModel(tf.Module):
    """JPEG bytes -> probabilities -> masks -> RLE, in one graph.

    Args:
        models: Keras models from images to logits; several are averaged.
        image_sizes: for each model, the (height, width) that it was trained with.
        rules: four Rules of post-processing, in the order of CLASS_NAMES.
        test_time_augmentation: "none" or "flips".
    """

    def __init__(self, models, image_sizes, rules=PLAIN, test_time_augmentation="none"):
        super().__init__(name="clouds_tf")
        models = [fold_upsampling(fold_batch_norm(model)) for model in models]
        # A SavedModel of the Keras objects would hold the graphs of every layer as well, and take
        # minutes to write; the variables are all that has to be tracked.
        self.weights = [model.variables for model in models]
        image_sizes = [tuple(size) for size in image_sizes]

        def predict_some(image_bytes):
            decoded = {
                size: tf.map_fn(
                    lambda encoded: decode_image(encoded, size),  # noqa: B023 (traced at once)
                    image_bytes,
                    fn_output_signature=tf.TensorSpec([*size, 3], tf.uint8),
                )
                for size in set(image_sizes)
            }
            images = [decoded[size] for size in image_sizes]
            calls = [lambda image, m=model: m(image, training=False) for model in models]
            probabilities, presence = mean_prediction(calls, images, test_time_augmentation)
            return probabilities, presence, images[0]

        def predict(image_bytes):
            """Probabilities, presence, and images to find the gap in."""
            shapes = [*SUBMISSION_SIZE, NUM_CLASSES], [NUM_CLASSES], [*image_sizes[0], 3]
            predicted = tf.cond(
                tf.size(image_bytes) > 0,
                lambda: predict_some(image_bytes),
                # oneDNN fails on a convolution of no image.
                lambda: (
                    tf.zeros([0, *shapes[0]]),
                    tf.zeros([0, *shapes[1]]),
                    tf.zeros([0, *shapes[2]], tf.uint8),
                ),
            )
            return [tf.ensure_shape(x, [None, *shape]) for x, shape in zip(predicted, shapes)]

        signature = [tf.TensorSpec([None], tf.string, name="image_bytes")]

        @tf.function(input_signature=signature)
        def serve(image_bytes):
            probabilities, presence, images = predict(image_bytes)
            masks = postprocess(probabilities, presence, images, rules)
            return {
                "encoded_pixels": rle.encode(tf.transpose(masks, [0, 3, 1, 2])),
                "presence": presence,
            }

        @tf.function(input_signature=signature)
        def serve_probabilities(image_bytes):
            return {"probabilities": predict(image_bytes)[0]}

        self.serve = serve
        self.serve_probabilities = serve_probabilities


def export(module, export_dir):
    """Writes a SavedModel into the next free numbered folder, whole or not at all.

    Its signatures take image_bytes, string [N], JPEGs of any size; N may be 0.
        serving_default: encoded_pixels, string [N, 4], the RLE at 350x525, "" where the class is
            absent; presence, float32 [N, 4] in [0, 1], as `mean_prediction` gives it.
        probabilities: probabilities, float32 [N, 350, 525, 4] in [0, 1], before post-processing.

    Args:
        module: a `CloudModel`.
        export_dir: the folder of all versions, as TensorFlow Serving wants it.

    Returns:
        The path of the new version: export_dir/1, or the number after the highest.
    """
    versions = [0]
    if tf.io.gfile.exists(export_dir):
        names = [name.rstrip("/") for name in tf.io.gfile.listdir(export_dir)]
        versions += [int(name) for name in names if name.isdecimal()]
    path = os.path.join(export_dir, str(max(versions) + 1))
    signatures = {"serving_default": module.serve, "probabilities": module.serve_probabilities}
    with files.written_whole(path) as temporary:
        tf.saved_model.save(module, temporary, signatures)
    return path
