"""The folder where datasets are kept, and how files get into it."""

import http.client
import os
import ssl
import sys
import urllib.error
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import platformdirs
from rich.console import Console
from rich.progress import wrap_file

from dt_jax.errors import UserError
from dt_jax.files import replacing

_CHUNK = 1 << 20  # bytes
_TIMEOUT = 60  # seconds without an answer
_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)


def cache_folder() -> Path:
    """Return where datasets are kept: DT_JAX_DATA, or else the user's cache folder."""
    if folder := os.environ.get("DT_JAX_DATA"):
        return Path(folder).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("dt_jax"))


def download(url: str, path: Path) -> None:
    """Fetch `url` to `path`, which is there afterwards in full or not at all.

    Raises:
      UserError: there is no network, the server refuses, or it sends less than it
        announced; the line says which file to put where by hand.
    """
    try:
        with replacing(path) as part:
            _fetch(url, part)
    except _NETWORK_ERRORS as error:
        raise UserError(
            f"{url} could not be downloaded ({_reason(error)}); "
            f"fetch {path.name} from there by other means and put it at {path}"
        ) from None


def _fetch(url: str, part: Path) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
        announced = response.headers.get("Content-Length")
        with part.open("wb") as file, _shown(response, announced, url) as source:
            while chunk := source.read(_CHUNK):
                file.write(chunk)
            received = file.tell()
    if announced is not None and received != int(announced):
        raise ConnectionError(f"it ended after {received} of {announced} bytes")


def _shown(
    response: BinaryIO, announced: str | None, url: str
) -> AbstractContextManager[BinaryIO]:
    """Show the reading of `response`: a bar on a terminal, else one line."""
    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"downloading {url} ({announced or 'unknown'} bytes)", file=sys.stderr)
    return wrap_file(
        response,
        total=int(announced or 0),
        description=url.rsplit("/", 1)[-1],
        console=console,
        disable=not console.is_terminal,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it holds the connection
        return f"the server answers {error.code} {error.reason}"
    return str(getattr(error, "reason", "") or error) or type(error).__name__
