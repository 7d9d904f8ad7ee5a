"""Coordination of workers: a common start, common failure, and restart when one is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_RESTARTS = "CLOUDS_TF_RESTARTS"  # environment variable: how often the program restarted so far
_MAX_RESTARTS = 8  # in a row, none of which ran for longer than _STEADY
_STEADY = 600.0  # seconds
_LONGEST_PAUSE = 60.0  # seconds before a restart
_MEETING_TIME = 600.0  # seconds that a restarted worker waits for the others
_RETRY = 0.3  # seconds between two calls of the chief
_HELLO, _GO = b"clouds_tf worker ", b"clouds_tf go\n"


@contextlib.contextmanager
def restarting(distribute: str) -> Iterator[None]:
    """Context for a run that survives the loss of a worker.

    In TensorFlow, a worker cannot join others that are running. When one is lost, which the others
    notice within a minute, each of them restarts its program with the same arguments, waits for
    the lost one to come back, and resumes from the last checkpoint.

    Args:
        distribute: see `distribution.strategy`; only "multi_worker" restarts.

    Raises:
        ValueError: the limit of restarts in a row is reached.
    """
    started = time.monotonic()
    try:
        yield
    except tf.errors.UnavailableError:
        if distribute != "multi_worker":
            raise
        steady = time.monotonic() - started > _STEADY
        count = 0 if steady else int(os.environ.get(_RESTARTS, 0))
        if count >= _MAX_RESTARTS:
            raise ValueError(
                f"a worker was lost again after {count} restarts in a row; find its error, then "
                "start all workers again"
            ) from None
        print("A worker was lost; restarting from the last checkpoint when it is back")
        sys.stdout.flush()
        time.sleep(min(2.0**count, _LONGEST_PAUSE))
        os.environ[_RESTARTS] = str(count + 1)
        os.execv(sys.executable, [sys.executable, *sys.argv])


def meet(workers: Sequence[str], index: int) -> None:
    """Waits until every worker of a cluster has called this function.

    TensorFlow also waits, but it ignores SIGTERM and never times out.

    Args:
        workers: "host:port" of each worker; TensorFlow uses the ports afterwards.
        index: index of this worker; the first one is the chief.

    Raises:
        ValueError: the port of the chief is in use, or a restarted worker has waited too long.
    """
    limit = _MEETING_TIME if _RESTARTS in os.environ else float("inf")
    deadline = time.monotonic() + limit
    host, port = workers[0].rsplit(":", 1)
    if len(workers) == 1:
        return
    if index == 0:
        _await_workers(int(port), set(range(1, len(workers))), deadline)
        return
    while not _call_chief(host, int(port), index, deadline):
        if time.monotonic() > deadline:
            raise ValueError(f"worker 0 at {workers[0]} did not come back within {limit:.0f} s")
        time.sleep(_RETRY)


def _await_workers(port: int, expected: set[int], deadline: float) -> None:
    """The chief's side of `meet`."""
    try:
        server = socket.create_server(("", port))
    except OSError as error:
        raise ValueError(f"TF_CONFIG: cannot listen on port {port}: {error}") from None
    found: dict[int, socket.socket] = {}
    with server:
        server.settimeout(_RETRY)
        while found.keys() < expected:
            if time.monotonic() > deadline:
                missing = ", ".join(str(index) for index in sorted(expected - found.keys()))
                raise ValueError(f"TF_CONFIG: worker(s) {missing} did not come back in time")
            with contextlib.suppress(OSError):
                caller, _ = server.accept()
                caller.settimeout(5)
                hello = caller.recv(64)
                if hello.startswith(_HELLO) and hello[len(_HELLO) :].strip().isdigit():
                    found[int(hello[len(_HELLO) :])] = caller
                else:
                    caller.close()
            found = {index: caller for index, caller in found.items() if _is_open(caller)}
    for caller in found.values():
        with contextlib.suppress(OSError), caller:
            caller.sendall(_GO)
            caller.settimeout(1)
            caller.recv(1)  # lets the caller close first, so that the port is free at once


def _is_open(caller: socket.socket) -> bool:
    caller.settimeout(0)
    try:
        return bool(caller.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        caller.settimeout(5)


def _call_chief(host: str, port: int, index: int, deadline: float) -> bool:
    """Contacts the chief and waits for its answer; False if the chief is not there."""
    with contextlib.suppress(OSError):
        with socket.create_connection((host, port), timeout=5) as chief:
            chief.sendall(_HELLO + str(index).encode() + b"\n")
            while time.monotonic() < deadline:
                try:
                    return chief.recv(64) == _GO
                except socket.timeout:
                    pass
    return False


def default_sigterm() -> None:
    """Restores the default action of SIGTERM, which TensorFlow's cluster ignores.

    Only the main thread may do so; in other threads, nothing happens.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Number of processes that train together."""
    resolver = strategy.cluster_resolver
    workers = resolver.cluster_spec().as_dict().get("worker", []) if resolver else []
    return max(1, len(workers))


def gather(strategy: tf.distribute.Strategy, text: str) -> list[str]:
    """Gathers a text from each worker on all workers, in their order; each worker calls it.

    A worker may end as soon as this returns, since all others have received its text.
    """
    count = num_workers(strategy)
    if count == 1:
        return [text]
    worker, replicas = strategy.cluster_resolver.task_id, strategy.num_replicas_in_sync
    data = text.encode()

    def summed(values: np.ndarray) -> np.ndarray:
        def on_replica(row: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            # All replicas of a worker give the same text.
            return context.all_reduce("SUM", tf.identity(row) * (count / replicas))

        run = tf.function(lambda row: strategy.run(on_replica, args=(row,)))
        rows = run(tf.constant(values, tf.float32))
        return np.rint(strategy.experimental_local_results(rows)[0].numpy()).astype(int)

    own_row = np.arange(count)[:, np.newaxis] == worker
    lengths = summed(own_row[:, 0] * len(data))
    padded = np.zeros(lengths.max() + 1)
    padded[: len(data)] = list(data)
    rows = summed(own_row * padded)
    # A worker that has all texts must not end before the others have received them too. If one is
    # lost now, all have the texts; the next exchange, if any, reports the loss.
    with contextlib.suppress(tf.errors.UnavailableError):
        summed(own_row[:, 0])
    return [bytes(row[:length].tolist()).decode() for row, length in zip(rows, lengths)]


def check_agreement(strategy: tf.distribute.Strategy, settings: Mapping[str, Any]) -> None:
    """Checks that all workers have the same JSON-like settings; each worker calls it.

    Raises:
        ValueError: a worker has other settings, which are named.
    """
    everywhere = [json.loads(text) for text in gather(strategy, json.dumps(settings))]
    for worker, other in enumerate(everywhere):
        for key in sorted({*everywhere[0], *other}):
            first, got = everywhere[0].get(key), other.get(key)
            if first != got:
                raise ValueError(
                    f"workers: worker 0 has {key}={first}, but worker {worker} has {key}={got}; "
                    "start all of them with the same settings, records and packages"
                )


@contextlib.contextmanager
def together(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Context that fails on all workers if it fails on one, so that none waits for a failed one.

    All workers enter it; its body must not wait for other workers.

    Raises:
        ValueError: another worker failed; the message includes its message.
    """
    failure = None
    try:
        yield
    except tf.errors.UnavailableError:
        raise
    except Exception as error:
        if num_workers(strategy) == 1:
            raise
        failure = error
    messages = gather(strategy, str(failure or ""))
    if failure:
        raise failure
    for worker, message in enumerate(messages):
        if message:
            raise ValueError(f"worker {worker} failed: {message}")
