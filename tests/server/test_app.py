"""The application beside the SavedModel itself, with good, bad and too many requests."""

import concurrent.futures
import json
import logging

import numpy as np
import pytest
import served
import tensorflow as tf
from google.protobuf import json_format
from served import V1, b64, sample, written  # noqa: F401
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from clouds_tf.prediction.metadata import Metadata, read_metadata
from clouds_tf.server import pages
from clouds_tf.server.batching import Batcher
from clouds_tf.server.errors import RequestError
from clouds_tf.server.metrics import Metrics

FLOATS = ("presence", "area_fraction", "expected_area_fraction", "likeness")


@pytest.fixture(scope="module")
def client(written, data_dir):  # noqa: F811
    settings = {"images_dir": str(data_dir / "test_images"), "keep_versions": 2}
    with served.served(written, max_body_mb=1, **settings) as found:
        yield found


@pytest.fixture(scope="module")
def contents(data_dir):
    return [path.read_bytes() for path in sorted((data_dir / "test_images").iterdir())]


@pytest.fixture(scope="module")
def expected(written, contents):  # noqa: F811
    return served.signature(f"{written}/1")(image_bytes=contents)


def check(answers, expected, rows=slice(None)):
    """Compares answers to images with outputs of the SavedModel."""
    found = [[rle.encode() for rle in answer["encoded_pixels"]] for answer in answers]
    assert found == expected["encoded_pixels"][rows].tolist()
    for name in FLOATS:
        got = np.array([answer[name] for answer in answers], float)
        np.testing.assert_allclose(got, expected[name][rows], rtol=1e-5, atol=1e-6)


@pytest.mark.lanes
def test_rows_and_columns_are_those_of_the_model(client, contents, expected):
    assert any(map(any, expected["encoded_pixels"]))
    url = f"{V1}/versions/1:predict"
    for instances in ([{"image_bytes": b64(x)} for x in contents], list(map(b64, contents))):
        check(client.post(url, json={"instances": instances}).json()["predictions"], expected)
    body = {"inputs": {"image_bytes": list(map(b64, contents))}}
    columns = client.post(url, json=body).json()["outputs"]
    check([dict(zip(columns, row)) for row in zip(*columns.values())], expected)
    assert client.post(url, json={"instances": []}).json() == {"predictions": []}


def test_the_other_signatures_too(client, written, contents):  # noqa: F811
    url = f"{V1}:predict"  # the newest version
    wanted = served.signature(f"{written}/2", "probabilities")(image_bytes=contents[:1])
    body = {"signature_name": "probabilities", "instances": [b64(contents[0])]}
    (found,) = client.post(url, json=body).json()["predictions"]
    np.testing.assert_allclose(found, wanted["probabilities"][0], atol=1e-6)

    pixels = np.random.default_rng(0).integers(0, 256, (1, 20, 30, 3), np.uint8)
    wanted = served.signature(f"{written}/2", "from_pixels")(images=pixels)
    body = {"signature_name": "from_pixels", "instances": [{"images": pixels[0].tolist()}]}
    (found,) = client.post(url, json=body).json()["predictions"]
    assert [x.encode() for x in found["encoded_pixels"]] == wanted["encoded_pixels"][0].tolist()
    np.testing.assert_allclose(found["probabilities"], wanted["probabilities"][0], atol=1e-6)
    assert found["likeness"] is None and np.isnan(wanted["likeness"])

    body = {"signature_name": "metadata", "instances": [b64(b"")]}
    (text,) = client.post(url, json=body).json()["predictions"]
    assert Metadata.from_json(json.loads(text)) == read_metadata(f"{written}/2")


def test_no_images_have_the_shapes_of_the_saved_model(client, written):  # noqa: F811
    wanted = served.signature(f"{written}/1", "from_pixels")(
        images=tf.zeros([0, 2, 2, 3], tf.uint8)
    )
    outputs = [{"name": name} for name in wanted]
    for name, kind, shape in ("image_bytes", "BYTES", [0]), ("images", "UINT8", [0, 2, 2, 3]):
        tensor = {"name": name, "datatype": kind, "shape": shape, "data": []}
        body = {"inputs": [tensor], "outputs": outputs}
        answer = client.post("/v2/models/clouds/versions/1/infer", json=body)
        found = {x["name"]: (x["shape"], x["data"]) for x in answer.json()["outputs"]}
        assert found == {name: (list(value.shape), []) for name, value in wanted.items()}


