"""An engine that many ask at once: one thread steps it, and everybody else waits without blocking.

event loop    submit, cancel, read pieces
one thread    joins and leaves, a step, what is new goes back to the loop
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from havoc_core.log import LOGGER
from havoc_inference.engine import Engine
from havoc_inference.request import Piece, Request
from havoc_inference.scheduler import Job

_RETRY_AFTER_S = 1


class Busy(Exception):  # noqa: N818 - nothing is wrong: there is no room now
    """There is no room for another request, or the service is closing.

    Args:
        retry_after_s: when to ask again.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the queue is full; ask again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class ServiceStatistics:
    """Where the service stands, and what it did since its start."""

    running: int
    waiting: int
    pages_used: int
    pages_total: int
    prompt_tokens: int
    cached_prompt_tokens: int
    generated_tokens: int
    preempted: int
    cancelled: int


class Answer:
    """The pieces of one request, as they come. The last one has a `finish_reason`; after `cancel` there is none.

    Iterating raises what ended the request, where the model failed: a HavocError, unless the bug is ours.
    """

    def __init__(self, request: Request, cancel: Callable[[Answer], None]) -> None:
        self.request = request
        self._cancel = cancel
        self._pieces: asyncio.Queue[Piece | Exception | None] = asyncio.Queue()
        self._is_over = False
        self._is_read = False

    def cancel(self) -> None:
        """Stop it; its pages are free at the next step. May be called at any time, and twice."""
        if not self._is_over:
            self._is_over = True
            self._pieces.put_nowait(None)
            self._cancel(self)

    def put(self, piece: Piece | Exception) -> None:
        """For the service: one more piece, or what went wrong."""
        if not self._is_over:
            self._is_over = isinstance(piece, Exception) or piece.finish_reason is not None
            self._pieces.put_nowait(piece)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while not self._is_read:
            piece = await self._pieces.get()
            self._is_read = piece is None or isinstance(piece, Exception) or piece.finish_reason is not None
            if isinstance(piece, Exception):
                raise piece
            if piece is not None:
                yield piece


