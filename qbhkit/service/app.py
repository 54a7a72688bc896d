"""The routes of ``qbhkit serve``, and their limits."""

import asyncio
import hmac
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory, mkstemp
from time import perf_counter
from typing import Annotated, Any, get_type_hints

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client import exposition as prometheus
from pydantic import BaseModel, ConfigDict, Field, create_model
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import qbhkit
from qbhkit.audio import AUDIO_SUFFIXES
from qbhkit.embedding.windows import MatchFrom
from qbhkit.errors import QbhError
from qbhkit.retrieval.searcher import Answer

_HANG_UP_S = 10.0  # a refused client may keep sending for this long,
_QUIET_S = 1.0  # but not pause for this long
_CLIENT_GONE = 499  # counted only: nothing is sent to a client that has left
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
        workers: recordings that are tracked at the same time (one is searched at a time).
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

    status: str = "ok"
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
_ANY_BYTES = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "description": "The recording as it is: wav, flac, ogg, mp3, aiff, m4a, mp4, webm or aac.",
        "required": True,
        "content": {"audio/*": _ANY_BYTES, "application/octet-stream": _ANY_BYTES},
    }
}


def create_app(
    recognise: Recognise,
    songs: int,
    config: ServiceConfig,
    ready: Callable[[], None] = lambda: None,
) -> FastAPI:
    """Build the service as an ASGI application.

    Args:
        recognise: what :func:`qbhkit.service.recogniser.recogniser` returns; called from
            ``config.workers`` threads.
        songs: number of songs in the catalogue, for the metrics.
        config: limits and credential.
        ready: called when the service starts to answer.
    """
    threads = ThreadPoolExecutor(config.workers, thread_name_prefix="search")
    # Running or waiting: a job counts until it ends, even if its client has left, so that work for
    # which nobody waits cannot pile up.
    jobs: set[Future[dict[str, Any]]] = set()
    folder = TemporaryDirectory(prefix="qbhkit-")

    registry = CollectorRegistry()
    answered = Counter("qbhkit_requests", "answered", ["path", "status"], registry=registry)
    seconds = Histogram("qbhkit_search_seconds", "from last byte to answer", registry=registry)
    receiving = Gauge("qbhkit_receiving", "recordings being received", registry=registry)
    counted = Gauge("qbhkit_jobs", "recordings searched or queued", registry=registry)
    counted.set_function(lambda: len(jobs))
    Gauge("qbhkit_songs", "songs in the catalogue", registry=registry).set(songs)
    ProcessCollector(registry=registry)  # memory, files and time of the process

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        ready()
        yield
        await asyncio.to_thread(threads.shutdown, cancel_futures=True)
        folder.cleanup()

    app = FastAPI(
        title="qbhkit",
        version=qbhkit.__version__,
        summary="Query by humming: POST a recording, get the songs.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from other hosts
        redoc_url=None,
    )
    app.add_middleware(_watched, answered=answered)
    guards = [Depends(_bearer(config.token))] if config.token is not None else []

    @app.exception_handler(RequestValidationError)
    async def bad_parameter(_request: Request, error: RequestValidationError) -> JSONResponse:
        wrong = error.errors()[0]
        return JSONResponse({"detail": f"{wrong['loc'][-1]}: {wrong['msg']}."}, 422)

    @app.exception_handler(QbhError)
    async def bad_recording(_request: Request, error: QbhError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=_CLIENT_GONE)

    def refuse_if_full() -> None:
        if len(jobs) >= config.workers + config.queue:
            retry = {"Retry-After": "1"}  # seconds; a search takes a fraction of one
            raise HTTPException(503, "Too many recordings at once: try again in a moment.", retry)

    @app.post(
        "/search",
        response_model=Answers,
        responses=_PROBLEMS,
        openapi_extra=_BODY,
        dependencies=guards,
    )
    async def search(
        request: Request,
        k: Annotated[int, Query(ge=1, le=1000, description="songs in the answer")] = 10,
        match_from: Annotated[
            MatchFrom,
            Query(alias="anchor", description="start: only the beginnings of songs are compared"),
        ] = "anywhere",
        name: Annotated[str, Query(max_length=200, description="of the recording")] = "recording",
    ) -> Response:
        """Find the songs of a recording, which is the body of the request."""
        refuse_if_full()  # before the body is sent, and again after it
        with receiving.track_inprogress():
            path = await _receive(request, folder.name, name, config, refuse_if_full)
        begin_s = perf_counter()
        job = threads.submit(recognise, path, name, k, match_from)
        jobs.add(job)
        job.add_done_callback(jobs.discard)
        job.add_done_callback(lambda _job: path.unlink())  # of cancelled jobs too
        line = await _result(job, request, config.timeout_s)
        seconds.observe(perf_counter() - begin_s)
        return Response(json.dumps(line), media_type="application/json")  # ASCII

    @app.get("/healthz")
    async def healthz() -> Health:
        """Tell that the service is running, and its limits."""
        return Health(
            most_bytes=config.most_bytes,
            longest_s=config.longest_s,
            needs_token=config.token is not None,
        )

    @app.get("/metrics", response_class=PlainTextResponse, dependencies=guards)
    async def metrics() -> Response:
        """Return metrics in the text format of Prometheus."""
        text = prometheus.generate_latest(registry)
        return Response(text, media_type=prometheus.CONTENT_TYPE_LATEST)

    app.mount("/", StaticFiles(directory=str(files("qbhkit.service") / "page"), html=True))
    return app


