"""Side files of a SavedModel for TensorFlow Serving: configuration and warm-up requests."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

from clouds_tf import files, gfile
from clouds_tf.data.preprocessing import encode_image

MODEL_NAME = "clouds"
MAX_BATCH_SIZE = 16
_WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"

_BATCHING = f"""max_batch_size {{ value: {MAX_BATCH_SIZE} }}
batch_timeout_micros {{ value: 5000 }}
max_enqueued_batches {{ value: 100 }}
num_batch_threads {{ value: 2 }}
"""
_MODELS = f"""model_config_list {{
  config {{
    name: "{MODEL_NAME}"
    base_path: "/models/{MODEL_NAME}"
    model_platform: "tensorflow"
  }}
}}
"""


def write_config(export_dir: str) -> None:
    """Writes batching.txt and models.config to the folder of all versions, unless they exist."""
    for name, text in (("batching.txt", _BATCHING), ("models.config", _MODELS)):
        path = os.path.join(export_dir, name)
        if not gfile.exists(path):
            files.write_text(path, text)


def write_warmup(saved_model: str, image: np.ndarray) -> None:
    """Writes warm-up requests, which TensorFlow Serving runs before it reports to be ready.

    Args:
        saved_model: folder of the SavedModel.
        image: uint8 [H, W, channels]; it is sent in batches of 1, 2, 4, ... MAX_BATCH_SIZE.

    Raises:
        ImportError: tensorflow-serving-api is not installed.
    """
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    encoded = encode_image(image)
    path = os.path.join(saved_model, _WARMUP_FILE)
    gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for size in (2**i for i in range(MAX_BATCH_SIZE.bit_length())):
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=MODEL_NAME, signature_name="serving_default"),
                inputs={"image_bytes": tf.make_tensor_proto([encoded] * size)},
            )
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())
