"""What a server counts, in Prometheus' form."""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

from rlprune.deployment.prediction import Prediction
from rlprune.deployment.streaming.figures import StreamFigures

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0)


class Metrics:
    """The figures of one server.

    Args:
        about: what is served, and by which version, as labels of `rlprune_model_info`.

    Attributes:
        in_flight: requests that are worked on, or wait for that.
    """

    def __init__(self, about: dict[str, str]) -> None:
        self._registry = CollectorRegistry()
        to = self._registry
        Info("rlprune_model", "What is served.", registry=to).info(about)
        self._requests = Counter("rlprune_requests", "Requests answered.", ("endpoint", "code"), registry=to)
        self._errors = Counter("rlprune_errors", "Requests that were refused or failed.", ("code",), registry=to)
        self._images = Counter("rlprune_images", "Images classified.", registry=to)
        self._seconds = Histogram(
            "rlprune_predict_seconds",
            "Time of a request for predictions, its upload included.",
            buckets=_SECONDS,
            registry=to,
        )
        self._macs = Histogram(
            "rlprune_macs_share",
            "What an image cost, as a share of the dense network's multiply-adds.",
            buckets=_SHARES,
            registry=to,
        )
        self._passes = Histogram("rlprune_passes", "Passes of an image.", buckets=(1, 2, 3, 4, 6, 8), registry=to)
        self.in_flight = Gauge("rlprune_in_flight", "Requests for predictions that are worked on or wait.", registry=to)
        self._bucket = Gauge("rlprune_bucket_images", "Images that ran together, on average.", registry=to)
        self._wait = Gauge(
            "rlprune_wait_seconds", "Time that images waited for others or their turn.", ("quantile",), registry=to
        )
        ProcessCollector(registry=self._registry)

    def count(self, endpoint: str, code: int, seconds: float) -> None:
        """Count a request.

        Args:
            endpoint: its path, if it is one of the server's; else a word that stands for all others.
            code: of the answer.
            seconds: that it took.
        """
        self._requests.labels(endpoint, str(code)).inc()
        if code >= 400:
            self._errors.labels(str(code)).inc()
        elif endpoint == "/predict":
            self._seconds.observe(seconds)

    def count_images(self, prediction: Prediction, dense_macs: int) -> None:
        """Count what was predicted.

        Args:
            prediction: of B images.
            dense_macs: of the dense network, for one image.
        """
        self._images.inc(len(prediction.labels))
        for macs, passes in zip(prediction.macs.tolist(), prediction.passes.tolist(), strict=True):
            self._macs.observe(macs / dense_macs)
            self._passes.observe(passes)

    def note_stream(self, figures: StreamFigures) -> None:
        """Take over how large buckets were, and how long images waited."""
        self._bucket.set(figures.mean_bucket)
        self._wait.labels("0.5").set(figures.wait_p50 / 1000)
        self._wait.labels("0.99").set(figures.wait_p99 / 1000)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
