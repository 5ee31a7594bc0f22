"""A file that has come in part, and when it may go on (RFC 9110, HTTP semantics)."""

import json
import re
from contextlib import suppress
from email.message import Message
from pathlib import Path

from dt_jax.utils.files import remove_leftovers, write_text


class Part:
    """What there is of a file, and a note beside it of what it is a part of.

    Attributes:
      url: where the file lies.
      file: what has come of it, from its start.
      validator: what the server calls this version of the file; None if it has no name
        for it that ranges can rely on.
      total: the length of the whole file in bytes; None if the server doesn't say.
    """

    def __init__(self, url: str, path: Path):
        """Find what an earlier process has left of `url` beside `path`.

        Only one process at a time may have a part of the same file.
        """
        self.url = url
        self.file = path.with_name(f".{path.name}.part")
        self._note = path.with_name(f".{path.name}.part.json")
        remove_leftovers(self._note)
        self.validator: str | None = None
        self.total: int | None = None
        # Without a note, or with a damaged one, the file will be begun anew.
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            note = json.loads(self._note.read_text())
            if note["url"] == url:
                self.validator, self.total = str(note["validator"]), int(note["total"])

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self.file.stat().st_size if self.file.exists() else 0

    @property
    def is_whole(self) -> bool:
        """Whether the whole announced length is there."""
        return self.size == self.total

    @property
    def can_go_on(self) -> bool:
        """Whether there is something that the rest of the file can be appended to."""
        return bool(self.validator and self.total and 0 < self.size < self.total)

    def range_headers(self) -> dict[str, str]:
        """Return what asks for the rest, or for all of a file that has changed."""
        if not self.can_go_on:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": str(self.validator)}

    def goes_on_with(self, headers: Message) -> bool:
        """Whether an answer with status 206 and these `headers` is the very rest."""
        # Section 15.3.7 lets an answer to If-Range leave out Last-Modified.
        validator = headers["ETag"] or headers["Last-Modified"] or self.validator
        expected = rf"bytes {self.size}-\d+/{self.total}"
        right_range = re.fullmatch(expected, headers["Content-Range"] or "")
        return self.can_go_on and validator == self.validator and bool(right_range)

    def begin(self, headers: Message, total: int | None) -> None:
        """Leave what there was, for the file that is announced by `headers`."""
        self.forget()
        self.validator, self.total = _validator(headers), total
        if self.validator and total:
            note = {"url": self.url, "validator": self.validator, "total": total}
            write_text(self._note, json.dumps(note))

    def forget(self) -> None:
        """Leave nothing that could be gone on with."""
        # The note first: it must never be found beside the bytes of another file.
        self._note.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


def _validator(headers: Message) -> str | None:
    """Return what section 13.1.5 lets stand in If-Range, if there is such a thing."""
    if etag := headers["ETag"]:
        return None if etag.startswith("W/") else etag
    modified = headers["Last-Modified"]
    # A file that was changed within this second may be changed again within it.
    return None if modified == headers["Date"] else modified
