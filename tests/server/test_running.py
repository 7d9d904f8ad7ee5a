"""The server in a thread and in a process of its own: slow clients, lost clients, signals."""

import json
import os
import re
import signal
import socket
import threading
import time

import pytest
import served
from programs import TOOLS, run_tool, start_program
from served import b64, post, running_server, written  # noqa: F401

from clouds_tf.serving import integrity


def closed_after(connection):
    """Seconds until a server closes a connection."""
    start = time.monotonic()
    while connection.recv(65536):
        pass
    return time.monotonic() - start


HEAD = b"POST /v1/models/clouds:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n"


@pytest.fixture(scope="module")
def server(written):  # noqa: F811
    limits = {"head_seconds": 0.5, "body_seconds": 0.5, "max_body_mb": 1.0, "max_connections": 20}
    with running_server(f"{written}/1", **limits) as found:
        yield found


@pytest.fixture(scope="module")
def body(data_dir):
    content = next((data_dir / "test_images").iterdir()).read_bytes()
    return {"instances": [b64(content)]}


def test_slow_and_lost_clients_cost_nobody_else(server, body):
    address, server = server
    slow_head, slow_body, large = (socket.create_connection(address) for _ in range(3))
    slow_head.sendall(b"GET / HT")
    slow_body.sendall(HEAD.replace(b"2000000", b"100") + b"{")
    large.sendall(HEAD)
    assert b" 413 " in large.recv(100)  # of which nothing was sent yet
    for _ in range(5):  # they go away before their answer
        gone = socket.create_connection(address)
        text = json.dumps(body).encode()
        gone.sendall(HEAD.replace(b"2000000", str(len(text)).encode()) + text)
        gone.close()
    assert post(address, body)[0] == 200
    assert closed_after(slow_head) < 5
    assert b" 408 " in slow_body.recv(100)
    for connection in (slow_head, slow_body, large):
        connection.close()
    assert post(address, body)[0] == 200
    while server.state.body_bytes or server.state.predicting:
        time.sleep(0.01)


def test_a_client_of_a_large_body_reads_its_413(server):
    status, headers, answer = post(server[0], {"instances": ["A" * 3_000_000]})
    assert status == 413 and "larger than 1 MB" in answer["error"]
    assert headers["connection"] == "close"


def test_more_connections_than_allowed_are_503(server):
    address, _ = server
    idle = [socket.create_connection(address) for _ in range(19)]
    deadline = time.monotonic() + 10
    while post(address, {"instances": []})[0] != 200:  # the 20th, once those of before are closed
        assert time.monotonic() < deadline
        time.sleep(0.01)
    idle.append(socket.create_connection(address))
    status, headers, answer = post(address, {"instances": []})
    assert (status, headers["retry-after"]) == (503, "1") and "connections" in answer["error"]
    for connection in idle:
        connection.close()
    while post(address, {"instances": []})[0] != 200:
        time.sleep(0.01)


def test_accepted_requests_are_answered_before_the_end(
    written, body, capsys, monkeypatch  # noqa: F811
):
    answers = []
    with running_server(f"{written}/1", drain_seconds=0.0) as (address, server):
        opened = served.hold_networks(monkeypatch)
        clients = [
            threading.Thread(target=lambda: answers.append(post(address, body))) for _ in range(4)
        ]
        for client in clients:
            client.start()
        while server.state.predicting < 4:
            time.sleep(0.01)
        server.handle_exit(signal.SIGTERM, None)
        while not server.state.refusing:
            time.sleep(0.01)
        status, headers, _ = post(address, body)
        assert status == 503 and int(headers["retry-after"]) > 0
        opened.set()
        for client in clients:
            client.join()
    assert [status for status, *_ in answers] == [200] * 4
    assert "Stopped after" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.lanes
def test_the_tool_serves_until_sigterm(written, data_dir, tmp_path):  # noqa: F811
    names = sorted(str(path) for path in (data_dir / "test_images").iterdir())
    model = served.copy_version(written, 1, tmp_path / "E")
    manifest = integrity.write(model, integrity.checksums(model))
    flags = [f"--saved_model={tmp_path}/E", f"--manifest={manifest}", "--port=0"]
    flags.append("--drain_seconds=0.5")
    with start_program(f"{TOOLS}/serve.py", *flags) as program:
        lines = iter(program.stdout.readline, "")
        url = next(m[1] for m in map(re.compile("Serving .* on (http.*)/").match, lines) if m)
        flags = [f"--images={','.join(names)}", f"--output={tmp_path}/rows.csv"]
        found = run_tool("request", f"--url={url}/v1/models/clouds", *flags)
        assert found.returncode == 0, found.stderr
        assert len((tmp_path / "rows.csv").read_text().splitlines()) == 1 + 4 * len(names)
        os.kill(program.pid, signal.SIGTERM)
        *logged, last = program.communicate(60)[0].splitlines()
        assert program.returncode == 0 and last.startswith("Stopped after 2 requests")
        assert any(json.loads(line).get("status") == 200 for line in logged)


def test_bad_flags_are_one_line(written, tmp_path):  # noqa: F811
    busy = socket.create_server(("127.0.0.1", 0))
    cases = [
        ([f"--saved_model={tmp_path}/E"], "no such file or folder"),
        ([f"--saved_model={written}", f"--port={busy.getsockname()[1]}"], "cannot be listened on"),
        ([f"--saved_model={written}", f"--images_dir={tmp_path}/x"], "no such file or folder"),
        ([f"--saved_model={written}", "--max_batch=0"], "max_batch"),
    ]
    for flags, sentence in cases:
        found = run_tool("serve", "--port=0", *flags)
        assert found.returncode == 1 and sentence in found.stderr, found.stderr
        assert found.stderr.count("\n") == 1
    busy.close()