def test_state_and_metadata_are_messages_of_tensorflow_serving(client, written):  # noqa: F811
    apis = pytest.importorskip("tensorflow_serving.apis")
    from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

    assert apis
    status = json_format.Parse(
        client.get(V1).content, get_model_status_pb2.GetModelStatusResponse()
    )
    assert [x.version for x in status.model_version_status] == [2, 1]
    assert {x.state for x in status.model_version_status} == {30}  # AVAILABLE
    found = client.get(f"{V1}/versions/1/metadata").json()
    assert found["model_spec"] == {"name": "clouds", "signature_name": "", "version": "1"}
    signatures = json_format.ParseDict(
        found["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap()
    ).signature_def
    module = tf.saved_model.load(f"{written}/1")
    assert set(module.signatures) == set(signatures) - {"__saved_model_init_op"}
    tensor = found["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert tensor["image_bytes"]["dtype"] == "DT_STRING"
    assert tensor["image_bytes"]["tensor_shape"] == shape
    assert client.get(f"{V1}/versions/1").json()["model_version_status"] == [
        {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]


def test_open_inference_protocol(client, contents, expected):
    assert client.get("/v2/health/live").json()["live"]
    assert client.get("/v2/health/ready").json()["ready"]
    assert client.get("/v2").json()["name"] == "clouds_tf"
    assert client.get("/v2/models/clouds/ready").json() == {"name": "clouds", "ready": True}
    assert client.get("/v2/models/clouds/versions/7/ready").status_code == 404
    about = client.get("/v2/models/clouds").json()
    assert about["versions"] == ["2", "1"]
    kinds = {x["name"]: (x["datatype"], x["shape"]) for x in about["inputs"] + about["outputs"]}
    assert kinds["image_bytes"] == ("BYTES", [-1]) and kinds["presence"] == ("FP32", [-1, 4])

    url, data = "/v2/models/clouds/versions/1/infer", [b64(x)["b64"] for x in contents]
    tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [len(data)], "data": data}
    answer = client.post(url, json={"id": "a", "inputs": [tensor]}).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("clouds", "1", "a")
    for output in answer["outputs"]:
        assert kinds[output["name"]] == (output["datatype"], [-1, *output["shape"][1:]])
    columns = {x["name"]: np.reshape(x["data"], x["shape"]) for x in answer["outputs"]}
    check([dict(zip(columns, row)) for row in zip(*columns.values())], expected)

    pixels = list(range(24))
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 2, 4, 3], "data": pixels}
    body = {"inputs": [tensor], "outputs": [{"name": "presence"}]}
    (output,) = client.post("/v2/models/clouds/infer", json=body).json()["outputs"]
    assert (output["name"], output["shape"]) == ("presence", [1, 4])


GOOD = {"image_bytes": b64(tf.io.encode_png(np.zeros([2, 3, 3], np.uint8)).numpy())}
BAD = [
    (b"{", "the body is not JSON"),
    (b"[" * 100_000, "the body is not JSON"),
    (b"\xff", "the body is not JSON"),
    ([], "the body: got [], expected an object"),
    ({}, "expected either 'instances' or 'inputs'"),
    ({"instances": [], "inputs": []}, "expected either 'instances' or 'inputs'"),
    ({"instances": 3}, "instances: got 3, expected a list"),
    ({"instances": [], "signature_name": "x"}, "signature_name: got x, expected one of serving"),
    ({"instances": [{"image": 1}]}, "instances[0]: got image, expected the input 'image_bytes'"),
    ({"instances": [GOOD, {"b64": 5}]}, "instances[1]: got 5, expected Base64"),
    ({"instances": [{"b64": "*"}]}, "instances[0]: got *, expected Base64"),
    ({"instances": [b64(b"GIF89a")]}, "a GIF, expected a JPEG or a PNG"),
    ({"instances": [GOOD, b64(b"")]}, "image 2 of 2: an empty file"),
    ({"instances": [b64(b"\xff\xd8\xff")]}, "a damaged or truncated JPEG"),
    ({"instances": [GOOD] * 65}, "got 65 images, expected at most 64"),
    ({"instances": [[[[1, 2]]]], "signature_name": "from_pixels"}, "instances[0]: got the shape"),
    ({"instances": [[[[1, 2, 256]]]], "signature_name": "from_pixels"}, "whole numbers of 0 to"),
    ({"instances": [[[[1], [2, 3]]]], "signature_name": "from_pixels"}, "whole numbers of 0 to"),
]


