import ast
import base64
import concurrent.futures
import http.server
import json
import os
import re
import shutil
import subprocess
import threading

import numpy as np
import pytest
import stubs
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image
from programs import REPOSITORY, run_tool
from shared_fixtures import IMAGE_SIZE

from clouds_tf import client
from clouds_tf.dataset import CLOUDS
from clouds_tf.serving import Metadata, read_metadata, tf_serving
from clouds_tf.serving.cloud_model import CloudModel, write_version


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("export") / "E")
    metadata = Metadata(CLOUDS, (IMAGE_SIZE,))
    return write_version(CloudModel([stubs.network()], metadata), folder)


@pytest.fixture(scope="module")
def url(saved_model):
    """A server of the SavedModel that speaks the REST API of TensorFlow Serving, version 1."""
    module = tf.saved_model.load(saved_model)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802 (the name that http.server looks for)
            length = int(self.headers["Content-Length"])
            body = json.loads(self.rfile.read(length))
            instances = body["instances"]
            contents = [base64.b64decode(x["image_bytes"]["b64"]) for x in instances]
            try:
                assert self.path == "/v1/models/clouds:predict"
                signature = module.signatures[body.get("signature_name", "serving_default")]
                answer = signature(image_bytes=tf.constant(contents))
                answer = {name: value.numpy().tolist() for name, value in answer.items()}
                rows = [dict(zip(answer, values)) for values in zip(*answer.values())]
                status, body = 200, {"predictions": rows}
            except (AssertionError, tf.errors.InvalidArgumentError) as error:
                status, body = 400, {"error": str(error)}
            body = json.dumps(body, default=bytes.decode).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/v1/models/clouds"
        httpd.shutdown()


@pytest.fixture(scope="module")
def images(data_dir):
    return sorted((data_dir / "test_images").iterdir())


@pytest.fixture(scope="module")
def expected(saved_model, images):
    module = tf.saved_model.load(saved_model)
    contents = tf.constant([path.read_bytes() for path in images])
    answer = module.signatures["serving_default"](image_bytes=contents)
    return {name: value.numpy() for name, value in answer.items()}


def test_answers_are_those_of_the_model(url, images, expected):
    answers = client.request(url, [path.read_bytes() for path in images])
    for name in ("presence", "area_fraction"):
        np.testing.assert_allclose([answer[name] for answer in answers], expected[name], rtol=1e-5)
    found = [[x.encode() for x in answer["encoded_pixels"]] for answer in answers]
    assert found == expected["encoded_pixels"].tolist() and any(map(any, found))


def test_what_the_server_says_is_passed_on_in_one_line(url, images):
    with pytest.raises(ValueError) as error:
        client.request(url, [images[0].read_bytes(), b"<html>"])
    assert str(error.value) == f"{url}: status 400: expected a JPEG or a PNG, got something else"
    with pytest.raises(ValueError, match="v1/models/other: status 400"):
        client.request(url.replace("clouds", "other"), [])
    with pytest.raises(ConnectionError, match="http://127.0.0.1:9/v1: no answer: .*refused"):
        client.request("http://127.0.0.1:9/v1", [])


def test_the_file_that_is_refused_is_named(url, images, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"GIF89a")
    paths = [str(path) for path in (*images, bad)]
    with pytest.raises(ValueError) as error:
        list(client.request_files(url, paths))
    reason = "expected a JPEG or a PNG, got something else"
    assert str(error.value) == f"{bad}: {url}: status 400: {reason}"
    Image.fromarray(np.full((20, 30), 4095, np.uint16)).save(bad)
    with pytest.raises(ValueError, match=f"{bad}: .*400: got a PNG of 16 bits .* below 16384"):
        list(client.request_files(url, paths))


@pytest.mark.parametrize("url", ["http://localhost:8501", "localhost:8501/v1", "ftp://a/b", ""])
def test_what_is_no_url_of_a_model_is_named(url):
    with pytest.raises(ValueError, match=f"url: got '{url}', expected that of a model, such as"):
        client.request(url, [])


def test_the_server_says_which_model_it_has(url, saved_model):
    assert Metadata.from_json(client.read_metadata(url)) == read_metadata(saved_model)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on this machine")
