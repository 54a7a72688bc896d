"""The routes of ``qbhkit serve``, and their limits."""

import asyncio
import hmac
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Any, get_type_hints

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.process_collector import ProcessCollector
from pydantic import BaseModel, ConfigDict, Field, create_model
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import qbhkit
from qbhkit.embedding.windows import MatchFrom
from qbhkit.errors import QbhError
from qbhkit.retrieval.searcher import Answer
from qbhkit.service.pool import BoundedPool, PoolFullError
from qbhkit.service.upload import receive

_MOST_UPLOADS = 128  # at a time, so that slow clients fill neither the disk nor the file table
_RETRY_AFTER_S = 1  # a search takes a fraction of a second
_CLIENT_GONE = 499  # counted for a client that has left; nothing is sent
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

Recognise = Callable[[Path, str, int, MatchFrom], dict[str, Any]]


@dataclass(frozen=True)
class ServiceConfig:
    """Set the limits of the service.

    Args:
        most_mb: largest recording, millions of bytes.
        longest_s: longest recording, seconds.
        timeout_s: to receive a recording, and again to answer it, seconds.
        queue: recordings that may wait while others are searched.
        workers: recordings that are tracked at the same time (only one is searched at a time); by
            default one per core, 4 at most.
        token: the credential that requests must carry, if any.

    Raises:
        QbhError: if a number is out of range.
    """

    most_mb: float = 20.0
    longest_s: float = 120.0
    timeout_s: float = 30.0
    queue: int = 8
    workers: int = min(4, os.cpu_count() or 1)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("most_mb", "longest_s", "timeout_s", "workers"):
            if not 0 < getattr(self, name) < 1e12:
                raise QbhError(f"{name} must be above 0, and under 1e12.")
        if self.queue < 0:
            raise QbhError("queue must be 0 or more.")

    @property
    def most_bytes(self) -> int:
        """The largest body."""
        return int(self.most_mb * 1e6)


# The schema follows the fields of Answer, so that new ones need no change here.
Song = create_model("Song", **{name: (kind, ...) for name, kind in get_type_hints(Answer).items()})  # type: ignore[call-overload]


class Answers(BaseModel):
    """The songs found for a recording, best first: a line of ``qbhkit search --json``."""

    model_config = ConfigDict(extra="allow")
    query: str = Field(description="the recording's name")
    voiced_s: float = Field(description="seconds of it that are voiced")
    results: list[Song]  # type: ignore[valid-type]


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="one sentence: what is wrong, and what helps")


class Health(BaseModel):
    """That the service is running, and its limits."""

    status: str
    most_bytes: int = Field(description="largest recording")
    longest_s: float = Field(description="longest recording, seconds")
    needs_token: bool = Field(description="whether requests must carry the credential")


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "the credential is missing or wrong"},
    408: {"model": Problem, "description": "the recording took too long to send"},
    413: {"model": Problem, "description": "the recording is too large"},
    415: {"model": Problem, "description": "the body is a form"},
    422: {"model": Problem, "description": "the recording or a parameter cannot be used"},
    503: {"model": Problem, "description": "the queue is full; see the header Retry-After"},
    504: {"model": Problem, "description": "the search took too long"},
}
_BODY = {
    "requestBody": {
        "description": "The recording as it is: wav, flac, ogg, mp3, aiff, m4a, mp4, webm or aac.",
        "required": True,
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("audio/*", "application/octet-stream")
        },
    }
}


