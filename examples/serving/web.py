"""The HTTP side: what is asked and answered, in JSON. Errors are {"error": one sentence}."""

from __future__ import annotations

import contextlib
import json
import math
import time
from typing import Any, NamedTuple

import numpy as np
from batcher import Batcher, Best, Job
from exported import Exported
from fastapi import FastAPI, Request
from fastapi.responses import Response
from problems import RequestError, shown
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

LONGEST_KEY, LONGEST_ITEM, LONGEST_BODY = 200, 1000, 1 << 16
MOST_ITEMS, MOST_K = 100, 1000
_ITEM = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
_K = {"type": "integer", "minimum": 1, "maximum": MOST_K, "default": 20}
_EXCLUDE_SEEN = {"type": "boolean", "default": False}
# The bodies are checked by hand, in a third of the time: this is for /docs.
_CLICK = {
    "type": "object",
    "properties": {
        "item": _ITEM,
        "items": {"type": "array", "items": _ITEM, "maxItems": MOST_ITEMS},
        "k": _K,
        "exclude_seen": _EXCLUDE_SEEN,
    },
    "oneOf": [{"required": ["item"]}, {"required": ["items"]}],
    "additionalProperties": False,
    "example": {"item": 214536502, "k": 20, "exclude_seen": False},
}
_LOOK = [
    {"name": "k", "in": "query", "schema": _K},
    {"name": "exclude_seen", "in": "query", "schema": _EXCLUDE_SEEN},
]


class Click(NamedTuple):
    """A checked body of a click."""

    items: list[int | str]
    is_list: bool
    k: int
    exclude_seen: bool


class Counts:
    """What the metrics count beside the batcher."""

    def __init__(self) -> None:
        self.clicks = self.unknown = 0


def application(model: Exported, batcher: Batcher) -> FastAPI:
    """Return the application for a model."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI):
        batcher.start()
        yield
        batcher.stop()

    app = FastAPI(title="GRU4Rec", description=__doc__, lifespan=lifespan)
    counts = Counts()

    @app.post(
        "/sessions/{session_id}/click",
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": _CLICK}}}
        },
    )
    async def click(session_id: str, request: Request) -> Response:
        """Take the next click of a session, or several in their order; list the best next items.

        A session without a click on a known item gets the most popular ones. Of a list of items
        the answer tells in a list which are known.
        """
        key, asked = checked_key(session_id), parsed_click(await _body(request))
        positions = [model.position(item) for item in asked.items]
        known = [position for position in positions if position >= 0]
        counts.clicks += len(positions)
        counts.unknown += len(positions) - len(known)
        job = Job(key, known, asked.k, asked.exclude_seen, clicks=True)
        found = await batcher.answer(job)
        flags = [position >= 0 for position in positions]
        return _listed(model, found, known=flags if asked.is_list else flags[0])

    @app.get("/sessions/{session_id}/top", openapi_extra={"parameters": _LOOK})
    async def top(session_id: str, request: Request) -> Response:
        """List the best next items of a session, which this leaves as it is."""
        k, exclude_seen = parsed_look(request.query_params)
        found = await batcher.answer(Job(checked_key(session_id), (), k, exclude_seen))
        return _listed(model, found)

    @app.delete("/sessions/{session_id}")
    async def delete(session_id: str) -> Response:
        """Forget a session."""
        return _json({"deleted": await batcher.answer(Job(checked_key(session_id), delete=True))})

    @app.get("/health")
    def health() -> Response:
        """Tell whether the service can answer."""
        batcher.store.check()
        return _json({"status": "ok", "items": len(model.item_ids)})

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return counts since the start, and times of the model's latest runs in milliseconds."""
        times = 1000 * batcher.times()
        return _json(
            {
                "requests": batcher.n_requests,
                "clicks": counts.clicks,
                "unknown_items": counts.unknown,
                "batches": batcher.n_runs,
                "mean_batch": batcher.n_in_runs / max(1, batcher.n_runs),
                "sessions": batcher.store.n_sessions(),
                "run_ms": {
                    f"p{p}": float(np.percentile(times, p)) if len(times) else None
                    for p in (50, 90, 99)
                },
                "cpu_seconds": time.process_time(),
            }
        )

    @app.exception_handler(RequestError)
    async def refused(_: Request, err: RequestError) -> Response:
        return _json({"error": err.sentence}, err.status)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, err: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it

    @app.exception_handler(HTTPException)
    async def no_such_page(_: Request, err: HTTPException) -> Response:
        return _json({"error": f"{err.detail}: /docs lists what there is"}, err.status_code)

    @app.exception_handler(Exception)
    async def broken(_: Request, err: Exception) -> Response:
        return _json({"error": f"the service has a fault ({type(err).__name__})"}, 500)

    return app


