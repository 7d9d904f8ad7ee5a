"""Runs the application on uvicorn, from loading the first version to draining after SIGTERM."""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
import time
import types
from typing import Any

import uvicorn

from clouds_tf import files
from clouds_tf.server.app import make_app
from clouds_tf.server.http import ServerState, make_protocol
from clouds_tf.server.metrics import Metrics
from clouds_tf.server.settings import ServerSettings
from clouds_tf.server.versions import Versions

_BACKLOG = 2048
_LAST_SECONDS = 10  # for bodies that still arrive when all other requests are answered
_LOGGERS = ("clouds_tf.server", "clouds_tf.access", "uvicorn.error")


def run(saved_model: str, settings: ServerSettings) -> None:
    """Runs the server; see `clouds_tf.server.serve`."""
    files.require_local(saved_model, "saved_model")
    _log_to_stdout()
    with _listen(settings) as listener:
        metrics, state = Metrics(), ServerState()
        versions = Versions(saved_model, settings, metrics)
        versions.load_first()
        config = uvicorn.Config(
            make_app(versions, settings, metrics, state),
            http=make_protocol(settings, metrics),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=round(settings.keep_alive_seconds),
            timeout_graceful_shutdown=_LAST_SECONDS,
        )
        server = Server(config, settings, state)
        host, port = listener.getsockname()[:2]
        place = f"[{host}]" if ":" in host else host
        print(f"Serving {saved_model} on http://{place}:{port}/", flush=True)
        server.run(sockets=[listener])
        print(f"Stopped after {server.server_state.total_requests:,} requests", flush=True)


def _listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        place = f"--host={settings.host} --port={settings.port}"
        raise ValueError(f"{place}: cannot be listened on: {error.strerror}") from None


class Server(uvicorn.Server):
    """Uvicorn that still answers new requests for a while after SIGTERM, for load balancers."""

    def __init__(
        self, config: uvicorn.Config, settings: ServerSettings, state: ServerState
    ) -> None:
        super().__init__(config)
        self._settings, self.state = settings, state
        state.num_connections = lambda: len(self.server_state.connections)
        self._refuse_from = float("inf")

    def handle_exit(self, sig: int, frame: types.FrameType | None) -> None:
        """Starts draining; a second signal ends the server at once."""
        if self.state.draining:
            self.should_exit = self.force_exit = True
            return
        self.state.draining = True
        wait = self._settings.drain_seconds if sig == signal.SIGTERM else 0
        self._refuse_from = time.monotonic() + wait

    async def on_tick(self, counter: int) -> bool:
        """Ends the server once all requests for predictions have been answered."""
        if time.monotonic() >= self._refuse_from:
            self.state.refusing = True
            self.should_exit |= not self.state.predicting
        return await super().on_tick(counter)


def _log_to_stdout() -> None:
    """Writes the server's and uvicorn's logs as lines of JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Formatter())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING if name.startswith("uvicorn") else logging.INFO)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {"time": f"{when}.{record.msecs:03.0f}Z"}
        fields = getattr(record, "fields", None)
        if fields is None:
            fields = {"level": record.levelname.lower(), "message": record.getMessage()}
            if record.exc_info:
                fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps({**line, **fields})
