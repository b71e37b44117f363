"""Tokens of an answer -> its text as it can be shown: whole characters, and nothing that may become a stop string."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from havoc_inference.request import TokenScore


@dataclass(frozen=True)
class _Pending:
    id: int
    score: TokenScore | None
    begin: int
    """Characters before the one that this token begins or goes on with."""


class TextStream:
    """Text of one answer, token by token.

    Args:
        bytes_of: bytes of a token.
        stop: texts that end the answer.
    """

    def __init__(self, bytes_of: Callable[[int], bytes], *, stop: Sequence[str]) -> None:
        self._bytes_of = bytes_of
        self._stop = [text for text in stop if text]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._given = 0
        """Characters that were given out."""
        self._pending: deque[_Pending] = deque()
        self.stopped = False
        """Whether a stop string came; what was after it is gone."""

    def add(self, token: int, score: TokenScore | None) -> tuple[str, list[int], list[TokenScore]]:
        """One more token: the text that is certain now, and the tokens that it is made of with their scores."""
        self._pending.append(_Pending(token, score, self._given + len(self._held)))
        fresh = self._decoder.decode(self._bytes_of(token))
        return self._take(fresh)

    def finish(self) -> tuple[str, list[int], list[TokenScore]]:
        """No token comes any more: the rest; bytes that are no UTF-8 become U+FFFD."""
        if self.stopped:
            return "", [], []
        text, ids, scores = self._take(self._decoder.decode(b"", final=True))
        if self.stopped:
            return text, ids, scores
        rest, self._held = self._held, ""
        self._given += len(rest)
        for left in self._pending:
            ids.append(left.id)
            scores += [left.score] if left.score else []
        self._pending.clear()
        return text + rest, ids, scores

    def _take(self, fresh: str) -> tuple[str, list[int], list[TokenScore]]:
        searched_from = max(0, len(self._held) - max(map(len, self._stop), default=0) + 1)
        self._held += fresh
        found = [at for at in (self._held.find(text, searched_from) for text in self._stop) if at >= 0]
        if found:
            self.stopped = True
            certain = min(found)
        else:
            certain = len(self._held) - self._may_become_stop()
        text, self._held = self._held[:certain], self._held[certain:]
        self._given += len(text)
        return text, *self._release()

    def _may_become_stop(self) -> int:
        """Characters at the end that a stop string may begin with."""
        for length in range(min(len(self._held), max(map(len, self._stop), default=1) - 1), 0, -1):
            end = self._held[-length:]
            if any(text.startswith(end) for text in self._stop):
                return length
        return 0

    def _release(self) -> tuple[list[int], list[TokenScore]]:
        ids: list[int] = []
        scores: list[TokenScore] = []
        # A token whose character is not complete begins where nothing has been given yet, and waits.
        while self._pending and self._pending[0].begin < self._given:
            first = self._pending.popleft()
            ids.append(first.id)
            scores += [first.score] if first.score else []
        if self.stopped:
            self._pending.clear()
        return ids, scores
