"""What every request has to pass: host, origin, token, and the size of its body.

A page of another site can send requests to this machine, too. It cannot read the token, and a
domain that leads to 127.0.0.1 (DNS rebinding) is another host.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MOST_BYTES = 8 << 20            # of a body
MOST_READ = 64 << 20            # of a larger one, so that its sender reads the answer


class Guard:
    """An ASGI application that refuses requests, or passes them with the whole body to another one.

    Args:
        app: the other application.
        token: what the query of the page, and the header X-Token of everything else, has to be.
        port: where the server listens.
    """

    def __init__(self, app: Any, token: str, port: int) -> None:
        self.app, self.token = app, token.encode()
        self.hosts = f"127.0.0.1:{port}", f"localhost:{port}"
        self.origins = tuple(f"http://{host}" for host in self.hosts)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        reason = self._refused(scope)
        if reason is not None:
            await answer(send, 403, f"explore: expected {reason}.")
            return
        body = await _body(receive)
        if body is None:
            return                      # the sender has gone
        if len(body) > MOST_BYTES:
            await answer(send, 413, f"explore: expected at most {MOST_BYTES >> 20} MiB. "
                                    "Received: more.")
            return
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)

    def _refused(self, scope: Message) -> str | None:
        """What was expected of the head of a request and what came; None if nothing is wrong."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        host = headers.get(b"host", [])
        if len(host) != 1 or host[0].decode("latin-1") not in self.hosts:
            return f"the host {self.hosts[0]}. Received: another"
        origins = headers.get(b"origin", [])
        if any(origin.decode("latin-1") not in self.origins for origin in origins):
            return "a request of the page. Received: one of another origin"
        if scope["path"] == "/":
            given = [token.encode() for token in
                     parse_qs(scope["query_string"].decode("latin-1")).get("token", [])]
        else:
            given = headers.get(b"x-token", [])
        if len(given) != 1 or not hmac.compare_digest(given[0], self.token):
            return ("the token of this session; open the address that xpnet explore printed. "
                    "Received: none, or another")
        return None


async def _body(receive: Receive) -> bytes | None:
    """The whole body; of one that is too large only the beginning is kept."""
    parts, size, more = [], 0, True
    while more and size <= MOST_READ:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        if size <= MOST_BYTES:
            parts.append(part)
        size += len(part)
        more = message.get("more_body", False)
    return b"".join(parts)


async def answer(send: Send, status: int, error: str) -> None:
    """An error in one line."""
    body = json.dumps({"error": error}).encode()
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-type", b"application/json"),
                            (b"content-length", str(len(body)).encode()),
                            (b"cache-control", b"no-store"), (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
