"""What TensorFlow Serving wants beside a SavedModel, and a client that talks to it over REST."""

import base64
import json
import os
import urllib.error
import urllib.request

import tensorflow as tf

from clouds_tf import files

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


def write_config(export_dir):
    """Writes batching.txt and models.config into the folder of all versions, if not there yet."""
    for name, text in (("batching.txt", _BATCHING), ("models.config", _MODELS)):
        path = os.path.join(export_dir, name)
        if not tf.io.gfile.exists(path):
            files.write_text(path, text)


def write_warmup(saved_model, image):
    """Writes requests that TensorFlow Serving sends itself before it says that it is ready.

    Args:
        saved_model: the folder of the SavedModel.
        image: uint8 [H, W, 3]; it is sent as a JPEG, in batches of 1, 2, 4, ... MAX_BATCH_SIZE.

    Raises:
        ImportError: there is no tensorflow-serving-api.
    """
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    encoded = tf.io.encode_jpeg(image).numpy()
    path = os.path.join(saved_model, _WARMUP_FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        size = 1
        while size <= MAX_BATCH_SIZE:
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=MODEL_NAME, signature_name="serving_default"),
                inputs={"image_bytes": tf.make_tensor_proto([encoded] * size)},
            )
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())
            size *= 2


def request(url, image_bytes, timeout=60):
    """Asks a running server, over version 1 of the REST API of TensorFlow Serving and KServe.

    Args:
        url: of the model, such as http://localhost:8501/v1/models/clouds.
        image_bytes: a list of N bytes, JPEGs or PNGs.
        timeout: seconds to wait for an answer.

    Returns:
        A list of N dicts with encoded_pixels, presence and area_fraction of the four classes.

    Raises:
        ValueError: the server refuses the request; says why.
        ConnectionError: there is no answer.
    """
    instances = [{"image_bytes": {"b64": base64.b64encode(x).decode()}} for x in image_bytes]
    body = json.dumps({"instances": instances}).encode()
    post = urllib.request.Request(f"{url}:predict", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(post, timeout=timeout) as response:
            return json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        raise ValueError(f"{url}: status {error.code}: {text[:1000]}") from None
    except (urllib.error.URLError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(f"{url}: no answer: {reason}") from None
