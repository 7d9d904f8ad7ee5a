"""Metrics in the Prometheus format."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import prometheus_client as prometheus

from clouds_tf.prediction.likeness import UNLIKE

CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
STATUS_GONE = 499  # as in nginx, for the log: the client disconnected
_KINDS = {
    404: "not_found",
    408: "timeout",
    413: "too_large",
    STATUS_GONE: "disconnected",
    500: "internal",
    503: "overloaded",
}
_OTHER_KINDS = _BAD_REQUEST, _DRAINING = "bad_request", "draining"
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1)


class Metrics:
    """All metrics of one server, in a separate registry."""

    def __init__(self) -> None:
        registry = self._registry = prometheus.CollectorRegistry()
        for collector in (prometheus.ProcessCollector, prometheus.PlatformCollector):
            collector(registry=registry)
        prometheus.GCCollector(registry=registry)

        def counter(name: str, help: str, *labels: str) -> Any:
            return prometheus.Counter(f"clouds_{name}", help, labels, registry=registry)

        def gauge(name: str, help: str, *labels: str) -> Any:
            return prometheus.Gauge(f"clouds_{name}", help, labels, registry=registry)

        def histogram(name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Any:
            return prometheus.Histogram(
                f"clouds_{name}", help, labels, registry=registry, buckets=buckets
            )

        self.requests = counter(
            "requests", "Requests, by protocol and status code.", "protocol", "code"
        )
        self.errors = counter("errors", "Failed requests, by the reason.", "kind")
        # Starting at 0, because Prometheus sees no increase in a series that begins at 1.
        for kind in (*_KINDS.values(), *_OTHER_KINDS):
            self.errors.labels(kind)
        self.images = counter("images", "Images, answered or refused.", "outcome")
        self.latency = histogram("latency_seconds", "Seconds in each stage.", _SECONDS, "stage")
        self.batch_size = histogram("batch_size", "Images in a call of the network.", _SIZES)
        self.queue = gauge("queue_images", "Images that wait for the network.")
        self.in_progress = gauge("requests_in_progress", "Requests in progress.")
        self.model_info = gauge("model_info", "Loaded versions.", "version", "identity")
        self.current_version = gauge("model_current_version", "Version that answers by default.")
        self.versions_refused = counter("versions_refused", "New versions that failed to load.")
        self.likeness = histogram(
            "likeness", "Likeness of images to those of the training.", (UNLIKE, *_SHARES)
        )
        self.presence = histogram("presence", "Presence of classes in images.", _SHARES, "class")

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Context whose duration is recorded for a stage, unless it raises."""
        start = time.perf_counter()
        yield
        self.latency.labels(stage).observe(time.perf_counter() - start)

    def count_error(self, status: int, draining: bool = False) -> None:
        """Counts a failed request by its status code."""
        kind = _DRAINING if status == 503 and draining else _KINDS.get(status, _BAD_REQUEST)
        self.errors.labels(kind).inc()

    def observe_answer(
        self, class_names: Sequence[str], likeness: float, presence: Iterable[float]
    ) -> None:
        """Counts one answered image; an unknown likeness is NaN, an unknown presence empty."""
        self.images.labels("answered").inc()
        if not math.isnan(likeness):
            self.likeness.observe(likeness)
        for name, share in zip(class_names, presence):
            self.presence.labels(name).observe(float(share))

    def render(self) -> bytes:
        """The metrics as text."""
        return prometheus.generate_latest(self._registry)
