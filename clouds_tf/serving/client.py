"""A client of a running server, over version 1 of the REST API of TensorFlow Serving and KServe.

It needs the standard library only.
"""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

from clouds_tf.messages import about_the_data

_MAX_REASON = 300  # characters


def read_metadata(url: str, timeout: float = 60) -> dict[str, Any]:
    """Asks a server for the metadata of its SavedModel, as `Metadata.to_json` has them.

    Args:
        url: of the model, such as http://localhost:8501/v1/models/clouds.
        timeout: seconds to wait for an answer.

    Raises:
        ValueError: the URL is not one of a model, or the server refuses the request.
        ConnectionError: there is no answer.
    """
    body = {"signature_name": "metadata", "instances": [{"image_bytes": {"b64": ""}}]}
    (found,) = _post(url, body, timeout)
    return json.loads(found["metadata"] if isinstance(found, dict) else found)


def request(url: str, image_bytes: Sequence[bytes], timeout: float = 60) -> list[dict[str, Any]]:
    """Asks a server for the masks of images.

    Args:
        url: of the model, such as http://localhost:8501/v1/models/clouds.
        image_bytes: N JPEGs or PNGs.
        timeout: seconds to wait for an answer.

    Returns:
        N dicts, each with lists of C values: encoded_pixels, presence, area_fraction and
        expected_area_fraction.

    Raises:
        ValueError: the URL is not one of a model, or the server refuses the request; says why.
        ConnectionError: there is no answer.
    """
    instances = [{"image_bytes": {"b64": base64.b64encode(x).decode()}} for x in image_bytes]
    return _post(url, {"instances": instances}, timeout)


def request_files(url: str, paths: Sequence[str], batch_size: int = 8) -> Iterator[dict[str, Any]]:
    """Sends image files to a server, a batch at a time, and yields its answers in their order.

    Args:
        url: of the model, such as http://localhost:8501/v1/models/clouds.
        paths: image files.
        batch_size: images in a request.

    Yields:
        Dicts as `request` returns them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as `request` does; it names the file that the server refuses.
        ConnectionError: there is no answer.
    """
    for start in range(0, len(paths), batch_size):
        some = paths[start : start + batch_size]
        contents = []
        for path in some:
            with open(path, "rb") as file:
                contents.append(file.read())
        try:
            found = request(url, contents)
        except ValueError as error:
            raise ValueError(_blame(url, some, contents) or error) from None
        yield from found


def _blame(url: str, paths: Sequence[str], contents: Sequence[bytes]) -> str:
    """The first of several files that the server refuses alone, and why; "" if it takes each."""
    for path, content in zip(paths, contents):
        try:
            request(url, [content])
        except ValueError as error:
            return f"{path}: {error}"
    return ""


def _post(url: str, body: dict[str, Any], timeout: float) -> list[Any]:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or not parts.path.strip("/"):
        raise ValueError(
            f"url: got {url!r}, expected that of a model, such as "
            "http://localhost:8501/v1/models/clouds"
        )
    headers = {"Content-Type": "application/json"}
    content = json.dumps(body).encode()
    post = urllib.request.Request(f"{url.rstrip('/')}:predict", content, headers)
    try:
        with urllib.request.urlopen(post, timeout=timeout) as response:
            return json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        raise ValueError(f"{url}: status {error.code}: {_reason(text)}") from None
    except (http.client.InvalidURL, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{url}: not a server of a model: {error!r}") from None
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(f"{url}: no answer: {reason}") from None


def _reason(text: str) -> str:
    """The line of a server's error that is about the data, without the names of graph nodes."""
    try:
        text = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        pass
    return (about_the_data(str(text)) or "no reason given")[:_MAX_REASON]
