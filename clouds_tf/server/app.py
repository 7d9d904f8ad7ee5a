"""The ASGI application: routes of both protocols, of probes and metrics, and of the page."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

import clouds_tf
from clouds_tf.server import pages, protocols
from clouds_tf.server.batching import Batcher
from clouds_tf.server.errors import RequestError
from clouds_tf.server.http import (
    Front,
    JSONResponse,
    ServerState,
    answer_error,
    answer_internal_error,
    body_of,
    unless_gone,
)
from clouds_tf.server.metrics import CONTENT_TYPE, Metrics
from clouds_tf.server.protocols import MODEL_NAME, Query
from clouds_tf.server.settings import ServerSettings
from clouds_tf.server.versions import Versions

Parse = Callable[[bytearray], Query]

_DRAINING_SECONDS = 5  # after which a client should try another server


def make_app(
    versions: Versions, settings: ServerSettings, metrics: Metrics, state: ServerState
) -> ASGIApp:
    """The ASGI application around versions of a model, whose first ones are loaded.

    Args:
        versions: the versions, which start and end with the lifespan of the application.
        settings: limits, and settings of the page.
        metrics: metrics for /metrics.
        state: state shared with the server that runs the application.
    """
    api = _API(versions, settings, metrics, state)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        versions.start()
        yield
        versions.workers.close()

    app = Starlette(
        routes=[*api.routes(), *pages.routes(versions, settings)],
        exception_handlers={HTTPException: answer_error, Exception: answer_internal_error},
        lifespan=lifespan,
    )
    return Front(app, settings, metrics, state, pages.security_headers(settings))


def _number(request: Request) -> int | None:
    """The version in the path, or None; also checks the name of the model."""
    name, text = request.path_params["name"], request.path_params.get("number")
    if name != MODEL_NAME:
        raise RequestError(404, f"no model {name!r}, expected {MODEL_NAME!r}")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise RequestError(404, f"version: got {text!r}, expected a number")
    return int(text)


class _API:
    """Handlers of all routes except those of the page."""

    def __init__(
        self, versions: Versions, settings: ServerSettings, metrics: Metrics, state: ServerState
    ) -> None:
        self._versions, self._settings = versions, settings
        self._metrics, self._state = metrics, state

    def routes(self) -> list[Route]:
        v1, v2 = "/v1/models/{name}", "/v2/models/{name}"
        version = "/versions/{number}"
        predict_v1 = functools.partial(self._predict, protocols.parse_v1)
        predict_v2 = functools.partial(self._predict, protocols.parse_v2)
        found = [
            Route("/healthz", self._live),
            Route("/readyz", self._ready),
            Route("/metrics", self._show_metrics),
            Route("/v2", self._describe),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
        ]
        for middle in (version, ""):
            found += [
                Route(f"{v1}{middle}:predict", predict_v1, methods=["POST"]),
                Route(f"{v1}{middle}:{{verb}}", self._refuse_verb, methods=["POST"]),
                Route(f"{v1}{middle}/metadata", self._metadata_v1),
                Route(f"{v1}{middle}", self._status),
                Route(f"{v2}{middle}/infer", predict_v2, methods=["POST"]),
                Route(f"{v2}{middle}/ready", self._model_ready),
                Route(f"{v2}{middle}", self._metadata_v2),
            ]
        return found

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, request: Request) -> Response:
        ready = not self._state.draining
        return JSONResponse({"live": True, "ready": ready}, 200 if ready else 503)

    async def _show_metrics(self, request: Request) -> Response:
        return Response(self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def _describe(self, request: Request) -> Response:
        about = {"name": "clouds_tf", "version": clouds_tf.__version__, "extensions": []}
        return JSONResponse(about)

    async def _refuse_verb(self, request: Request) -> Response:
        raise RequestError(404, f"verb: got {request.path_params['verb']!r}, expected 'predict'")

    async def _status(self, request: Request) -> Response:
        number = _number(request)
        found = self._versions.status(number)
        if not found:
            raise RequestError(404, f"no version {number} of the model {MODEL_NAME!r}")
        return JSONResponse({"model_version_status": found})

    async def _model_ready(self, request: Request) -> Response:
        number = _number(request)
        ready = number is None or number in self._versions.numbers
        return JSONResponse({"name": MODEL_NAME, "ready": ready}, 200 if ready else 404)

    async def _metadata_v1(self, request: Request) -> Response:
        number, batcher = self._find(request)
        workers, path = self._versions.workers, batcher.predictor.path
        about = await workers.run(workers.decoding, protocols.metadata_v1, path, number)
        return JSONResponse(about)

    async def _metadata_v2(self, request: Request) -> Response:
        _, batcher = self._find(request)
        metadata = batcher.predictor.metadata
        return JSONResponse(protocols.metadata_v2(metadata, self._versions.numbers))

    def _find(self, request: Request) -> tuple[int, Batcher]:
        """The version in the path of a request, or the newest one."""
        return self._versions.find(_number(request))

    async def _predict(self, parse: Parse, request: Request) -> Response:
        if self._state.refusing:
            raise RequestError(503, "the server is shutting down", _DRAINING_SECONDS)
        number, batcher = self._find(request)
        with self._metrics.timed("total"), batcher.in_use():
            request.scope["record"].update(version=number)
            async with body_of(request, self._settings, self._state) as body:
                work = self._answer(request, parse, body, number, batcher)
                content = await unless_gone(request, work)
            return JSONResponse(content)

    async def _answer(
        self,
        request: Request,
        parse: Parse,
        body: bytearray,
        number: int,
        batcher: Batcher,
    ) -> bytes:
        workers = self._versions.workers
        query = await workers.run(workers.decoding, parse, body)
        request.scope["record"].update(images=len(query.images))
        metadata = batcher.predictor.metadata
        if query.names == ("metadata",):
            outputs = protocols.metadata_outputs(metadata, len(query.images))
        else:
            outputs = await batcher.predict(query.images, frozenset(query.names))
        return await workers.run(workers.decoding, query.answer, outputs, number, metadata)
