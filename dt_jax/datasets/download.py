"""Downloads that go on where they stopped, and end in a whole file or in none."""

import http.client
import os
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from dt_jax.data.cache import alone_with, record_sha256, sha256_of
from dt_jax.datasets.part import Part
from dt_jax.utils.errors import UserError, printable

_CHUNK = 1 << 20  # bytes: the most read at once, the least that counts as progress
_TIMEOUT = 30  # seconds without a byte
_TRICKLE = 1 << 16  # bytes: as few as that, or fewer, within ...
_PATIENCE = 60  # seconds, and the line counts as broken
_HTTPS_TIMEOUT = 5  # seconds to answer whether there is https
_PAUSES = (1, 2, 4, 8, 16)  # seconds before each new try


class _FetchError(Exception):
    """The file can't be had, for the reason that the message gives."""


class _BrokenOffError(_FetchError):
    """The same, but another try may go better."""


class _UnreachableError(_BrokenOffError):
    """The same, where there was not even a connection."""


def download(url: str, path: Path, check: Callable[[Path], object]) -> None:
    """Fetch `url` to `path`, which is there afterwards in full or not at all.

    What has come stays in a hidden part file beside `path`, even if the process is
    killed; the next call goes on from there if the server says that its file is still
    the same. What is whole and passes `check` gets its name, and `<name>.sha256` beside
    it. Of two processes that want one file the second waits; a file that is there
    already is left alone.

    An http:// url is tried by https first, on the same host and port. Where the host
    doesn't answer to that, http is what the url asks for, and refusing it would stop
    nobody who meddles with the line: they could as well block https. The same goes for
    a certificate that can't be trusted (it has run out, or a proxy looks into TLS), but
    then one line says so. For an https:// url such a certificate is an error.

    Args:
      url: http:// or https://.
      path: where to.
      check: is given the whole file, under another name; raises a UserError if it is
        of no use.

    Raises:
      UserError: there is no network, the server refuses or breaks off again and again,
        the disk has too little room, or what came is of no use; the line says what to
        do.
    """
    with alone_with(path, "downloading"):
        if path.exists():
            return
        part = Part(url, path)
        try:
            if not part.is_whole:
                _fill(part, _by_https(url))
            _check(part, check)
        except _FetchError as error:
            goes_on = "the same command goes on where it stopped; or " * part.can_go_on
            raise UserError(
                f"{url} could not be downloaded ({error}); {goes_on}fetch {path.name} "
                f"from there by other means and put it at {path}"
            ) from None
        # The record first: nothing that was downloaded is ever without one.
        record_sha256(path, sha256_of(part.file))
        part.file.replace(path)
        part.forget()


def _by_https(url: str) -> str:
    """Return `url` with https where its host answers to that, else as it is."""
    if not url.startswith("http://"):
        return url
    secure = f"https://{url.removeprefix('http://')}"
    question = urllib.request.Request(secure, method="HEAD")
    try:
        with _open(question, _HTTPS_TIMEOUT):
            return secure
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        return secure if error.code >= 500 else url
    except (OSError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            _tell(f"going on by http, for {secure} can't be trusted ({_reason(error)})")
        return url


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Goes on to http and https; to http only from there."""

    def redirect_request(
        self, asked: urllib.request.Request, body: Any, *answer: Any
    ) -> urllib.request.Request | None:
        url = answer[-1]
        if urlsplit(url).scheme not in {"https", asked.type}:
            body.close()  # it holds the connection
            raise urllib.error.URLError(f"it leads to {url}, which is not followed")
        return super().redirect_request(asked, body, *answer)


def _open(request: urllib.request.Request, timeout: float) -> Any:
    return urllib.request.build_opener(_Redirects).open(request, timeout=timeout)


def _fill(part: Part, url: str) -> None:
    """Try until the file is whole, or several tries in a row made no progress."""
    tries, furthest = 0, part.size
    with _bar(part) as show:
        while True:
            try:
                with _ask(part, url) as response:
                    _accept(part, response)
                    _receive(part, response, show)
                return
            except _BrokenOffError as error:
                if part.size >= furthest + _CHUNK:
                    tries, furthest = 0, part.size
                # Who has no network at all need not wait to be told.
                at_once = tries == 0 and isinstance(error, _UnreachableError)
                if at_once or tries == len(_PAUSES):
                    raise
                _tell(f"{url}: {error}; trying again in {_PAUSES[tries]} s")
            time.sleep(_PAUSES[tries])
            tries += 1


def _ask(part: Part, url: str) -> http.client.HTTPResponse:
    """Ask for what is missing."""
    try:
        request = urllib.request.Request(url, headers=part.range_headers())
        return _open(request, _TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"the server answers {error.code} {error.reason}"
        if error.code == 416 and part.can_go_on:  # there is no such range
            part.forget()
        elif error.code != 429 and error.code < 500:
            raise _FetchError(reason) from None
        raise _BrokenOffError(reason) from None
    except urllib.error.URLError as error:
        raise _UnreachableError(_reason(error)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(_reason(error)) from None


def _accept(part: Part, response: http.client.HTTPResponse) -> None:
    """Make `part` what the body of `response` is to be appended to."""
    if response.status == 200:
        part.begin(response.headers, response.length)
    elif response.status != 206:
        raise _FetchError(f"the server answers {response.status} {response.reason}")
    elif not part.goes_on_with(response.headers):
        part.forget()
        raise _BrokenOffError("what the server sends is not the rest of the same file")
    if part.size:
        _tell(f"{response.url}: going on at byte {part.size} of {part.total}")
    else:
        _tell(f"downloading {response.url} ({part.total or 'unknown'} bytes)")
    folder = part.file.parent
    needed, free = (part.total or 0) - part.size, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{response.url} needs {needed:,} bytes, and {folder} has {free:,} free; "
            "make room there, or set DT_JAX_DATA to a folder elsewhere"
        )


def _receive(
    part: Part, response: http.client.HTTPResponse, show: Callable[[], None]
) -> None:
    with part.file.open("ab") as file:
        came, since = 0, time.monotonic()
        while chunk := _read(response):
            file.write(chunk)
            show()
            came += len(chunk)
            if time.monotonic() - since > _PATIENCE:
                if came <= _TRICKLE:
                    raise _BrokenOffError(f"only {came} bytes came in {_PATIENCE} s")
                came, since = 0, time.monotonic()
        file.flush()
        os.fsync(file.fileno())
    if part.total is not None and not part.is_whole:
        raise _BrokenOffError(f"it ended after {part.size} of {part.total} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        # Unlike read(), which waits for all of it, this loses nothing on a timeout.
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(_reason(error)) from None


def _check(part: Part, check: Callable[[Path], object]) -> None:
    try:
        check(part.file)
    except UserError as error:
        why = str(error).replace(str(part.file), "what came")
        part.forget()
        raise _FetchError(why) from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error) or type(error).__name__


@contextmanager
def _bar(part: Part) -> Iterator[Callable[[], None]]:
    """Yield what brings the bar up to date; outside a terminal there is none."""
    console = Console(stderr=True)
    with Progress(
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(part.url.rsplit("/", 1)[-1], total=None)
        yield lambda: bar.update(task, completed=part.size, total=part.total)


def _tell(line: str) -> None:
    print(printable(line), file=sys.stderr)
