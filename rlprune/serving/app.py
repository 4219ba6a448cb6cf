"""The application: which request gets which answer. The network runs in threads, so that the loop goes on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.metadata import version
from importlib.resources import files
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor

from rlprune.deployment.prediction import Prediction
from rlprune.deployment.streaming.stream import Stream
from rlprune.errors import DataError, RLPruneError
from rlprune.serving import answers
from rlprune.serving.limits import Limits
from rlprune.serving.metrics import CONTENT_TYPE_LATEST, Metrics
from rlprune.serving.pictures import decoded
from rlprune.serving.refusals import RefusedError
from rlprune.serving.served import Served
from rlprune.serving.uploads import pictures_of

_MOST_SAID = 300
_ENDPOINTS = ("/", "/predict", "/model", "/health", "/ready", "/metrics", "/openapi.json")
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src blob: data:"
)
_BODY = {
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
    },
    "required": True,
}


class _Desk:
    """Takes pictures and gives predictions: as many requests at a time as are allowed."""

    def __init__(self, served: Served, limits: Limits, metrics: Metrics) -> None:
        self.served = served
        self.limits = limits
        self.metrics = metrics
        self._n_in_flight = 0
        self._decoding: anyio.CapacityLimiter | None = None
        self._predicting: anyio.CapacityLimiter | None = None

    def open(self) -> None:
        """Let the images of all requests run together, in the loop that runs now.

        Pictures that the file scales itself may be large: of them only so many are in memory as are decoded at a time.
        """
        self._decoding = anyio.CapacityLimiter(self.limits.at_once)
        if self.served.resizes:
            return
        self._predicting = anyio.CapacityLimiter(self.limits.max_waiting)  # they wait for the stream
        room = self.limits.max_waiting * self.limits.max_pictures
        stream = Stream(self.served.model, self.limits.max_wait_ms, max_waiting=room)
        self.served = replace(self.served, stream=stream)

    def close(self) -> None:
        """Finish what was begun."""
        if self.served.stream is not None:
            self.served.stream.close()
            self.served = replace(self.served, stream=None)

    async def answer(self, request: Request, budget: float | None, top_k: int) -> list[dict[str, Any]]:
        """What is said of the pictures of a request."""
        if self._n_in_flight >= self.limits.max_waiting:
            raise RefusedError(503, "the server has as many requests as it takes: try again soon")
        if self._decoding is None:  # the server tells nothing of its beginning
            self.open()
        self._n_in_flight += 1
        self.metrics.in_flight.set(self._n_in_flight)
        try:
            named = await pictures_of(request, self.limits)
            if not named:
                raise RefusedError(422, "there is no picture in the request: send at least one file")
            names, contents = [name for name, _ in named], [content for _, content in named]
            predicted = await self._predicted(contents, budget)
        finally:
            self._n_in_flight -= 1
            self.metrics.in_flight.set(self._n_in_flight)
        self.metrics.count_images(predicted, int(self.served.model.prices.dense.macs))
        return answers.predictions(self.served, predicted, names, top_k)

    def figures(self) -> bytes:
        """Figures for Prometheus."""
        if self.served.stream is not None:
            self.metrics.note_stream(self.served.stream.figures())
        return self.metrics.text()

    async def _predicted(self, contents: list[bytes], budget: float | None) -> Prediction:
        """What the network says of pictures, decoded and predicted in threads."""
        if self._predicting is None:
            return await anyio.to_thread.run_sync(
                lambda: self.served.predict(self._decoded(contents), budget), limiter=self._decoding
            )
        images = await anyio.to_thread.run_sync(self._decoded, contents, limiter=self._decoding)
        return await anyio.to_thread.run_sync(self.served.predict, images, budget, limiter=self._predicting)

    def _decoded(self, contents: list[bytes]) -> list[Tensor]:
        how, shape = self.served.preprocessing, self.served.model.image_shape
        return decoded(contents, shape, how, self.limits, whole=self.served.resizes)


def make_app(served: Served, limits: Limits | None = None) -> FastAPI:
    """The application that answers with a network.

    Args:
        served: the network.
        limits: what clients may send; the defaults if None.
    """
    limits = limits or Limits()
    said = answers.about(served, limits, version("rlprune"))
    metrics = Metrics({name: said[name] for name in ("file", "backend", "version")})
    desk = _Desk(served, limits, metrics)
    state = {"ready": False}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        desk.open()
        state["ready"] = True
        yield
        state["ready"] = False
        await anyio.to_thread.run_sync(desk.close)

    app = FastAPI(title="rlprune", version=said["version"], lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.figures = desk.figures
    page = files("rlprune.serving").joinpath("page.html").read_text("utf-8")

    @app.post("/predict", openapi_extra={"requestBody": _BODY})
    async def predict(
        request: Request,
        budget: Annotated[float | None, Query(gt=0, le=1e9, allow_inf_nan=False)] = None,
        top_k: Annotated[int, Query(ge=1, le=1_000_000)] = 5,
    ) -> dict[str, Any]:
        """Classify one picture, or the files of a form."""
        return {"predictions": await desk.answer(request, budget, top_k)}

    @app.get("/model")
    async def model() -> dict[str, Any]:
        """What is served: classes, size of images, preprocessing, prices, limits."""
        return said

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server lives."""
        return {"status": "ok"}

    @app.get("/ready", response_model=None)
    async def ready() -> JSONResponse:
        """Whether it takes requests for predictions."""
        return JSONResponse(
            {"status": "ready"} if state["ready"] else {"status": "ending"}, 200 if state["ready"] else 503
        )

    @app.get("/metrics", response_model=None)
    async def figures() -> Response:
        """Figures for Prometheus."""
        return Response(desk.figures(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", response_model=None)
    async def index() -> HTMLResponse:
        """A page that says what is served, and tries a picture."""
        return HTMLResponse(page, headers={"Content-Security-Policy": _PAGE_POLICY})

    _answer_errors(app)
    app.add_middleware(_Counted, metrics=metrics)
    return app


def _answer_errors(app: FastAPI) -> None:
    """Let every error be JSON with one short sentence."""

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RefusedError)
        return _error(error.status, str(error))

    @app.exception_handler(RLPruneError)
    async def unusable(_: Request, error: Exception) -> JSONResponse:
        return _error(422 if isinstance(error, DataError) or type(error) is RLPruneError else 500, str(error))

    @app.exception_handler(HTTPException)
    async def of_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _error(error.status_code, str(error.detail).rstrip("."), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = str(first["loc"][-1])
        return _error(422, f"{name} is {str(first.get('input'))[:100]!r}: {str(first['msg']).lower()}")

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return _error(500, "the server failed on this request; its log says why")


def _error(status: int, reason: str, headers: Any = None) -> JSONResponse:
    more = {"Retry-After": "1"} if status == 503 else {}
    return JSONResponse({"error": " ".join(reason.split())[:_MOST_SAID]}, status, {**(headers or {}), **more})


class _Counted:
    """Counts requests, whatever answers them."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, code = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            endpoint = scope["path"] if scope["path"] in _ENDPOINTS else "other"
            self._metrics.count(endpoint, code, time.perf_counter() - started)
