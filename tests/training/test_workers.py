"""How workers meet, restart and fail together; whole clusters are in test_fit.py."""

import os
import signal
import socket
import threading
import time
from unittest import mock

import pytest
import tensorflow as tf
from program import free_ports
from programs import start_program

from clouds_tf.training import distribution, workers

pytestmark = [pytest.mark.slow, pytest.mark.lanes]


def _meet_in_threads(addresses, indices):
    done = []

    def meet(index):
        workers.meet(addresses, index)
        done.append(index)

    threads = [threading.Thread(target=meet, args=(index,), daemon=True) for index in indices]
    for thread in threads:
        thread.start()
    return threads, done


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_all_workers_meet_whoever_comes_first(order):
    (port,) = free_ports(1)
    threads, done = _meet_in_threads([f"localhost:{port}", "b:1", "c:1"], order)
    for thread in threads:
        thread.join(30)
    assert sorted(done) == [0, 1, 2]
    socket.create_server(("", port)).close()  # free for TensorFlow


def test_strangers_are_no_workers_and_one_alone_waits_for_nobody():
    workers.meet(["localhost:1"], 0)
    (port,) = free_ports(1)
    threads, done = _meet_in_threads([f"localhost:{port}", "b:1"], [0])
    deadline = time.monotonic() + 30
    while True:
        try:
            stranger = socket.create_connection(("localhost", port))
            break
        except OSError:
            assert time.monotonic() < deadline
    stranger.sendall(b"PRI * HTTP/2.0\r\n\r\n")
    assert stranger.recv(64) == b""  # the chief hung up
    assert threads[0].is_alive()
    more, done_too = _meet_in_threads([f"localhost:{port}", "b:1"], [1])
    for thread in threads + more:
        thread.join(30)
    assert done == [0] and done_too == [1]


@pytest.mark.parametrize("index, missing", [(0, "worker.s. 1 did not"), (1, "worker 0 at local")])
def test_a_restarted_worker_does_not_wait_for_ever(monkeypatch, index, missing):
    monkeypatch.setenv(workers._RESTARTS, "1")
    monkeypatch.setattr(workers, "_MEETING_TIME", 0.5)
    with pytest.raises(ValueError, match=missing):
        workers.meet([f"localhost:{free_ports(1)[0]}", "b:1"], index)


@pytest.mark.parametrize("index", [0, 1])
def test_sigterm_ends_a_waiting_worker(index):
    code = "from clouds_tf.training import workers; print('waiting', flush=True); "
    code += f"workers.meet(['localhost:{free_ports(1)[0]}', 'b:1'], {index})"
    with start_program("-c", code) as program:
        program.stdout.readline()
        program.terminate()
        assert program.wait(60) == -signal.SIGTERM


def test_only_the_loss_of_a_worker_starts_it_again(monkeypatch):
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started again"))
    with pytest.raises(tf.errors.UnavailableError), workers.restarting("mirrored"):
        raise tf.errors.UnavailableError(None, None, "gone")
    with pytest.raises(ValueError, match="^mine$"), workers.restarting("multi_worker"):
        raise ValueError("mine")


def test_restarts_have_pauses_and_a_limit(monkeypatch):
    monkeypatch.delenv(workers._RESTARTS, raising=False)
    restarts, pauses = [], []
    monkeypatch.setattr(os, "execv", lambda *arguments: restarts.append(arguments))
    monkeypatch.setattr(workers.time, "sleep", pauses.append)

    def lose():
        with workers.restarting("multi_worker"):
            raise tf.errors.UnavailableError(None, None, "gone")

    monkeypatch.setenv(workers._RESTARTS, "0")  # so that it is restored
    for _ in range(workers._MAX_RESTARTS):
        lose()
    with pytest.raises(ValueError, match="a worker was lost again after 8 restarts in a row"):
        lose()
    assert len(restarts) == workers._MAX_RESTARTS
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    monkeypatch.setattr(workers, "_STEADY", -1.0)  # it ran for long
    lose()
    assert os.environ[workers._RESTARTS] == "1"


def test_one_process_agrees_with_itself():
    strategy = distribution.strategy("mirrored", 2)
    assert workers.num_workers(strategy) == 1
    assert workers.gather(strategy, "[3, 4]") == ["[3, 4]"]
    workers.check_agreement(strategy, {"fold": 0})
    with pytest.raises(ValueError, match="^mine$"), workers.together(strategy):
        raise ValueError("mine")


def test_a_worker_that_ends_after_it_gave_its_text_is_not_lost(monkeypatch):
    gone = tf.errors.UnavailableError(None, None, "gone")
    strategy = mock.MagicMock(num_replicas_in_sync=2)
    strategy.cluster_resolver.task_id = 0
    strategy.experimental_local_results.side_effect = lambda rows: [rows]
    monkeypatch.setattr(workers, "num_workers", lambda strategy: 2)
    monkeypatch.setattr(tf, "function", lambda function: function)
    texts = tf.constant([[104.0, 105.0, 0.0], [106.0, 0.0, 0.0]])
    strategy.run.side_effect = [tf.constant([2.0, 1.0]), texts, gone]
    assert workers.gather(strategy, "hi") == ["hi", "j"]
    strategy.run.side_effect = [tf.constant([2.0, 1.0]), gone]
    with pytest.raises(tf.errors.UnavailableError):
        workers.gather(strategy, "hi")


def test_the_first_difference_between_workers_is_named(monkeypatch):
    texts = ['{"fold": 0, "learning_rate": 0.01}', '{"fold": 0, "learning_rate": 0.5}']
    monkeypatch.setattr(workers, "gather", lambda strategy, text: texts)
    message = "worker 0 has learning_rate=0.01, but worker 1 has learning_rate=0.5; start all"
    with pytest.raises(ValueError, match=message):
        workers.check_agreement(distribution.strategy(), {})
    monkeypatch.setattr(workers, "gather", lambda strategy, text: ["", "R: no such folder"])
    with pytest.raises(ValueError, match="^worker 1 failed: R: no such folder$"):
        with workers.together(distribution.strategy()):
            pass
