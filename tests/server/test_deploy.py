"""The files of deploy/ fit the server: flags, ports, paths, metrics, times, versions."""

import contextlib
import json
import math
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
import yaml
from served import b64, post, running_server, written  # noqa: F401
from shared_fixtures import REPOSITORY
from starlette.testclient import TestClient

import clouds_tf
from clouds_tf.server.app import make_app
from clouds_tf.server.batching import Batcher
from clouds_tf.server.http import ServerState
from clouds_tf.server.metrics import Metrics
from clouds_tf.server.running import _LAST_SECONDS
from clouds_tf.server.settings import ServerSettings
from clouds_tf.server.versions import Versions

DEPLOY = REPOSITORY / "deploy"
TEXTS = {
    str(path.relative_to(DEPLOY)): path.read_text() for path in DEPLOY.rglob("*") if path.is_file()
}
DOCUMENTS = {
    name: list(yaml.safe_load_all(text))
    for name, text in TEXTS.items()
    if name.endswith((".yaml", ".yml"))
}
DASHBOARD = json.loads(TEXTS["grafana/dashboards/clouds.json"])
SETTINGS = ServerSettings()
USER = 10001


def _walk(value):
    """Yields all dicts within a value of JSON or YAML."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _walk(item)


def _instructions(name):
    """(instruction, arguments) of a Dockerfile."""
    text = re.sub(r"(?m)^#.*\n", "", TEXTS[name]).replace("\\\n", "")
    return re.findall(r"(?m)^([A-Z]+) (.*)", text)


def _commands():
    """The arguments with which each file starts the server."""
    (command,) = [rest for word, rest in _instructions("Dockerfile") if word == "CMD"]
    (unit,) = re.findall(r"(?m)^ExecStart=\S+ serve (.*)", TEXTS["clouds.service"])
    yield "Dockerfile", json.loads(command)
    yield "clouds.service", shlex.split(unit)
    for name in ("kubernetes.yaml", "kserve.yaml"):
        (arguments,) = [x["args"] for x in _walk(DOCUMENTS[name]) if "args" in x]
        yield name, arguments


@pytest.fixture(scope="module")
def client():
    """A client of a server that has not loaded any version."""
    metrics = Metrics()
    versions = Versions("E", SETTINGS, metrics)
    return TestClient(make_app(versions, SETTINGS, metrics, ServerState()))


@pytest.fixture(scope="module")
def scraped():
    """The names of samples in a scrape, each with its labels."""
    metrics = Metrics()
    with metrics.timed("total"):
        metrics.observe_answer(["Fish"], 0.5, [0.5])
    metrics.requests.labels("v1", "200").inc()
    metrics.errors.labels("timeout").inc()
    metrics.model_info.labels("1", "0123").set(1)
    found = {"up": set()}
    for name, labels in re.findall(r"(?m)^(\w+)(?:\{(.*)\})? ", metrics.render().decode()):
        found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
    return found


def test_flags_are_those_of_the_server():
    known = {"saved_model", *vars(SETTINGS)}
    for name, arguments in _commands():
        given = dict(re.fullmatch(r"--(\w+)=(.+)", argument).groups() for argument in arguments)
        assert "saved_model" in given and given.keys() <= known, name
        host = given.get("host", SETTINGS.host)
        assert host == ("127.0.0.1" if name == "clouds.service" else "0.0.0.0"), name


def test_all_files_name_one_port():
    (expose,) = [rest for word, rest in _instructions("Dockerfile") if word == "EXPOSE"]
    found = {"Dockerfile": {expose}}
    found["Dockerfile of health"] = set(re.findall(r"127\.0\.0\.1:(\d+)", TEXTS["Dockerfile"]))
    found["compose"] = set(
        DOCUMENTS["compose.yaml"][0]["services"]["clouds"]["ports"][0].split(":")[1:]
    )
    found["prometheus"] = set(re.findall(r"clouds:(\d+)", TEXTS["prometheus/prometheus.yml"]))
    for name in ("kubernetes.yaml", "kserve.yaml"):
        ports = {
            str(value)
            for place in _walk(DOCUMENTS[name])
            for key, value in place.items()
            if key in ("containerPort", "port", "prometheus.io/port", "prometheus.kserve.io/port")
        }
        found[name] = ports - {"http"}
    assert all(ports == {str(SETTINGS.port)} for ports in found.values()), found


def test_probes_ask_for_routes_of_the_server(client):
    paths = {"/" + path for path in re.findall(r":8501/(\w+)", TEXTS["Dockerfile"])}
    keys = ("path", "prometheus.io/path", "prometheus.kserve.io/path")
    for name in ("kubernetes.yaml", "kserve.yaml"):
        paths |= {place[key] for place in _walk(DOCUMENTS[name]) for key in keys if key in place}
    assert {"/readyz", "/healthz", "/metrics"} < paths
    # No version is loaded, so most of them say 503.
    assert not {path for path in paths if client.get(path).status_code == 404}
    assert client.get("/ready").status_code == 404


def test_the_server_has_time_to_end():
    least = SETTINGS.drain_seconds + _LAST_SECONDS
    (unit,) = re.findall(r"TimeoutStopSec=(\d+)", TEXTS["clouds.service"])
    grace = DOCUMENTS["compose.yaml"][0]["services"]["clouds"]["stop_grace_period"]
    pod = DOCUMENTS["kubernetes.yaml"][0]["spec"]["template"]["spec"]
    for seconds in (unit, grace.removesuffix("s"), pod["terminationGracePeriodSeconds"]):
        assert float(seconds) > least


def _unknown(expression, scraped):
    """The names and labels of an expression that are not in a scrape."""
    name = r"\b((?:clouds|process|python)_\w+|up)\b"
    used = re.findall(name + r"(?:\{(.*?)\})?", expression)
    assert used, expression
    labels = {"job", "instance", "le"}.union(*(scraped.get(metric, ()) for metric, _ in used))
    by = re.findall(r"\bby \((.*?)\)", expression)
    named = re.findall(r"\w+", " ".join(by))
    named += [label for _, inside in used for label in re.findall(r"(\w+)\s*[=!]", inside)]
    return [x for x, _ in used if x not in scraped] + [x for x in named if x not in labels]


def test_metrics_are_those_of_a_scrape(scraped):
    expressions = [place["expr"] for place in _walk(DASHBOARD) if "expr" in place]
    expressions += [
        rule["expr"] for rule in _walk(DOCUMENTS["prometheus/alerts.yml"]) if "expr" in rule
    ]
    assert len(expressions) > 20
    assert not {text: found for text in expressions if (found := _unknown(text, scraped))}
    kinds = re.findall(r'clouds_errors_total\{kind="(\w+)"\} 0', Metrics().render().decode())
    assert {"internal", "overloaded", "timeout", "bad_request"} < set(kinds)
    for wrong in ("clouds_nothing_total", "sum by (code) (clouds_errors_total)"):
        assert _unknown(wrong, scraped)
    assert _unknown('clouds_requests_total{kind="a"}', scraped) == ["kind"]


def test_panels_stand_apart_and_know_their_source():
    (file,) = DOCUMENTS["grafana/provisioning/datasources/prometheus.yml"]
    (source,) = file["datasources"]
    used = {x["datasource"]["uid"] for x in _walk(DASHBOARD) if "datasource" in x}
    assert used == {source["uid"]}
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


def test_versions_and_users_are_the_same_everywhere():
    images = set(re.findall(r"clouds-tf(?:-serving)?:([\w.]+)", "\n".join(TEXTS.values())))
    assert images == {clouds_tf.__version__}
    tags = {
        re.search(r"tensorflow/serving:([\w.]+)", text)[1]
        for text in (
            TEXTS["tensorflow-serving.Dockerfile"],
            (REPOSITORY / "docs" / "go_live.md").read_text(),
        )
    }
    assert len(tags) == 1
    for name in ("Dockerfile", "tensorflow-serving.Dockerfile"):
        (user,) = [rest for word, rest in _instructions(name) if word == "USER"]
        assert user == f"{USER}:{USER}"
    for name in ("kubernetes.yaml", "kserve.yaml"):
        (pod,) = [place for place in _walk(DOCUMENTS[name]) if "runAsUser" in place]
        assert (pod["runAsUser"], pod["runAsGroup"]) == (USER, USER)


def test_what_the_images_are_built_of_is_sent_and_there():
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    for name in ("Dockerfile", "tensorflow-serving.Dockerfile"):
        text = TEXTS[name]
        needed = re.findall(r"(?<!/)\b((?:models|deploy)/[\w.]+)", text.split("\n\n", 1)[1])
        assert needed
        for path in [*needed, "setup.cfg", "README.md", "clouds_tf", "tools", "recipes"]:
            assert (REPOSITORY / path).exists() and path.split("/")[0] not in ignored


@pytest.mark.nightly
@pytest.mark.parametrize(
    "command",
    [
        "hadolint deploy/Dockerfile deploy/tensorflow-serving.Dockerfile",
        "kubernetes-validate --strict deploy/kubernetes.yaml",
        "check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml",
    ],
)
def test_checkers_find_nothing(command):
    name, *arguments = command.split()
    program = pathlib.Path(sys.executable).parent / name
    if not program.exists():
        pytest.skip("the extra deploy is not installed")
    done = subprocess.run([program, *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def _prometheus(address, folder):
    """Prometheus with the files of deploy/ on a server at an address; gives a function to ask it.

    Only the address and the intervals differ, so that it takes seconds.
    """
    shutil.copytree(DEPLOY / "prometheus", folder / "etc")
    config = folder / "etc" / "prometheus.yml"
    text = config.read_text().replace("clouds:8501", "{}:{}".format(*address))
    config.write_text(text.replace("15s", "1s"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    flags = [f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            ["prometheus", *flags, f"--storage.tsdb.path={folder}/data"], stderr=log
        )

    def ask(path, **parameters):
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}?{query}") as answer:
            return json.load(answer)["data"]

    try:
        yield ask
    finally:
        process.kill()
        process.wait()


@pytest.mark.nightly
@pytest.mark.skipif(not shutil.which("prometheus"), reason="no Prometheus on this machine")
def test_prometheus_has_data_for_every_panel(
    written, data_dir, tmp_path, monkeypatch  # noqa: F811
):
    config = str(DEPLOY / "prometheus" / "prometheus.yml")
    done = subprocess.run(["promtool", "check", "config", config], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    content = next((data_dir / "test_images").iterdir()).read_bytes()
    empty = [place["expr"] for place in _walk(DASHBOARD["panels"]) if "expr" in place]
    (mark,) = (place["expr"] for place in _walk(DASHBOARD["annotations"]) if "expr" in place)
    rules, start = [], time.monotonic()
    with running_server(f"{written}/1") as (address, _), _prometheus(address, tmp_path) as ask:
        while empty or not rules or {rule["health"] for rule in rules} != {"ok"}:
            assert time.monotonic() < start + 60, (empty, rules)
            assert post(address, {"instances": [b64(content), b64(content)]})[0] == 200
            assert post(address, {"instances": [b64(b"GIF89a")]})[0] == 400
            time.sleep(0.5)
            with contextlib.suppress(urllib.error.URLError):  # it is still starting
                empty = [text for text in empty if not _has_data(ask, text)]
                rules = [x for x in _walk(ask("rules")) if "health" in x]
        expected = {x["alert"] for x in _walk(DOCUMENTS["prometheus/alerts.yml"]) if "alert" in x}
        assert {rule["name"] for rule in rules} == expected
        assert not _has_data(ask, mark)  # there was no new version
        assert not {alert["labels"]["alertname"] for alert in ask("alerts")["alerts"]}
        monkeypatch.setattr(Batcher, "_run_networks", lambda self, images: 1 / 0)
        assert post(address, {"instances": [b64(content)]})[0] == 500  # the first one
        while not (alerts := ask("alerts")["alerts"]):
            assert time.monotonic() < start + 90
            time.sleep(0.5)
    assert [alert["labels"]["alertname"] for alert in alerts] == ["CloudsFaults"]


def _has_data(ask, expression):
    """Whether an expression of the dashboard has a number, with its variables as Grafana's."""
    text = expression.replace("$__rate_interval", "1m").replace("$job", ".*")
    values = [float(series["value"][1]) for series in ask("query", query=text)["result"]]
    return any(not math.isnan(value) for value in values)
