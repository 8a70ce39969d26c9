"""A page that is being served, and a client that has its token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from xpnet.explore import Explorer


@dataclass
class Page:
    """What the page does: requests with the token."""

    explorer: Explorer
    client: Any

    def json(self, path: str, body: Any = None, **options: Any) -> Any:
        """The answer, which has to be without an error."""
        answer = self.request(path, body, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def request(self, path: str, body: Any = None, **options: Any) -> Any:
        if body is None:
            return self.client.get(path, **options)
        if isinstance(body, bytes):
            return self.client.post(path, content=body, **options)
        return self.client.post(path, json=body, **options)

    def array(self, path: str) -> np.ndarray:
        answer = self.request(path)
        assert answer.status_code == 200, answer.text
        shape = [int(n) for n in answer.headers["X-Shape"].split(",")]
        return np.frombuffer(answer.content, "<f4").reshape(shape)

    def draw(self, x: np.ndarray, number: int = 0) -> Any:
        return self.json(f"/api/input?input={number}", x.astype("<f4").tobytes())


def starting() -> Iterator[Callable[..., Page]]:
    """A function that starts pages, which end when the generator does."""
    for package in "starlette", "uvicorn":
        pytest.importorskip(package, reason=f"{package} is not installed; it serves the page")
    httpx = pytest.importorskip("httpx", reason="httpx is not installed; it asks the server")
    pages = []

    def start(*arguments: Any, **options: Any) -> Page:
        explorer = Explorer(*arguments, **options)
        url, _, token = explorer.url.partition("/?token=")
        client = httpx.Client(base_url=url, headers={"X-Token": token}, trust_env=False, timeout=60)
        pages.append(Page(explorer, client))
        return pages[-1]

    yield start
    for page in pages:
        page.client.close()
        page.explorer.close()


serve = pytest.fixture(starting, name="serve")
serve_module = pytest.fixture(starting, name="serve_module", scope="module")