def test_the_documented_curl_command_takes_a_native_image(url, expected, tmp_path):
    documents = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    text = "".join(path.read_text() for path in documents)
    (command,) = re.findall(
        r"^(echo .*image\.jpg.*request\.json\ncurl .*-d @request\.json)$", text, re.MULTILINE
    )
    noise = np.random.default_rng(0).integers(0, 256, (1400, 2100, 3), np.uint8)
    content = tf.io.encode_jpeg(noise).numpy()
    assert len(content) > 500_000  # far beyond what an argument of a command may have
    (tmp_path / "image.jpg").write_bytes(content)
    command = command.replace("http://localhost:8501/v1/models/clouds", url)
    found = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    (answer,) = json.loads(found.stdout)["predictions"]
    assert set(answer) == set(expected) and len(answer["encoded_pixels"]) == 4


def test_the_tool_writes_rows(url, images, expected, tmp_path):
    output = tmp_path / "answers.csv"
    flags = [f"--url={url}", "--batch_size=2", f"--output={output}"]
    found = run_tool("request", *flags, f"--images={','.join(map(str, images))}")
    assert found.returncode == 0, found.stderr
    header, *rows = output.read_text().splitlines()
    assert header == "Image_Label,EncodedPixels"
    names = [f"{path.name}_{class_name}" for path in images for class_name in CLOUDS.class_names]
    rles = [rle.decode() for rle in expected["encoded_pixels"].ravel()]
    assert rows == [f"{name},{rle}" for name, rle in zip(names, rles)]
    lines = found.stdout.splitlines()
    assert lines[0].startswith(f"{images[0].name}  Fish: {expected['presence'][0, 0]:.2f} on ")
    assert lines[-1].startswith(f"{url} answered for 3 images")


def test_the_documented_grpc_option_lets_probabilities_through():
    """Two images of 350x525 pixels and four classes are 5.9 MB; gRPC's default is 4 MB."""
    grpc = pytest.importorskip("grpc")
    text = (REPOSITORY / "docs" / "serve.md").read_text()
    (options,) = re.findall(r"^options = (\[.*\]) ", text, re.MULTILINE)
    probabilities = np.zeros([2, 350, 525, 4], np.float32).tobytes()
    handler = grpc.method_handlers_generic_handler(
        "S", {"Predict": grpc.unary_unary_rpc_method_handler(lambda request, _: probabilities)}
    )
    service = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    service.add_generic_rpc_handlers((handler,))
    port = service.add_insecure_port("127.0.0.1:0")
    service.start()
    try:
        for given, fits in ((ast.literal_eval(options), True), (None, False)):
            with grpc.insecure_channel(f"127.0.0.1:{port}", options=given) as channel:
                call = channel.unary_unary("/S/Predict")
                if fits:
                    assert call(b"", timeout=60) == probabilities
                else:
                    with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
                        call(b"", timeout=60)
    finally:
        service.stop(None)


def test_settings_of_the_server_are_written_once(tmp_path):
    tf_serving.write_config(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["batching.txt", "models.config"]
    (tmp_path / "batching.txt").write_text("num_batch_threads { value: 64 }\n")
    tf_serving.write_config(str(tmp_path))
    assert (tmp_path / "batching.txt").read_text() == "num_batch_threads { value: 64 }\n"


def test_the_server_can_read_its_settings(tmp_path):
    protos = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    tf_serving.write_config(str(tmp_path))
    config = protos.ModelServerConfig()
    text_format.Parse((tmp_path / "models.config").read_text(), config)
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("clouds", "/models/clouds")


def test_warm_up_requests_are_answered(saved_model, images, tmp_path):
    protos = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    tf_serving.write_warmup(str(tmp_path), tf.io.decode_jpeg(images[0].read_bytes()).numpy())
    path = tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    module = tf.saved_model.load(saved_model)
    sizes = []
    for record in tf.data.TFRecordDataset(str(path)):
        request = protos.PredictionLog.FromString(record.numpy()).predict_log.request
        signature = module.signatures[request.model_spec.signature_name]
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        answer = signature(**{name: tf.constant(value) for name, value in inputs.items()})
        sizes.append(answer["encoded_pixels"].shape[0])
    assert sizes == [1, 2, 4, 8, 16]
