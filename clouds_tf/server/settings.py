"""Settings of the server: address, model, page and limits."""

from __future__ import annotations

import dataclasses
from typing import Optional

from clouds_tf.prediction.engine import ENGINES
from clouds_tf.settings import CheckedSettings, setting


@dataclasses.dataclass(frozen=True, repr=False)
class ServerSettings(CheckedSettings):
    """Settings of `serve`; every field is a flag of tools/serve.py."""

    host: str = setting("127.0.0.1", "Address to listen on; 0.0.0.0 for all interfaces.")
    port: int = setting(8501, "Port to listen on; 0 takes a free one.", min=0, max=65535)
    engine: str = setting(
        "tensorflow",
        "Library that runs the network; openvino runs on the CPU.",
        choices=ENGINES,
    )
    manifest: Optional[str] = setting(
        None,
        "File of SHA-256 checksums, or folder with a file N.sha256 for each version N; versions "
        "with other checksums are refused.",
    )
    images_dir: Optional[str] = setting(None, "Folder of images that the page offers.")
    onnx: Optional[str] = setting(None, "ONNX file that the page runs in the browser.")
    onnxruntime_web: Optional[str] = setting(
        None, "Folder with the files of onnxruntime-web, for --onnx."
    )
    max_batch: int = setting(8, "Largest number of images in one call of the network.", min=1)
    max_wait_ms: float = setting(
        5.0, "Longest time in ms that an image waits for others while the network is idle.", min=0
    )
    max_images: int = setting(
        64, "Largest number of images in progress; further requests are answered with 503.", min=1
    )
    max_pixels: int = setting(
        2**25,
        "Largest number of pixels that are decoded at a time; a larger image is decoded alone.",
        min=1,
    )
    max_body_mb: float = setting(32.0, "Largest body of a request in MB.", min=0)
    max_bodies_mb: float = setting(
        256.0,
        "Largest size of all bodies in memory in MB; further requests are answered with 503.",
        min=0,
    )
    max_connections: int = setting(
        500, "Largest number of open connections; others are answered with 503.", min=1
    )
    head_seconds: float = setting(
        10.0, "Longest time in seconds for the head of a request to arrive.", min=0
    )
    body_seconds: float = setting(
        60.0, "Longest time in seconds for the body of a request to arrive.", min=0
    )
    keep_alive_seconds: float = setting(
        75.0,
        "Seconds after which an idle connection is closed; a proxy in front should close it first.",
        min=0,
    )
    keep_versions: int = setting(1, "Number of newest versions that are kept loaded.", min=1)
    poll_seconds: float = setting(
        5.0, "Seconds between checks for new versions; 0 checks only at the start.", min=0
    )
    drain_seconds: float = setting(
        5.0, "Seconds after SIGTERM in which new requests are still answered.", min=0
    )
    access_log: bool = setting(True, "Log each request to stdout as a line of JSON.")