def _bearer(token: str) -> Callable[..., Awaitable[None]]:
    scheme = HTTPBearer(auto_error=False, description="the contents of the token file")

    async def check(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)],
    ) -> None:
        if given is None or not hmac.compare_digest(given.credentials.encode(), token.encode()):
            challenge = {"WWW-Authenticate": "Bearer"}
            raise HTTPException(401, "The credential is missing or wrong.", challenge)

    return check


async def _receive(
    request: Request,
    folder: str,
    name: str,
    config: ServiceConfig,
    refuse_if_full: Callable[[], None],
) -> Path:
    """Stream a body into a new file, which the caller must delete; leave none after a refusal."""
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise HTTPException(415, "Send the recording itself as the body, not a form with it.")
    too_large = HTTPException(413, f"The recording has more than {config.most_mb:g} MB.")
    if int(request.headers.get("content-length", 0)) > config.most_bytes:
        raise too_large
    suffix = Path(name).suffix.lower()
    handle, path = mkstemp(suffix if suffix in AUDIO_SUFFIXES else "", "hum-", folder)
    try:
        with os.fdopen(handle, "wb") as file:
            async with asyncio.timeout(config.timeout_s):
                async for block in request.stream():
                    if file.tell() + len(block) > config.most_bytes:
                        raise too_large
                    file.write(block)
        refuse_if_full()
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, TimeoutError):
            slow = f"The recording took more than {config.timeout_s:g} s to send."
            raise HTTPException(408, slow) from None
        raise
    return Path(path)


async def _result(job: "Future[dict[str, Any]]", request: Request, timeout_s: float) -> Any:
    """Wait for a job; cancel it if it has not begun when time is up or its client has left."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, leaving = asyncio.wrap_future(job), asyncio.create_task(left())
    either: set[asyncio.Future[Any]] = {answer, leaving}
    try:
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if leaving.done():
            raise ClientDisconnect
        raise HTTPException(504, f"No answer within {timeout_s:g} s.")
    finally:
        answer.cancel()
        leaving.cancel()


def _watched(app: ASGIApp, answered: Counter) -> ASGIApp:
    """Count every answer, add the security headers, and let refused clients read why."""

    async def watch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        status = 500  # an exception passes through here before it becomes an answer
        unread = scope["method"] not in ("GET", "HEAD")

        async def received() -> Message:
            nonlocal unread
            message = await receive()
            unread = message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = {"Connection": "close"} if unread else {}
                MutableHeaders(scope=message).update(_HEADERS | more)
            elif unread and not message.get("more_body"):
                # Closing a socket with unread data loses the answer (RFC 9112, section 9.6), so the
                # rest of the body is discarded before.
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(_HANG_UP_S):
                        while unread:
                            await asyncio.wait_for(received(), _QUIET_S)
                message = {"type": "http.response.body"}
            await send(message)

        try:
            await app(scope, received, answer)
        finally:
            known = scope["path"] in ("/", "/search", "/healthz", "/metrics", "/openapi.json")
            path = scope["path"] if known else "other"  # so that there are few labels
            answered.labels(path, status).inc()

    return watch
