"""The one encoding that the lines of a file are in which are not UTF-8: the same for every range of it."""

from __future__ import annotations

from dataclasses import replace

from havoc_data.encoding import DETECTED_BYTES, found_encoding
from havoc_data.inputs import Input


class FileEncoding:
    """Looks for the encoding when it is first asked for, which for most files is never.

    Args:
        item: the file, or a range of it.
        wanted: whether to look at all.
    """

    def __init__(self, item: Input, *, wanted: bool) -> None:
        self._item = item
        self._known = not wanted
        self._encoding: str | None = None
        self.hint = ""
        """What to add to a refusal: how to install what finds encodings, if it is missing."""

    def of(self, raw: bytes) -> str | None:
        """The encoding, by Python's name; None if it is not known.

        Args:
            raw: lines that are not UTF-8, looked at where the first MiB of the file holds none.
        """
        if not self._known:
            self._known = True
            with replace(self._item, start=0, end=None, stamp=None).open() as file:
                head = file.read(DETECTED_BYTES)
            self._encoding, self.hint = found_encoding(head[: head.rfind(b"\n") + 1])
            if self._encoding is None and not self.hint:
                self._encoding, self.hint = found_encoding(raw)
        return self._encoding