class EngineService:
    """Steps an engine in a thread of its own. Every method is called from the event loop that called `start`.

    Args:
        engine: which nobody else uses from now on.
        max_waiting: requests that may wait for room; one more is refused.
    """

    def __init__(self, engine: Engine, *, max_waiting: int = 256) -> None:
        self.engine = engine
        """For what computes nothing: its tokenizer, its limits."""
        self._max_waiting = max_waiting
        self._wakes = threading.Condition()
        self._asked: deque[Callable[[], None]] = deque()
        """What the thread is to do before its next step."""
        self._jobs: dict[Job, Answer] = {}
        self._by_answer: dict[Answer, Job] = {}
        self._open: set[Answer] = set()
        self._embedding: set[asyncio.Future[list[list[float]]]] = set()
        self._is_closing = self._is_stopping = False
        self._num_cancelled = 0
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to work."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self, *, grace_s: float = 30.0) -> None:
        """Refuse what is new, let what runs finish for so long, then stop."""
        self._is_closing = True
        deadline = asyncio.get_running_loop().time() + grace_s
        while (self._open or self._embedding) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        for answer in list(self._open):
            answer.cancel()
        with self._wakes:
            self._is_stopping = True
            self._wakes.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        for result in self._embedding:
            if not result.done():
                result.set_exception(Busy(_RETRY_AFTER_S))

    def submit(self, request: Request) -> Answer:
        """Let a request join.

        Raises:
            ConfigError: it cannot be computed (see `Engine.check`).
            Busy: too many wait already, or the service is closing.
        """
        if (
            self._is_closing
            or not self._thread.is_alive()
            or len(self._open) >= self._max_waiting + self.engine.max_running
        ):
            raise Busy(_RETRY_AFTER_S)
        self.engine.check(request)
        answer = Answer(request, self._forget)
        self._open.add(answer)
        self._ask(lambda: self._join(answer))
        return answer

    async def embed(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """`Engine.embed`, between two steps.

        Raises:
            ConfigError: as `Engine.embed`.
            Busy: the service is closing.
        """
        if self._is_closing:
            raise Busy(_RETRY_AFTER_S)
        loop = asyncio.get_running_loop()
        result: asyncio.Future[list[list[float]]] = loop.create_future()

        def settle(value: list[list[float]] | Exception) -> None:
            if result.done():
                return
            if isinstance(value, Exception):
                result.set_exception(value)
            else:
                result.set_result(value)

        def compute() -> None:
            value: list[list[float]] | Exception
            try:
                value = self.engine.embed(rows)
            except Exception as error:  # whatever it is, it belongs to the one who waits
                value = error
            loop.call_soon_threadsafe(settle, value)

        self._embedding.add(result)
        self._ask(compute)
        try:
            return await result
        finally:
            self._embedding.discard(result)

    def statistics(self) -> ServiceStatistics:
        """Now; numbers of one moment to within a step."""
        scheduler = self.engine.scheduler
        counters = scheduler.counters
        return ServiceStatistics(
            running=scheduler.num_running,
            waiting=max(0, len(self._open) - scheduler.num_running),
            pages_used=scheduler.pool.num_owned,
            pages_total=scheduler.pool.num_pages,
            prompt_tokens=counters.prompt_tokens,
            cached_prompt_tokens=counters.cached_prompt_tokens,
            generated_tokens=counters.generated_tokens,
            preempted=counters.preempted,
            cancelled=self._num_cancelled,
        )

    def _forget(self, answer: Answer) -> None:
        self._open.discard(answer)
        self._num_cancelled += 1
        self._ask(lambda: self._leave(answer))

    def _ask(self, what: Callable[[], None]) -> None:
        with self._wakes:
            self._asked.append(what)
            self._wakes.notify()

    # What follows runs in the thread.

    def _work(self) -> None:
        while True:
            with self._wakes:
                while not (self._asked or self._jobs or self._is_stopping):
                    self._wakes.wait()
                if self._is_stopping:
                    return
                asked = list(self._asked)
                self._asked.clear()
            for what in asked:
                what()
            if self._jobs:
                self._step()

    def _join(self, answer: Answer) -> None:
        try:
            job = self.engine.scheduler.add(answer.request)
        except Exception as error:  # whatever it is, it belongs to this one
            self._tell([(answer, error)])
            return
        self._jobs[job], self._by_answer[answer] = answer, job

    def _leave(self, answer: Answer) -> None:
        job = self._by_answer.pop(answer, None)
        if job is not None:
            self._jobs.pop(job, None)
            self.engine.scheduler.cancel(job)

    def _step(self) -> None:
        try:
            self._give(self.engine.scheduler.step())
        except Exception as error:
            # A bug of ours must reach those who wait, and must not end the thread under those who come later.
            LOGGER.exception("A step of the engine failed")
            jobs = list(self._jobs)
            for job in jobs:
                self.engine.scheduler.cancel(job)
            self._give([(job, error) for job in jobs])

    def _give(self, events: Sequence[tuple[Job, Piece | Exception]]) -> None:
        given: list[tuple[Answer, Piece | Exception]] = []
        for job, piece in events:
            answer = self._jobs.get(job)
            if answer is None:
                continue
            given.append((answer, piece))
            if isinstance(piece, Exception) or piece.finish_reason is not None:
                del self._jobs[job]
                del self._by_answer[answer]
        self._tell(given)

    def _tell(self, given: Sequence[tuple[Answer, Piece | Exception]]) -> None:
        if given and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hand_out, given)

    # And this in the event loop again.

    def _hand_out(self, given: Sequence[tuple[Answer, Piece | Exception]]) -> None:
        for answer, piece in given:
            answer.put(piece)
            if isinstance(piece, Exception) or piece.finish_reason is not None:
                self._open.discard(answer)
