"""The page on the loopback address: started, waited for, closed."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import webbrowser
from typing import TYPE_CHECKING, Any, Self

from xpnet.checks import (
    expect_flag,
    expect_instance,
    expect_name,
    expect_seed,
    is_integer,
    wrong,
)
from xpnet.explore.opening import NAMED, WHO, compared, named
from xpnet.explore.session import Session
from xpnet.explore.worker import Worker
from xpnet.network import Network

if TYPE_CHECKING:
    from xpnet.data import Dataset

HOST = "127.0.0.1"
PATIENCE = 1.0          # seconds for what is under way when the server closes


def explore(net: Network, data: Dataset | None = None, *, compare: str | None = None,
            name: str | None = None, port: int = 0, browser: bool = True, wait: bool = True,
            seed: int = 0) -> Explorer:
    """Show a network in the browser: its feature maps, filters, statistics and gradients for an
    input that you draw, how each element is computed, and its training.

    The page is at http://127.0.0.1:PORT/, with a token, and no request leaves the machine.
    docs/explore.md describes it. Training in the page trains `net` itself.

    Args:
        net: the network.
        data: a Dataset to show samples of and to train on.
        compare: a backend, or a file with a network of the same structure, to show beside `net`.
        name: how the page calls the network; "network" by default.
        port: 0 takes a free one.
        browser: whether the browser is opened.
        wait: whether the call returns after Ctrl-C; with False it returns at once, and the page is
            there until `close` of the Explorer, or the end of the program.
        seed: of the samples that the page draws at random, and of networks that it opens.

    Raises:
        ImportError: starlette or uvicorn is not installed.
        OSError: the port is in use.
        ValueError: `compare` is neither a backend nor such a file.
    """
    browser, wait = expect_flag(WHO, "browser", browser), expect_flag(WHO, "wait", wait)
    explorer = Explorer(net, data, compare=compare, name=name, port=port, seed=seed)
    try:
        print(f"{explorer.url}\nCtrl-C ends it" if wait else explorer.url, flush=True)
        if browser:
            webbrowser.open(explorer.url)
        if wait:
            explorer.wait()
    except KeyboardInterrupt:
        if not wait:
            raise
    finally:
        if wait:
            explorer.close()
    return explorer


class Explorer:
    """A page that is being served. It ends with `close`, with the `with` statement, or with the
    program.

    Args:
        net, data, compare, name, port, seed: see `explore`.

    Attributes:
        url: the address of the page, with its token.
    """

    def __init__(self, net: Network, data: Dataset | None = None, *, compare: str | None = None,
                 name: str | None = None, port: int = 0, seed: int = 0) -> None:
        try:
            import starlette  # noqa: F401 - server.py needs it
            import uvicorn
        except ImportError as error:
            raise ImportError(f"{WHO}: expected starlette and uvicorn, which serve the page. "
                              f'Received: {error}. Remedy: pip install "xpnet[explore]"') from error
        from xpnet.explore.server import Answers, application
        expect_instance(WHO, "net", net, Network, "a Network")
        net.expect_whole(WHO)
        if data is not None:
            from xpnet.data import Dataset
            expect_instance(WHO, "data", data, Dataset, "None or a Dataset")
        self.seed, name = expect_seed(WHO, seed), expect_name(WHO, "name", name)
        if not (is_integer(port, 0, 0) or is_integer(port, 1024, 65535)):
            raise wrong(WHO, "port to be 0, for a free one, or from 1024 to 65535", "port", port)
        other, mirror = None, False
        if compare is not None:
            expect_instance(WHO, "compare", compare, str, "the name of a backend or of a file")
            other, mirror = compared(net, compare)
        self.data = data
        self.session = Session(net, data, other=other, what=compare, mirror=mirror,
                               name=name or "network", seed=self.seed)
        self._socket = _listening(int(port))
        port = self._socket.getsockname()[1]
        token = secrets.token_urlsafe(24)
        self.url = f"http://{HOST}:{port}/?token={token}"
        self.worker = Worker(lambda: self.session.trainer.step())
        app: Any = application(Answers(self.session, [*NAMED], self._reopen), self.worker, token,
                               port)
        self._server = uvicorn.Server(uvicorn.Config(
            app, log_level="critical", access_log=False, lifespan="off", ws="none", loop="asyncio",
            http="h11", server_header=False, timeout_graceful_shutdown=int(PATIENCE)))
        self._thread = threading.Thread(target=self._server.run, name="xpnet explore server",
                                        kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()

    def _reopen(self, model: str) -> None:
        """Show a network of xpnet.models, for the samples of the data set if it can take them."""
        backend = self.session.sides["a"].net.backend
        try:
            net = named(model, data=self.data, backend=backend, seed=self.seed)
        except ValueError:
            net = named(model, backend=backend, seed=self.seed)
        what = self.session.what if self.session.mirror else None
        other, mirror = compared(net, what) if what else (None, False)
        self.session.place(net, self.data, other=other, what=what, mirror=mirror, name=model)

    def wait(self) -> None:
        """Return when the server has ended. Ctrl-C raises KeyboardInterrupt."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def close(self) -> None:
        """End the server, and the training in the page."""
        self.worker.close()
        self._server.should_exit = True
        self._thread.join(2 * PATIENCE)
        self.worker.join(PATIENCE)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        address = self.url.partition("?")[0]        # without the token
        return f"<Explorer of {self.session.sides['a'].net!r} at {address}>"


def _listening(port: int) -> socket.socket:
    """A socket on the loopback address."""
    # With the protocol, for which asyncio sets TCP_NODELAY: else each answer takes 40 ms.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if port and os.name == "posix":      # elsewhere it lets two servers share a port
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
        found.listen(128)
    except OSError as error:
        found.close()
        raise OSError(f"{WHO}: expected a free port. Received: port={port} ({error.strerror})."
                      ) from error
    return found
