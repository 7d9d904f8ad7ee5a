"""HTTP of the server: limits, access log, metrics, and slow or disconnected clients."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from clouds_tf.server.errors import RequestError
from clouds_tf.server.metrics import STATUS_GONE, Metrics
from clouds_tf.server.protocols import to_json
from clouds_tf.server.settings import ServerSettings

_LOG = logging.getLogger("clouds_tf.server")
_ACCESS_LOG = logging.getLogger("clouds_tf.access")
_LINGER_SECONDS = 2.0  # to read the rest of a refused body, so that the client gets the response
_MAX_PATH = 200  # characters in the log
_MB = 1e6
_OPERATIONS = ("/healthz", "/readyz", "/metrics", "/v2/health/")  # never refused
_PREFIXES = {"/v1/": "v1", "/v2": "v2", "/page/": "page", "/images/": "page"}


@dataclasses.dataclass
class ServerState:
    """State shared by server and application.

    Attributes:
        draining: after SIGTERM; connections are closed after their next response.
        refusing: no more images are accepted.
        predicting: number of prediction requests in progress whose body has arrived.
        body_bytes: size of all request bodies in memory.
        num_connections: returns the number of open connections.
    """

    draining: bool = False
    refusing: bool = False
    predicting: int = 0
    body_bytes: int = 0
    num_connections: Callable[[], int] = lambda: 0


class JSONResponse(Response):
    """A response with content that `to_json` accepts, or with its output."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Encodes the content unless it is encoded already."""
        return content if isinstance(content, bytes) else to_json(content)


async def answer_error(request: Request, error: Exception) -> Response:
    """The response to an HTTPException."""
    assert isinstance(error, HTTPException)
    request.scope["record"].update(error=error.detail)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def answer_internal_error(request: Request, error: Exception) -> Response:
    """The response to any other exception; `Front` logs the exception."""
    sentence = f"internal error; the server's log has it as request {request.scope['record']['id']}"
    return JSONResponse({"error": sentence}, 500)


class Front:
    """The outermost ASGI middleware: gives requests an id, measures and logs them.

    Args:
        headers: headers to add to every response.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        metrics: Metrics,
        state: ServerState,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self.state, self.headers = state, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, receive, send)
        app, start = self._app, time.perf_counter()
        if self._is_crowded(scope["path"]):
            headers = {"Retry-After": "1", "Connection": "close"}
            app = JSONResponse({"error": "too many connections"}, 503, headers)
        try:
            with self._metrics.in_progress.track_inprogress():
                await app(scope, exchange.receive, exchange.send)
        except Exception as error:
            _LOG.error("request %s: %r", exchange.record["id"], error, exc_info=error)
            exchange.record["error"] = repr(error)
        finally:
            self._finish(exchange, time.perf_counter() - start)

    def _is_crowded(self, path: str) -> bool:
        many = self.state.num_connections() > self._settings.max_connections
        return many and not path.startswith(_OPERATIONS)

    def _finish(self, exchange: _Exchange, seconds: float) -> None:
        record, path = exchange.record, exchange.scope["path"]
        status = record["status"]
        protocol = next((x for start, x in _PREFIXES.items() if path.startswith(start)), "other")
        self._metrics.requests.labels("page" if path == "/" else protocol, status).inc()
        if status >= 400:
            self._metrics.count_error(status, self.state.refusing)
        if self._settings.access_log and not path.startswith(_OPERATIONS):
            _ACCESS_LOG.info("", extra={"fields": {**record, "seconds": round(seconds, 6)}})


class _Exchange:
    """One request and its response; records facts about them for log and metrics."""

    def __init__(self, front: Front, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._front, self._receive, self._send = scope, front, receive, send
        sent = dict(scope["headers"])
        has_body = sent.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in sent
        self._whole = not has_body
        given = sent.get(b"x-request-id", b"").decode("latin-1")
        self.record: dict[str, Any] = {
            "id": given if re.fullmatch(r"[\w.-]{1,64}", given) else uuid.uuid4().hex,
            "client": (scope.get("client") or ("",))[0],
            "method": scope["method"],
            "path": scope["path"][:_MAX_PATH],
            "status": STATUS_GONE,
            "received": 0,
            "sent": 0,
        }
        scope["record"] = self.record

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.record["received"] += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
        else:
            self._whole = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.record["status"] = message["status"]
            headers = [*message.get("headers", ()), *self._front.headers]
            headers.append((b"x-request-id", self.record["id"].encode()))
            if self._front.state.draining or not self._whole:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        else:
            self.record["sent"] += len(message.get("body", b""))
            if not message.get("more_body", False) and not self._whole:
                await self._send({**message, "more_body": True})
                await self._linger()
                message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        """Reads the rest of a body: closing the connection at once would lose the response."""

        async def read() -> None:
            while not self._whole:
                await self.receive()

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(read(), _LINGER_SECONDS)


@contextlib.asynccontextmanager
async def body_of(
    request: Request, settings: ServerSettings, state: ServerState
) -> AsyncIterator[bytearray]:
    """Context with the body of a request; `state` counts the body until the context ends.

    Raises:
        RequestError: the body is compressed, binary, too large or too slow, there are too many
            bodies, or the client has disconnected.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise RequestError(415, f"Content-Encoding: got {encoding}, expected an uncompressed body")
    if "inference-header-content-length" in request.headers:  # an extension of protocol V2
        raise RequestError(415, "binary tensors are not read, expected JSON (binary_data=False)")
    limit, body = settings.max_body_mb * _MB, bytearray()
    too_large = RequestError(
        413, f"the body is larger than {settings.max_body_mb:g} MB; send fewer images at a time"
    )
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and float(declared) > limit:
        raise too_large

    async def read() -> None:
        async for chunk in request.stream():
            body.extend(chunk)
            state.body_bytes += len(chunk)
            if len(body) > limit:
                raise too_large
            if state.body_bytes > settings.max_bodies_mb * _MB:
                raise RequestError(503, "too many bodies in memory; try again in 1 s", 1)

    try:
        try:
            await asyncio.wait_for(read(), settings.body_seconds)
        except asyncio.TimeoutError:
            sentence = f"the body did not arrive within {settings.body_seconds:g} s"
            raise RequestError(408, sentence) from None
        except ClientDisconnect:
            raise RequestError(STATUS_GONE, "the client went away") from None
        state.predicting += 1
        try:
            yield body
        finally:
            state.predicting -= 1
    finally:
        state.body_bytes -= len(body)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of work on a request whose body was read; cancelled if the client disconnects."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RequestError(STATUS_GONE, "the client went away")
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


def make_protocol(settings: ServerSettings, metrics: Metrics) -> type[H11Protocol]:
    """Uvicorn's HTTP/1.1 with a time limit for the head of a request."""

    class Protocol(H11Protocol):
        _limit: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._stop()

        def _watch(self) -> None:
            """Starts the timer when waiting for a head; stops it during a request."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._limit is None:
                self._limit = self.loop.call_later(settings.head_seconds, self._expire)

        def _stop(self) -> None:
            if self._limit is not None:
                self._limit.cancel()
                self._limit = None

        def _expire(self) -> None:
            metrics.count_error(408)
            self.transport.close()

    return Protocol
