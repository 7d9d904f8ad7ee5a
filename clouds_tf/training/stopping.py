"""Clean stops on Ctrl-C, and on SIGTERM, which clusters send before they take a machine away."""

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
WAIT_LIMIT = 300.0  # seconds without a step; the first steps of a service take a minute
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether this process was told to stop.

    Attributes:
        requested: a threading.Event that SIGTERM and Ctrl-C set.
        status: exit status after a clean stop, 128 plus the number of the signal.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self.status = STOPPED
        self._alive = time.monotonic()

    def request(self, number: int, *_: object) -> None:
        """Handles a signal; a second Ctrl-C stops at once."""
        self.status = 128 + number
        self.requested.set()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            print("Stopping after this step; Ctrl-C again stops at once", file=sys.stderr)

    def alive(self) -> None:
        """Records that the process is making progress rather than waiting for a peer."""
        self._alive = time.monotonic()

    def seconds_since_alive(self) -> float:
        """Seconds since the last call of `alive`."""
        return time.monotonic() - self._alive


@contextlib.contextmanager
def listening(grace: Optional[float] = None) -> Iterator[StopRequest]:
    """Context that turns SIGTERM and Ctrl-C into a request to stop.

    Args:
        grace: seconds without progress after which a process that was told to stop ends at once,
            because it may wait for a worker that never comes back; None for no limit.

    Yields:
        A StopRequest. Outside the main thread, which alone handles signals, it is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    # Signals that nohup or a shell has set to be ignored stay ignored.
    heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, request.request) for number in heard}
    try:
        with contextlib.ExitStack() as stack:
            if grace is not None:
                stack.enter_context(_watched(request, grace))
            yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _watched(request: StopRequest, grace: float) -> Iterator[None]:
    """Context in which a thread watches for signals, and ends the process after the grace."""
    # Python runs the handler above between two lines of the main thread, so not while that waits
    # inside TensorFlow. The byte that Python writes for each signal arrives at once.
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader, request, grace), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        writer.close()  # which ends the watcher
        watcher.join()
        reader.close()


def _watch(reader: socket.socket, request: StopRequest, grace: float) -> None:
    """Ends the process if it was told to stop and makes no progress for longer than a grace."""
    while data := reader.recv(64):
        found = set(_SIGNALS) & set(data)
        if not found:
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
        os._exit(128 + max(found))


@contextlib.contextmanager
def limited_wait(request: StopRequest, message: str) -> Iterator[None]:
    """Context that ends the process if TensorFlow waits for longer than WAIT_LIMIT.

    The message on stderr says what the process waited for, and what to do.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(min(1.0, WAIT_LIMIT / 4)):
            if request.seconds_since_alive() > WAIT_LIMIT:
                print(f"error: {message} (waited for {WAIT_LIMIT:.0f} s)", file=sys.stderr)
                sys.stderr.flush()
                os._exit(1)

    request.alive()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