@pytest.mark.parametrize("body, sentence", BAD, ids=range(len(BAD)))
def test_bad_requests_get_a_sentence(client, body, sentence):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post(f"{V1}:predict", content=content)
    assert answer.status_code == 400 and sentence in answer.json()["error"]
    assert "Traceback" not in answer.text and len(answer.text) < 400


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"name": "x"}, "inputs[0].name: got x"),
        ({"datatype": "FP32"}, "inputs[0].datatype: got FP32, expected BYTES"),
        ({"shape": [2]}, "inputs[0].data: got 1 values, expected 2"),
        ({"shape": [-1]}, "inputs[0].shape: got [-1]"),
        ({"shape": [1, 2]}, "inputs[0].shape: got [1, 2]"),
        ({"shape": None}, "inputs[0].shape: got None"),
        ({"data": "x"}, "inputs[0].data: got x, expected a list"),
    ],
)
def test_bad_tensors_get_a_sentence(client, changes, sentence):
    tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": ["R0lG"]}
    answer = client.post("/v2/models/clouds/infer", json={"inputs": [{**tensor, **changes}]})
    assert answer.status_code == 400 and answer.json()["error"].startswith(sentence)


def test_the_pixels_of_all_images_of_a_request_count(client, monkeypatch):
    _, batcher = client.versions.find()
    number = 13 / batcher.predictor.metadata.max_image_pixels  # of GOOD's 6 pixels: two, not three
    monkeypatch.setattr("clouds_tf.server.batching.LARGEST_IMAGES", number)
    for instances, status in ([GOOD] * 2, 200), ([GOOD] * 3, 400):
        answer = client.post(f"{V1}:predict", json={"instances": instances})
        assert answer.status_code == status
    assert "got 18 pixels in all images" in answer.json()["error"]


def test_what_is_not_there_is_404_and_405(client):
    for path in (f"{V1}/versions/3", f"{V1}/versions/x", f"{V1}/versions/{'9' * 5000}", "/v1/x"):
        answer = client.get(path)
        assert answer.status_code == 404 and answer.json()["error"]
    answer = client.post("/v1/models/other:predict", json={"instances": []})
    assert (answer.status_code, answer.json()["error"]) == (
        404,
        "no model 'other', expected 'clouds'",
    )
    for middle in "", "/versions/1":
        answer = client.post(f"{V1}{middle}:classify", json={"instances": []})
        expected = 404, {"error": "verb: got 'classify', expected 'predict'"}
        assert (answer.status_code, answer.json()) == expected
        answer = client.post(f"{V1}{middle}")
        assert answer.status_code == 405 and "GET" in answer.headers["allow"]


def test_bad_images_do_not_harm_their_batch(client, contents, expected):
    before = sample(client, "clouds_batch_size_count")

    def send(i):
        content = contents[i % 3] if i % 4 else b"\xff\xd8\xff" + bytes(i)
        return i, client.post(f"{V1}/versions/1:predict", json={"instances": [b64(content)]})

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for i, answer in pool.map(send, range(24)):
            assert answer.status_code == (200 if i % 4 else 400), answer.text
            if i % 4:
                check(answer.json()["predictions"], expected, slice(i % 3, i % 3 + 1))
    assert sample(client, "clouds_batch_size_count") - before < 18  # some were merged


def test_large_bodies_are_refused(client):
    url = f"{V1}:predict"
    answer = client.post(url, content=b" " * 1_000_001)
    assert answer.status_code == 413 and "larger than 1 MB" in answer.json()["error"]
    read = []

    def chunks():
        for _ in range(1000):
            read.append(1)
            yield b" " * 10_000

    assert client.post(url, content=chunks()).status_code == 413
    assert client.state.body_bytes == 0


def test_bodies_that_are_not_plain_json_are_refused(client):
    for header, word in ("Content-Encoding", "gzip"), ("Inference-Header-Content-Length", "binary"):
        answer = client.post(f"{V1}:predict", content=b"\x1f\x8b", headers={header: "gzip"})
        assert answer.status_code == 415 and word in answer.json()["error"]


def test_more_than_there_is_room_for_is_503(client, monkeypatch):
    gate = served.hold_networks(monkeypatch)
    url, body = f"{V1}:predict", {"instances": [GOOD] * 40}
    before = sample(client, "clouds_errors_total", kind="overloaded")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, url, json=body)
        while client.versions.workers._images < 40:
            pass
        answer = client.post(url, json=body)
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1
        assert "too many images" in answer.json()["error"]
        assert sample(client, "clouds_errors_total", kind="overloaded") == before + 1
        gate.set()
        assert first.result().status_code == 200
    assert client.post(url, json=body).status_code == 200


