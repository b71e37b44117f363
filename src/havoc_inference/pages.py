"""Which pages of the cache belong to whom.

Keys and values lie in pages of a fixed number of tokens. A text owns the pages it needs and no more; texts that begin with
the same tokens share the pages of their beginning. Kwon et al. 2023, arXiv:2309.06180.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np


class PagePool:
    """Hands pages out and takes them back; a page that may be met again keeps its content until the room is needed.

    Args:
        num_pages: in all.
        page_size: tokens in a page.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self._empty = list(range(num_pages - 1, -1, -1))
        self._owners = [0] * num_pages
        self._names: dict[int, bytes] = {}
        """Page -> the name of everything up to its end, for full pages that can be shared."""
        self._by_name: dict[bytes, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        """Named pages that nobody owns, the longest unused first."""

    @property
    def num_free(self) -> int:
        """Pages that can be had now; some of them would be forgotten."""
        return len(self._empty) + len(self._idle)

    @property
    def num_owned(self) -> int:
        """Pages that texts own now."""
        return self.num_pages - self.num_free

    def take(self) -> int | None:
        """A page for new content, owned once; None if all are owned."""
        if self._empty:
            page = self._empty.pop()
        elif self._idle:
            page, _ = self._idle.popitem(last=False)
            del self._by_name[self._names.pop(page)]
        else:
            return None
        self._owners[page] = 1
        return page

    def find(self, names: Sequence[bytes]) -> list[int]:
        """Own the pages of these names, as far from the beginning as they are known."""
        found: list[int] = []
        for name in names:
            page = self._by_name.get(name)
            if page is None:
                break
            self._idle.pop(page, None)
            self._owners[page] += 1
            found.append(page)
        return found

    def name(self, page: int, name: bytes) -> None:
        """Let a full page be found. Where another has the name already, that one stays the one that is found."""
        if name not in self._by_name and page not in self._names:
            self._names[page] = name
            self._by_name[name] = page

    def release(self, pages: Sequence[int]) -> None:
        """Give pages back. The last ones are forgotten first: a beginning is met more often than an end."""
        for page in reversed(pages):
            self._owners[page] -= 1
            assert self._owners[page] >= 0, "a page is given back once by each owner"
            if self._owners[page] == 0:
                if page in self._names:
                    self._idle[page] = None
                else:
                    self._empty.append(page)


class PageNames:
    """Names of the full pages of one text that grows; a name stands for all tokens up to the page's end.

    Args:
        page_size: tokens in a page.
    """

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._names: list[bytes] = []

    def of(self, ids: Sequence[int]) -> list[bytes]:
        """One name for each full page of a text that begins as it did at the last call."""
        for number in range(len(self._names), len(ids) // self._page_size):
            inside = np.asarray(ids[number * self._page_size : (number + 1) * self._page_size], dtype=np.int64)
            before = self._names[-1] if self._names else b""
            self._names.append(hashlib.blake2b(before + inside.tobytes(), digest_size=16).digest())
        return self._names[: len(ids) // self._page_size]
