"""Server of SavedModels over HTTP: REST, metrics and a page; needs the extra `serve`."""

from clouds_tf import files
from clouds_tf.server.settings import ServerSettings

__all__ = ["ServerSettings", "serve"]

_PACKAGES = ("orjson", "prometheus_client", "pybase64", "starlette", "uvicorn")


def serve(saved_model: str, settings: ServerSettings = ServerSettings()) -> None:
    """Serves a model until SIGTERM or SIGINT; then answers what it has accepted, and returns.

    Args:
        saved_model: folder of versions that `export` wrote, such as E, or of one, such as E/1.
        settings: address, engine and limits.

    Raises:
        FileNotFoundError: there is no SavedModel.
        ValueError: a package is missing, no version can be loaded, or the address cannot be
            listened on.
    """
    for package in _PACKAGES:
        files.require(package, "serve", "the server")
    from clouds_tf.server import running

    running.run(saved_model, settings)
