"""Answers of the engine, several at once, for as long as somebody waits for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.types import Message

from havoc_core.errors import ConfigError
from havoc_inference.request import Piece, Request
from havoc_inference.server.errors import ClientLeft, translated
from havoc_inference.server.metrics import Metrics
from havoc_inference.service import Answer, Busy, EngineService

_T = TypeVar("_T")
_Item = tuple[int, Piece | Exception | None]


class Answers:
    """Answers to several requests. All are handed to the engine at once, or none is.

    Args:
        service: the engine.
        requests: what is asked; at least one.
        metrics: told when the first piece comes.

    Raises:
        ApiError: 400 the engine refuses a request, 429 its queue is full.
    """

    def __init__(self, service: EngineService, requests: Sequence[Request], *, metrics: Metrics) -> None:
        self._answers: list[Answer] = []
        self._metrics = metrics
        try:
            for request in requests:
                self._answers.append(service.submit(request))
        except (ConfigError, Busy) as error:
            self.cancel()
            param = "response_format" if isinstance(error, ConfigError) and error.where == "json_schema" else "prompt"
            raise translated(error, param=param if isinstance(error, ConfigError) else None) from None

    def cancel(self) -> None:
        """Give back the slots of all answers that are not finished."""
        for answer in self._answers:
            answer.cancel()

    async def pieces(self) -> AsyncGenerator[tuple[int, Piece], None]:
        """(number of the request, piece), in the order in which they come. Closed early, it cancels what is left.

        Raises:
            HavocError: the model failed.
        """
        started, first = time.perf_counter(), True
        try:
            async with aclosing(self._merged()) as merged:
                async for number, piece in merged:
                    if first:
                        self._metrics.first_token.observe(time.perf_counter() - started)
                        first = False
                    yield number, piece
        finally:
            self.cancel()

    async def _merged(self) -> AsyncGenerator[tuple[int, Piece], None]:
        queue: asyncio.Queue[_Item] = asyncio.Queue(maxsize=len(self._answers))
        readers = [asyncio.create_task(_read(number, answer, queue)) for number, answer in enumerate(self._answers)]
        left = len(readers)
        try:
            while left:
                number, item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    left -= 1
                else:
                    yield number, item
        finally:
            await _cancelled(readers)


async def _read(number: int, answer: Answer, queue: asyncio.Queue[_Item]) -> None:
    try:
        async for piece in answer:
            await queue.put((number, piece))
        await queue.put((number, None))
    except Exception as error:  # raised again where the pieces are read
        await queue.put((number, error))


async def while_connected(
    receive: Callable[[], Awaitable[Message]], work: Coroutine[Any, Any, _T], *, timeout_s: float
) -> _T:
    """What `work` gives, unless the client leaves or the time is over: then the work is cancelled.

    Args:
        receive: of the request, whose body has been read.
        work: the rest of the answer.
        timeout_s: for it.

    Raises:
        ClientLeft: the client did.
        TimeoutError: the time is over.
    """
    job, watch = asyncio.create_task(work), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({job, watch}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        if watch.done():
            raise ClientLeft
        raise TimeoutError
    finally:
        await _cancelled([job, watch])


async def _left(receive: Callable[[], Awaitable[Message]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