def test_as_many_images_as_allowed_are_admitted_and_no_more(client):
    workers = client.versions.workers
    with workers.admit(workers.settings.max_images):
        with pytest.raises(RequestError, match="503"), workers.admit(1):
            pass
    with workers.admit(1):
        pass


@pytest.mark.parametrize("kind", [RuntimeError, KeyError])  # not as of a version, which is 404
def test_a_fault_of_ours_is_500_without_a_traceback(client, monkeypatch, caplog, kind):
    def fail(*_):
        raise kind("secret")

    monkeypatch.setattr(Batcher, "_run_networks", fail)
    answer = client.post(f"{V1}:predict", json={"instances": [GOOD, GOOD]})
    assert answer.status_code == 500 and "secret" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["error"]
    assert "secret" in caplog.text and answer.headers["x-request-id"] in caplog.text


def test_an_unknown_likeness_is_not_counted():
    metrics = Metrics()
    metrics.observe_answer(("Fish",), np.nan, [0.5])
    text = metrics.render().decode()
    assert "clouds_likeness_sum 0.0" in text and 'clouds_presence_sum{class="Fish"} 0.5' in text


def test_metrics_count_what_happens(client, contents):
    labels = [
        ("clouds_requests_total", {"protocol": "v1", "code": "200"}),
        ("clouds_requests_total", {"protocol": "v1", "code": "400"}),
        ("clouds_errors_total", {"kind": "bad_request"}),
        ("clouds_images_total", {"outcome": "answered"}),
        ("clouds_images_total", {"outcome": "refused"}),
        ("clouds_likeness_count", {}),
        ("clouds_presence_count", {"class": "Fish"}),
        ("clouds_latency_seconds_count", {"stage": "decode"}),
        ("clouds_latency_seconds_count", {"stage": "total"}),
    ]
    before = [sample(client, name, **some) for name, some in labels]
    url = f"{V1}/versions/1:predict"
    client.post(url, json={"instances": list(map(b64, contents[:2]))})
    client.post(url, json={"instances": [b64(b"\xff\xd8\xff")]})
    after = [sample(client, name, **some) for name, some in labels]
    assert np.subtract(after, before).tolist() == [1, 1, 1, 2, 1, 2, 2, 2, 1]
    assert sample(client, "clouds_model_info", version="1") == 1
    assert sample(client, "clouds_model_current_version") == 2
    assert sample(client, "clouds_queue_images") == 0
    assert sample(client, "process_resident_memory_bytes") > 1e6


def test_requests_are_logged_as_json(client, contents, caplog):
    caplog.set_level(logging.INFO, "clouds_tf.access")
    url = f"{V1}:predict"
    client.post(url, json={"instances": [b64(contents[0])]}, headers={"X-Request-ID": "r-1"})
    client.post(url, content=b"{", headers={"X-Request-ID": "bad\nid"})
    client.get("/healthz")
    first, second = (r.fields for r in caplog.records if r.name == "clouds_tf.access")
    assert (first["id"], first["status"], first["images"], first["version"]) == ("r-1", 200, 1, 2)
    assert first["seconds"] > 0 and first["received"] > len(contents[0]) and first["sent"] > 0
    assert second["status"] == 400 and "not JSON" in second["error"] and "\n" not in second["id"]


def test_the_page_has_what_it_needs(client, contents, written):  # noqa: F811
    index = client.get("/")
    assert index.status_code == 200 and "text/html" in index.headers["content-type"]
    policy = index.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "wasm" not in policy and "http" not in policy
    about = client.get("/page/settings.json").json()
    assert (about["model"], about["version"], about["in_browser"]) == ("clouds", 2, False)
    assert Metadata.from_json(about["metadata"]) == read_metadata(f"{written}/2")
    names = client.get("/images/").json()
    assert len(names) == 3 and client.get(f"/images/{names[0]}").content == contents[0]


@pytest.mark.parametrize(
    "path", ["../train.csv", "..%2ftrain.csv", "%2e%2e/train.csv", "/etc/passwd"]
)
def test_no_path_leads_out_of_the_images(client, path):
    for folder in ("/images/", "/page/"):
        assert client.get(folder + path).status_code == 404


def test_other_files_beside_the_images_are_not_shown(tmp_path):
    for name in ("a.JPG", "secret.txt"):
        (tmp_path / name).write_bytes(b"x")
    client = TestClient(Starlette(routes=[Mount("/images", pages._Images(directory=tmp_path))]))
    assert client.get("/images/a.JPG").content == b"x"
    assert client.get("/images/secret.txt").status_code == 404