# ---------------------------------------------------------------------------- what is asked


def parsed_click(body: bytes) -> Click:
    """Return the content of a click's body.

    Raises
    ------
    RequestError
        Says what is wrong with it.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, 'the body is no JSON; expected for example {"item": 12}') from None
    if type(fields) is not dict:
        raise _wrong("the body", 'an object such as {"item": 12}', fields)
    if unknown := fields.keys() - _CLICK["properties"].keys():
        raise _wrong("the body", "item or items, k, exclude_seen", min(unknown))
    if ("item" in fields) == ("items" in fields):
        raise RequestError(422, "the body: expected either item or items")
    k = _checked_k(fields.get("k", 20))
    exclude_seen = fields.get("exclude_seen", False)
    if type(exclude_seen) is not bool:
        raise _wrong("exclude_seen", "true or false", exclude_seen)
    if "item" in fields:
        return Click([_checked_item(fields["item"])], False, k, exclude_seen)
    items = fields["items"]
    if type(items) is not list or not 1 <= len(items) <= MOST_ITEMS:
        raise _wrong("items", f"a list of 1 to {MOST_ITEMS} items", items)
    return Click([_checked_item(item) for item in items], True, k, exclude_seen)


def parsed_look(query: Any) -> tuple[int, bool]:
    """Return k and exclude_seen of a query string; raise a `RequestError` if one is wrong."""
    k: object = query.get("k", "20")
    if k.isascii() and k.isdigit() and len(k) < 10:
        k = int(k)
    exclude_seen = query.get("exclude_seen", "false")
    if exclude_seen not in ("true", "false"):
        raise _wrong("exclude_seen", "true or false", exclude_seen)
    return _checked_k(k), exclude_seen == "true"


def checked_key(session_id: str) -> str:
    """Return the id of a session; raise a `RequestError` if it cannot be one."""
    # bytes that are no UTF-8 all become U+FFFD, which would make one session of several
    if len(session_id) > LONGEST_KEY or not session_id.isprintable() or "\ufffd" in session_id:
        raise _wrong(
            "the session's id", f"at most {LONGEST_KEY} printable characters in UTF-8", session_id
        )
    return session_id


def _checked_item(item: object) -> int | str:
    if type(item) is float and math.isfinite(item) and item == int(item):
        return int(item)  # languages without integers write 12.0
    if type(item) is int or (type(item) is str and len(item) <= LONGEST_ITEM):
        return item
    raise _wrong("item", f"an integer or a text of at most {LONGEST_ITEM} characters", item)


def _checked_k(k: object) -> int:
    if type(k) is not int or not 1 <= k <= MOST_K:
        raise _wrong("k", f"an integer from 1 to {MOST_K}", k)
    return k


def _wrong(name: str, expected: str, got: object) -> RequestError:
    return RequestError(422, f"{name}: expected {expected}, got {shown(got)}")


async def _body(request: Request) -> bytes:
    too_long = RequestError(413, f"the body: expected at most {LONGEST_BODY} bytes")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > LONGEST_BODY):
        raise too_long
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > LONGEST_BODY:
            raise too_long
    return b"".join(parts)


# ---------------------------------------------------------------------------- what is answered


def _listed(model: Exported, found: Best | None, **more: object) -> Response:
    if found is None:
        raise RequestError(
            409,
            "the session has no click on an item that the model knows, and the model's file does "
            "not tell which items are popular",
        )
    items = [model.item_ids[position] for position in found.positions.tolist()]
    return _json({"items": items, "scores": found.scores.tolist(), **more})


def _json(content: dict, status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type="application/json")
