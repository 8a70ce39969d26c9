"""What the server answers: the page, and for the page JSON and arrays of float32.

docs/explore.md lists the addresses. Every answer is made in the thread of a Worker.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import traceback
from collections.abc import Callable
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from xpnet.checks import expect_choice, is_integer, wrong
from xpnet.explore.describe import described
from xpnet.explore.guard import Guard
from xpnet.explore.session import WHO, ConflictError, Session
from xpnet.explore.trace import traced
from xpnet.explore.uploads import drawn, pictured
from xpnet.explore.worker import Worker

ALWAYS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
          "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin"}
JSON = {"Content-Type": "application/json"}
INLINE = re.compile(r"<(script|style)\b[^>]*>(.*?)</\1>", re.DOTALL)


class Call(NamedTuple):
    """A request: the numbers and names in its path and query, its body and the body's type."""

    path: dict[str, Any]
    query: dict[str, str]
    body: bytes
    kind: str

    @property
    def side(self) -> str:
        return self.query.get("side", "a")

    @property
    def gradient(self) -> bool:
        what = self.query.get("what", "value")
        return bool(expect_choice(WHO, "what", what, ("value", "gradient")) == "gradient")

    def json(self, *names: str) -> dict[str, Any]:
        """The body as an object of JSON with these fields, each of which may be missing."""
        try:
            found = json.loads(self.body or b"{}", parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{WHO}: expected an object of JSON. Received: none.") from error
        if not isinstance(found, dict) or not found.keys() <= {*names}:
            raise ValueError(f"{WHO}: expected an object of JSON with the fields "
                             f"{', '.join(names)}. Received: others.")
        return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


class Answers:
    """The functions that answer the requests of the page.

    Args:
        session: what the page shows.
        models: the names that `open` takes.
        reopen: places the network of such a name in the session.
    """

    def __init__(self, session: Session, models: list[str], reopen: Callable[[str], None]) -> None:
        self.session, self.models, self.reopen = session, models, reopen

    def model(self, call: Call) -> Any:
        return described(self.session, self.models)

    def input(self, call: Call) -> Any:
        session = self.session
        node = session.node(_integer("input", call.query.get("input")))
        nodes = session.sides["a"].net.ins.nodes
        if node not in nodes:
            raise wrong(WHO, "input to be the index of an Input", "input", session.index[node])
        number = nodes.index(node)
        if call.kind.startswith("image/"):
            x, source = pictured(call.body, node, session.ranges[number]), "file"
        else:
            x, source = drawn(call.body, node), "drawing"
        session.set_input(number, x, source)
        return session.state()

    def state(self, call: Call) -> Any:
        return self.session.state()

    def sample(self, call: Call) -> Any:
        given = call.json("index", "random")
        chosen = given.get("index")
        if given.get("random") is not True and chosen is None:
            raise ValueError(f"{WHO}: expected index, or random to be true. Received: neither.")
        self.session.set_sample(None if given.get("random") is True else chosen)
        return self.session.state()

    def node(self, call: Call) -> Any:
        session, gradient = self.session, call.gradient
        node = session.node(call.path["index"], call.side)
        side = session.differentiated(call.side) if gradient else session.computed(call.side)
        found = side.array(node, gradient)
        first = call.query.get("first")
        return found if first is None else found[:_integer("first", first)]

    def parameter(self, call: Call) -> Any:
        found = self.session.parameter(call.path["name"], call.side, call.gradient)
        if "row" not in call.query:
            return found
        row = _integer("row", call.query["row"])
        if row >= len(found):
            raise wrong(WHO, f"row from 0 to {len(found) - 1}", "row", row)
        return found[row]

    def statistics(self, call: Call) -> Any:
        return self.session.statistics(call.side)

    def trace(self, call: Call) -> Any:
        session = self.session
        node = session.node(call.path["index"], call.side)
        at = [_integer("at", part) for part in call.query.get("at", "").split(",")]
        return traced(session.computed(call.side), node, session.place_of(node, at))

    def target(self, call: Call) -> Any:
        session, given = self.session, call.json("class", "node", "at")
        if ("class" in given) == ("node" in given):
            raise ValueError(f"{WHO}: expected a class, or a node and the indices of an element. "
                             f"Received: {'both' if 'class' in given else 'neither'}.")
        if "class" in given:
            if not is_integer(given["class"], 0):
                raise wrong(WHO, "class to be a whole number", "class", given["class"])
            session.set_target(given["class"])
        else:
            node = session.node(given["node"])
            if node.layer is None:
                raise ValueError(f"{WHO}: expected an element of a layer's output. Received: one "
                                 "of an input.")
            session.set_target((node, session.place_of(node, given.get("at"))))
        return session.gradients()

    def train(self, call: Call) -> Any:
        trainer, given = self.session.trainer, call.json("action", "lr", "batch")
        if "action" in given:
            expect_choice(WHO, "action", given["action"], ("start", "pause", "step", "reset"))
        trainer.settings(given.get("lr"), given.get("batch"))
        if "action" in given:
            trainer.act(given["action"])
        return self.training(call)

    def training(self, call: Call) -> Any:
        session = self.session
        return session.trainer.as_json() | {"version": session.version, "network": session.number}

    def time(self, call: Call) -> Any:
        return self.session.time()

    def open(self, call: Call) -> Any:
        model = call.json("model").get("model")
        self.reopen(expect_choice(WHO, "model", model, self.models))
        return described(self.session, self.models)


def _integer(name: str, text: str | None) -> int:
    if text is None or not re.fullmatch(r"\d{1,9}", text):
        raise wrong(WHO, f"{name} to be whole numbers, 0 or larger", name, text)
    return int(text)


def application(answers: Answers, worker: Worker, token: str, port: int) -> Guard:
    """The ASGI application."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    def route(path: str, method: str, function: Callable[[Call], Any]) -> Route:
        async def endpoint(request: Request) -> Response:
            call = Call(dict(request.path_params), dict(request.query_params),
                        await request.body(), request.headers.get("content-type", ""))
            status, content, headers = await asyncio.wrap_future(
                worker.call(lambda: _answered(function, call, answers.session)))
            return Response(content, status, ALWAYS | headers)
        return Route(path, endpoint, methods=[method])

    async def page(request: Request) -> Response:
        text = (files("xpnet.explore") / "page.html").read_text(encoding="utf-8")
        return Response(text, 200, ALWAYS | {"Content-Security-Policy": policy(text)},
                        "text/html; charset=utf-8")

    async def unknown(request: Request, error: Exception) -> Response:
        # A ValueError is that of a number in the address with more digits than Python takes.
        status, what = 404, "a number with too many digits"
        if isinstance(error, HTTPException):
            status, what = error.status_code, error.detail.lower()
        text = json.dumps({"error": f"{WHO}: expected an address of the page. Received: {what}."})
        return Response(text, status, ALWAYS, "application/json")

    routes = [Route("/", page),
              route("/api/model", "GET", answers.model),
              route("/api/state", "GET", answers.state),
              route("/api/input", "POST", answers.input),
              route("/api/sample", "POST", answers.sample),
              route("/api/node/{index:int}", "GET", answers.node),
              route("/api/parameter/{name:path}", "GET", answers.parameter),
              route("/api/statistics", "GET", answers.statistics),
              route("/api/trace/{index:int}", "GET", answers.trace),
              route("/api/target", "POST", answers.target),
              route("/api/train", "GET", answers.training),
              route("/api/train", "POST", answers.train),
              route("/api/time", "GET", answers.time),
              route("/api/open", "POST", answers.open)]
    handlers = {HTTPException: unknown, ValueError: unknown}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token, port)


def _answered(function: Callable[[Call], Any], call: Call, session: Session
              ) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer; errors in one line."""
    try:
        found = function(call)
        if isinstance(found, np.ndarray):
            return 200, np.ascontiguousarray(found, "<f4").tobytes(), {
                "Content-Type": "application/octet-stream",
                "X-Shape": ",".join(map(str, found.shape)), "X-Version": str(session.version)}
        return 200, _json(found), JSON
    except ConflictError as error:
        status, found = 409, _error(error)
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        status, found = 400, _error(error)
    except Exception as error:          # a mistake of xpnet: its place helps to find it
        traceback.print_exc()
        status, found = 500, _error(error)
    return status, _json(found), JSON


def _json(found: Any) -> bytes:
    return json.dumps(found, allow_nan=False).encode()


def _error(error: Exception) -> dict[str, str]:
    return {"error": " ".join(str(error).split()) or type(error).__name__}


def policy(page: str) -> str:
    """The Content-Security-Policy of the page: its own scripts and styles, by their hashes, and
    requests to this server alone."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    allowed = {kind: " ".join(found) or "'none'" for kind, found in hashes.items()}
    return ("default-src 'none'; connect-src 'self'; img-src blob: data:; "
            f"script-src {allowed['script']}; style-src {allowed['style']}; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'")