def create_app(recognise: Recognise, songs: int, config: ServiceConfig) -> FastAPI:
    """Build the service.

    Args:
        recognise: finds the songs of a file; called from ``config.workers`` threads, see
            :class:`qbhkit.service.recogniser.Recogniser`.
        songs: number of songs in the catalogue, for the metrics.
        config: limits and credential.

    Returns:
        An ASGI application.
    """
    pool = BoundedPool(config.workers, config.queue)
    metrics = _Metrics(pool, songs)
    folder = TemporaryDirectory(prefix="qbhkit-")
    uploads = Path(folder.name)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(pool.close)
        folder.cleanup()

    app = FastAPI(
        title="qbhkit",
        version=qbhkit.__version__,
        summary="Query by humming: POST a recording, get the songs.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from other hosts
        redoc_url=None,
    )
    app.add_middleware(_Watch, requests=metrics.requests)

    @app.exception_handler(RequestValidationError)
    async def refuse(_request: Request, error: RequestValidationError) -> JSONResponse:
        wrong = error.errors()[0]
        return JSONResponse({"detail": f"{wrong['loc'][-1]}: {wrong['msg']}."}, 422)

    guards = [Depends(_bearer(config.token))] if config.token is not None else []

    @app.post(
        "/search",
        response_model=Answers,
        responses=_PROBLEMS,
        openapi_extra=_BODY,
        dependencies=guards,
        tags=["search"],
    )
    async def search(
        request: Request,
        k: Annotated[int, Query(ge=1, le=1000, description="songs in the answer")] = 10,
        match_from: Annotated[
            MatchFrom,
            Query(alias="anchor", description="start: only the beginnings of songs are compared"),
        ] = "anywhere",
        name: Annotated[
            str, Query(max_length=200, description="of the recording, used in answer and errors")
        ] = "recording",
    ) -> Response:
        """Find the songs of a recording, which is the body of the request."""
        if pool.full or metrics.receiving >= _MOST_UPLOADS:
            raise _busy()
        metrics.receiving += 1
        try:
            path = await receive(request, uploads, name, config.most_bytes, config.timeout_s)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        finally:
            metrics.receiving -= 1
        begin_s = perf_counter()
        try:
            job = pool.submit(recognise, path, name, k, match_from)
        except PoolFullError:
            path.unlink()
            raise _busy() from None
        job.add_done_callback(lambda _job: path.unlink())  # of cancelled jobs too
        try:
            line = await _result(job, request, config.timeout_s)
        except QbhError as error:
            raise HTTPException(422, str(error)) from None
        except TimeoutError:
            raise HTTPException(504, f"No answer within {config.timeout_s:g} s.") from None
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        metrics.seconds.observe(perf_counter() - begin_s)
        return Response(json.dumps(line), media_type="application/json")  # ASCII

    @app.get("/healthz", tags=["operation"])
    async def healthz() -> Health:
        """Tell that the service is running, and its limits."""
        return Health(
            status="ok",
            most_bytes=config.most_bytes,
            longest_s=config.longest_s,
            needs_token=config.token is not None,
        )

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={401: _PROBLEMS[401]},
        dependencies=guards,
        tags=["operation"],
    )
    async def measured() -> Response:
        """Return metrics in the text format of Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    app.mount("/", StaticFiles(directory=str(files("qbhkit.service") / "page"), html=True))
    return app


def _busy() -> HTTPException:
    retry = {"Retry-After": str(_RETRY_AFTER_S)}
    return HTTPException(503, "Too many recordings at once: try again in a moment.", retry)


def _bearer(token: str) -> Callable[..., Awaitable[None]]:
    scheme = HTTPBearer(auto_error=False, description="the contents of the token file")

    async def check(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)],
    ) -> None:
        if given is None or not hmac.compare_digest(given.credentials.encode(), token.encode()):
            challenge = {"WWW-Authenticate": "Bearer"}
            raise HTTPException(401, "The credential is missing or wrong.", challenge)

    return check


async def _result(job: "Future[dict[str, Any]]", request: Request, timeout_s: float) -> Any:
    """Wait for a job; cancel it if it has not begun when time is up or its client has left."""
    answer, gone = asyncio.wrap_future(job), asyncio.create_task(_gone(request))
    either: set[asyncio.Future[Any]] = {answer, gone}
    try:
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise ClientDisconnect if gone.done() else TimeoutError
    finally:
        answer.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self, pool: BoundedPool, songs: int) -> None:
        self.registry = CollectorRegistry()
        self.receiving = 0
        self.requests = Counter(
            "qbhkit_requests", "requests answered", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "qbhkit_search_seconds", "from the last byte to the answer", registry=self.registry
        )
        for name, text, value in (
            ("qbhkit_receiving", "recordings being received", lambda: self.receiving),
            ("qbhkit_jobs", "recordings searched or queued", lambda: pool.taken),
            ("qbhkit_songs", "songs in the catalogue", lambda: songs),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)
        ProcessCollector(registry=self.registry)  # memory, files and time of the process


class _Watch:
    """Count every answer, and add the security headers."""

    def __init__(self, app: ASGIApp, requests: Counter) -> None:
        self._app, self._requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # an exception passes through here before it becomes an answer

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            known = scope["path"] in ("/", "/search", "/healthz", "/metrics", "/openapi.json")
            path = scope["path"] if known else "other"  # so that labels stay few
            self._requests.labels(path, status).inc()
