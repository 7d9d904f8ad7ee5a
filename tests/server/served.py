"""SavedModels of tiny networks, and a client of an application around them."""

import base64
import contextlib
import http.client
import json
import shutil
import signal
import threading
import time

import numpy as np
import pytest
import stubs
import tensorflow as tf
from prometheus_client.parser import text_string_to_metric_families
from shared_fixtures import IMAGE_SIZE
from starlette.testclient import TestClient

from clouds_tf.dataset import CLOUDS
from clouds_tf.prediction.likeness import Likeness, statistics
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.server import running
from clouds_tf.server.app import make_app
from clouds_tf.server.batching import Batcher
from clouds_tf.server.http import ServerState
from clouds_tf.server.metrics import Metrics
from clouds_tf.server.settings import ServerSettings
from clouds_tf.server.versions import Versions
from clouds_tf.serving.cloud_model import CloudModel, write_version

V1 = "/v1/models/clouds"


@pytest.fixture(scope="session")
def written(once):
    """A folder of two versions whose weights differ; the second one knows no likeness."""

    def write(folder):
        noise = np.random.default_rng(0).integers(0, 256, (8, *IMAGE_SIZE, 3), np.uint8)
        likeness = Likeness.fit(statistics(tf.constant(noise)).numpy(), IMAGE_SIZE)
        for seed in range(2):
            network = stubs.network(classification_head=True, seed=seed)
            about = Metadata(CLOUDS, (IMAGE_SIZE,), likeness=None if seed else likeness)
            write_version(CloudModel([network], about), folder)

    return once("served", write)


@contextlib.contextmanager
def served(saved_model, **settings):
    """A TestClient with the attributes versions, metrics and state of its application."""
    settings = ServerSettings(**{"poll_seconds": 0, **settings})
    metrics, state = Metrics(), ServerState()
    versions = Versions(str(saved_model), settings, metrics)
    versions.load_first()
    app = make_app(versions, settings, metrics, state)
    with TestClient(app, raise_server_exceptions=False) as client:
        client.versions, client.metrics, client.state = versions, metrics, state
        yield client


@contextlib.contextmanager
def running_server(saved_model, **settings):
    """A server in a thread; gives (host, port) and the running.Server."""
    servers, init = [], running.Server.__init__

    def remember(self, *args):
        init(self, *args)
        servers.append(self)

    settings = ServerSettings(port=0, access_log=False, **settings)
    running.Server.__init__ = remember
    thread = threading.Thread(target=running.run, args=(str(saved_model), settings))
    thread.start()
    try:
        while not (servers and servers[0].started):
            assert thread.is_alive()
            time.sleep(0.01)
        (listener,) = servers[0].servers[0].sockets
        yield listener.getsockname()[:2], servers[0]
    finally:
        running.Server.__init__ = init
        servers[0].handle_exit(signal.SIGINT, None)
        thread.join(30)
        assert not thread.is_alive()


def post(address, content, path="/v1/models/clouds:predict"):
    """Posts JSON on a connection of its own; gives (status, headers, body)."""
    with contextlib.closing(http.client.HTTPConnection(*address, timeout=60)) as connection:
        connection.request("POST", path, json.dumps(content))
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), json.loads(response.read())


def hold_networks(monkeypatch):
    """Makes calls of the network wait for an event, and gives it."""
    opened, run = threading.Event(), Batcher._run_networks

    def wait(self, images):
        assert opened.wait(60)
        return run(self, images)

    monkeypatch.setattr(Batcher, "_run_networks", wait)
    return opened


def b64(content):
    """Bytes as the JSON of V1 has them."""
    return {"b64": base64.b64encode(content).decode()}


def sample(client, name, **labels):
    """The value of a metric, 0 if there is none."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = (s for family in families for s in family.samples)
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


def copy_version(written, number, folder, to=None):
    """Copies a version; gives its path."""
    return shutil.copytree(f"{written}/{number}", f"{folder}/{to or number}")


def signature(saved_model, name="serving_default"):
    """A function from inputs to numpy outputs, by TensorFlow alone."""
    module = tf.saved_model.load(saved_model)

    def call(**inputs):
        found = module.signatures[name](**{k: tf.constant(v) for k, v in inputs.items()})
        return {key: value.numpy() for key, value in found.items()}

    return call
