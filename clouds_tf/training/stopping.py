"""Stops on SIGTERM, which clusters send a while before they take a machine away."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Optional

STOPPED = 128 + signal.SIGTERM  # exit status after a clean stop on SIGTERM


class StopRequest:
    """Whether this process was told to stop.

    Attributes:
        requested: a threading.Event that SIGTERM sets.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self._alive = time.monotonic()

    def alive(self) -> None:
        """Tells that the process is at work, not waiting for another one."""
        self._alive = time.monotonic()

    def seconds_since_alive(self) -> float:
        """Seconds since the last sign of work."""
        return time.monotonic() - self._alive


@contextlib.contextmanager
def listening(grace: Optional[float] = None) -> Iterator[StopRequest]:
    """Context that turns SIGTERM into a request to stop.

    Args:
        grace: seconds without a sign of work after which the process ends at once when it was told
            to stop, because it waits for a worker that may never come back; None leaves it alone.

    Yields:
        A StopRequest. Outside of the main thread, where Python handles no signals, nothing sets it.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = signal.signal(signal.SIGTERM, lambda *_: request.requested.set())
    if grace is None:
        try:
            yield request
        finally:
            signal.signal(signal.SIGTERM, before)
        return
    # The handler above runs between two lines of Python in the main thread, so not while that waits
    # for other workers inside TensorFlow. The byte that Python writes for a signal comes at once.
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader, request, grace), daemon=True)
    watcher.start()
    try:
        yield request
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, before)
        writer.close()  # which ends the watcher
        watcher.join()
        reader.close()


def _watch(reader: socket.socket, request: StopRequest, grace: float) -> None:
    """Ends the process if it was told to stop and waits for others for longer than a grace."""
    while data := reader.recv(64):
        if signal.SIGTERM not in data:
            continue
        request.requested.set()
        request.alive()
        reader.settimeout(0.2)
        while request.seconds_since_alive() < grace:
            try:
                if not reader.recv(64):
                    return
            except socket.timeout:
                pass
        print("Stopped while it waited for other workers; the last checkpoint is kept")
        sys.stdout.flush()
        os._exit(STOPPED)
