"""Client of a running server, for TensorFlow Serving's REST API (V1 in KServe).

It needs only the standard library; `decode_masks` needs numpy.

    from clouds_tf import client

    url = "http://localhost:8501/v1/models/clouds"
    dataset = client.read_metadata(url)["dataset"]
    (answer,) = client.request(url, [open("image.jpg", "rb").read()])
    masks = client.decode_masks(answer["encoded_pixels"], dataset)  # uint8 [C, h, w]
"""

from __future__ import annotations

import base64
import http.client
import json
import time
import typing
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clouds_tf.messages import about_the_data

if typing.TYPE_CHECKING:
    import numpy as np

_MAX_REASON = 300  # characters
_OVERLOADED = 503


def read_metadata(url: str, timeout: float = 60) -> dict[str, Any]:
    """Requests the metadata of a server's SavedModel, see `Metadata.to_json`.

    Args:
        url: URL of the model, such as http://localhost:8501/v1/models/clouds.
        timeout: seconds to wait for an answer.

    Raises:
        ValueError: the URL is not that of a model, or the server refuses the request.
        ConnectionError: there is no answer.
    """
    body = {"signature_name": "metadata", "instances": [{"image_bytes": {"b64": ""}}]}
    (found,) = _post(url, body, timeout)
    return json.loads(found["metadata"] if isinstance(found, dict) else found)


def request(url: str, image_bytes: Sequence[bytes], timeout: float = 60) -> list[dict[str, Any]]:
    """Requests the masks of images.

    Args:
        url: URL of the model, such as http://localhost:8501/v1/models/clouds.
        image_bytes: N JPEGs or PNGs.
        timeout: seconds to wait for an answer. If the server is overloaded, the request is repeated
            after the pause that the server asks for (Retry-After), until the timeout.

    Returns:
        N dicts, each with lists of C values, encoded_pixels, presence, area_fraction and
        expected_area_fraction, and one value, likeness.

    Raises:
        ValueError: the URL is not that of a model, or the server refuses the request, with the
            reason.
        ConnectionError: there is no answer.
    """
    instances = [{"image_bytes": {"b64": base64.b64encode(x).decode()}} for x in image_bytes]
    return _post(url, {"instances": instances}, timeout)


def request_files(url: str, paths: Sequence[str], batch_size: int = 8) -> Iterator[dict[str, Any]]:
    """Sends image files to a server, a batch at a time, and yields its answers in their order.

    Args:
        url: URL of the model, such as http://localhost:8501/v1/models/clouds.
        paths: image files.
        batch_size: number of images in a request.

    Yields:
        Dicts as `request` returns them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: see `request`; the message names the refused file.
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


def decode_masks(encoded_pixels: Sequence[str], dataset: Mapping[str, Any]) -> np.ndarray:
    """Decodes the run-length encodings of one answer with numpy.

    Args:
        encoded_pixels: C strings "start length start length ...", counting pixels from 1.
        dataset: the metadata's "dataset", for the size and the order of the pixels.

    Returns:
        uint8 [C, h, w] of {0, 1} at the submission size.

    Raises:
        ValueError: a string is malformed, or a run exceeds the mask.
    """
    import numpy as np

    height, width = dataset["submission_size"]
    masks = np.zeros([len(encoded_pixels), height * width], np.uint8)
    for mask, text in zip(masks, encoded_pixels):
        numbers = [int(number) for number in text.split()]
        if len(numbers) % 2:
            raise ValueError(f"RLE: got {len(numbers)} numbers, expected pairs of start and length")
        for start, length in zip(numbers[::2], numbers[1::2]):
            if start < 1 or length < 1 or start - 1 + length > mask.size:
                raise ValueError(f"RLE: got the run {start} {length} in {mask.size} pixels")
            mask[start - 1 : start - 1 + length] = 1
    if dataset["rle_order"] == "rows":
        return masks.reshape(-1, height, width)
    return masks.reshape(-1, width, height).transpose(0, 2, 1)


def _blame(url: str, paths: Sequence[str], contents: Sequence[bytes]) -> str:
    """Names the first file that the server refuses alone, with the reason; "" if there is none."""
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
    deadline = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(post, timeout=timeout) as response:
                return json.load(response)["predictions"]
        except urllib.error.HTTPError as error:
            text, pause = error.read().decode(errors="replace"), _pause(error)
            if pause is None or time.monotonic() + pause > deadline:
                raise ValueError(f"{url}: status {error.code}: {_reason(text)}") from None
            time.sleep(pause)
        except (http.client.InvalidURL, json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{url}: not a server of a model: {error!r}") from None
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ConnectionError(f"{url}: no answer: {reason}") from None


def _pause(error: urllib.error.HTTPError) -> float | None:
    """Seconds after which an overloaded server accepts a new request; None if it names none."""
    after = error.headers.get("Retry-After", "")
    return float(after) if error.code == _OVERLOADED and after.isdecimal() else None


def _reason(text: str) -> str:
    """The relevant line of a server's error, without the names of graph nodes."""
    try:
        text = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        pass
    return (about_the_data(str(text)) or "no reason given")[:_MAX_REASON]
