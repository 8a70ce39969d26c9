"""Files from the network: checked first, then put in place in one step."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from xpnet.io.files import write_atomically

from .idx import unpack

_TIMEOUT = 60  # seconds without a byte


def fetch(urls: Sequence[str], path: Path, sha256: str) -> None:
    """Download the first of `urls` that delivers a file whose unpacked content has this SHA-256, and keep it at `path`.

    The hash is of the unpacked content because the same content packs into different archives.
    Raises OSError with the reason for each address.
    Whatever goes wrong, `path` is as it was and nothing lies beside it.
    """
    reasons = []
    for url in urls:
        print(f"xpnet: downloading {url}", file=sys.stderr)
        try:
            content = _checked(_download(url), sha256, path.name)
        except (OSError, ValueError) as error:
            reasons.append(f"{url}: {error}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        return
    raise OSError(
        f"fetch '{path.name}': expected one address to deliver the file. Received:\n  " + "\n  ".join(reasons)
        + "\nRemedy: try again, or name a folder that has the file (data_dir, --data-dir or XPNET_HOME)."
    )


def _download(url: str) -> bytes:
    # Imported here because urllib brings http, email and ssl along, which `import xpnet` should not pay for.
    from http.client import HTTPException
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=_TIMEOUT) as response:
            return response.read()
    except HTTPException as error:  # a connection that broke off is none of Python's OSErrors
        raise OSError(f"the download broke off ({error!r})") from error


def _checked(content: bytes, sha256: str, name: str) -> bytes:
    received = hashlib.sha256(unpack(content, name)).hexdigest()
    if received != sha256:
        raise ValueError(f"expected content with SHA-256 {sha256}. Received: {received}")
    return content
