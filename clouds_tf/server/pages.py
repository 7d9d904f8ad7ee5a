"""Routes of the page: its files, the images of a folder, and its settings."""

from __future__ import annotations

import os

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from clouds_tf import figures, files
from clouds_tf.dataset import CLOUDS
from clouds_tf.server.http import JSONResponse
from clouds_tf.server.protocols import MODEL_NAME
from clouds_tf.server.settings import ServerSettings
from clouds_tf.server.versions import Versions

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page")


def is_in_browser(settings: ServerSettings) -> bool:
    """Whether the page may run the model itself."""
    return bool(settings.onnx and settings.onnxruntime_web)


def _is_image(name: str) -> bool:
    return name.lower().endswith(CLOUDS.image_endings)


class _Images(StaticFiles):
    """The image files of a folder, without its other files."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if not _is_image(path):
            raise HTTPException(404)
        return await super().get_response(path, scope)


def routes(versions: Versions, settings: ServerSettings) -> list[BaseRoute]:
    """The routes /, /page/ and /images/."""

    async def show_index(request: Request) -> Response:
        return FileResponse(os.path.join(FOLDER, "index.html"))

    async def show_settings(request: Request) -> Response:
        number, batcher = versions.find()
        metadata = batcher.predictor.metadata
        about = {
            "model": MODEL_NAME,
            "version": number,
            "metadata": metadata.to_json(),
            "colors": figures.class_colors(metadata.dataset.class_names),
            "images": bool(settings.images_dir),
            "max_bytes": int(settings.max_body_mb * 1e6),
            "in_browser": is_in_browser(settings),
        }
        return JSONResponse(about)

    async def list_images(request: Request) -> Response:
        names = files.visible_names(settings.images_dir) if settings.images_dir else []
        return JSONResponse(list(filter(_is_image, names)))

    found: list[BaseRoute] = [
        Route("/", show_index),
        Route("/page/settings.json", show_settings),
        Route("/images/", list_images),
    ]
    if settings.onnx:
        path = settings.onnx
        found.append(Route("/page/model.onnx", lambda request: FileResponse(path)))
    if settings.onnxruntime_web:
        found.append(Mount("/page/ort", StaticFiles(directory=settings.onnxruntime_web)))
    if settings.images_dir:
        found.append(Mount("/images", _Images(directory=settings.images_dir)))
    found.append(Mount("/page", StaticFiles(directory=FOLDER)))
    return found


def security_headers(settings: ServerSettings) -> list[tuple[bytes, bytes]]:
    """Headers of every response, with which a page may communicate only with this server."""
    wasm = " 'wasm-unsafe-eval'" if is_in_browser(settings) else ""
    policy = (
        f"default-src 'none'; script-src 'self'{wasm}; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; worker-src 'self' blob:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-embedder-policy": "require-corp",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }
    return [(name.encode(), value.encode()) for name, value in headers.items()]
