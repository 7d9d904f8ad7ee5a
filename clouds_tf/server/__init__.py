"""HTTP server for SavedModels: REST, metrics and a web page (extra `serve`)."""

from clouds_tf import files
from clouds_tf.server.settings import ServerSettings

__all__ = ["ServerSettings", "serve"]

_PACKAGES = ("orjson", "prometheus_client", "pybase64", "starlette", "uvicorn")


def serve(saved_model: str, settings: ServerSettings = ServerSettings()) -> None:
    """Serves a model until SIGTERM or SIGINT; then answers accepted requests, and returns.

    Args:
        saved_model: folder of versions that `export` wrote, such as E, or one version, such as E/1.
        settings: address, engine and limits.

    Raises:
        FileNotFoundError: there is no SavedModel.
        ValueError: a package is missing, no version can be loaded, or the address cannot be used.
    """
    for package in _PACKAGES:
        files.require(package, "serve", "the server")
    from clouds_tf.server import running

    running.run(saved_model, settings)
