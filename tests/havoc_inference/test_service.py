"""Many callers at once: each gets its answer, a cancelled one frees its pages, a full queue says so."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from torch import Tensor

from havoc_core.errors import ConfigError
from havoc_inference.engine import Engine, EngineOptions
from havoc_inference.load import LoadedModel
from havoc_inference.request import Piece, Request
from havoc_inference.runner import Chunk, Runner
from havoc_inference.sampling import GREEDY, SamplingOptions
from havoc_inference.scheduler import Job, Limits, Scheduler
from havoc_inference.service import Answer, Busy, EngineService
from havoc_inference.vocabulary import Vocabulary

LONG = Request((0, 300), replace(GREEDY, max_new_tokens=90), ignore_end=True)


@asynccontextmanager
async def serving(engine: Engine, *, max_waiting: int = 256) -> AsyncIterator[EngineService]:
    service = EngineService(engine, max_waiting=max_waiting)
    service.start()
    try:
        yield service
    finally:
        await service.close(grace_s=0.0)


async def read(answer: Answer) -> list[Piece]:
    return [piece async for piece in answer]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_every_caller_gets_what_the_engine_gives_alone(loaded: LoadedModel) -> None:
    options = SamplingOptions(temperature=1.0, max_new_tokens=20)
    requests = [Request((0, 300 + at % 7), replace(options, seed=at % 3), stream=at % 2) for at in range(40)]

    async def ask() -> list[str]:
        async with serving(Engine(loaded)) as service:
            answers = await asyncio.gather(*(read(service.submit(request)) for request in requests))
        return ["".join(piece.text for piece in pieces) for pieces in answers]

    alone = ["".join(piece.text for piece in Engine(loaded).complete([request])[0]) for request in requests]
    assert asyncio.run(ask()) == alone


def test_what_is_cancelled_ends_and_frees_its_pages(loaded: LoadedModel) -> None:
    async def ask() -> None:
        async with serving(Engine(loaded, EngineOptions(max_running=4))) as service:
            draw = random.Random(0)
            for _ in range(200):
                answer = service.submit(LONG)
                reading = asyncio.create_task(read(answer))
                if draw.random() < 0.5:
                    await asyncio.sleep(0)
                answer.cancel()
                answer.cancel()
                await reading  # it ends
            await until(lambda: service.statistics().pages_used == 0)
            assert service.statistics().running == service.statistics().waiting == 0
            assert service.statistics().cancelled == 200
            (piece, *_) = await read(service.submit(replace(LONG, options=replace(GREEDY, max_new_tokens=1))))
            assert piece.finish_reason == "length"

    asyncio.run(ask())


def test_a_full_queue_is_refused_and_there_is_room_when_one_has_left(loaded: LoadedModel) -> None:
    async def ask() -> None:
        async with serving(Engine(loaded, EngineOptions(max_running=1)), max_waiting=1) as service:
            first, _second = service.submit(LONG), service.submit(LONG)
            with pytest.raises(Busy, match="the queue is full; ask again in 1 s"):
                service.submit(LONG)
            first.cancel()
            service.submit(LONG)

    asyncio.run(ask())


def test_a_prompt_that_cannot_be_computed_is_refused_at_once(loaded: LoadedModel) -> None:
    async def ask() -> None:
        async with serving(Engine(loaded)) as service:
            with pytest.raises(ConfigError, match="it has no tokens"):
                service.submit(Request((), GREEDY))
            assert service.statistics().waiting == 0

    asyncio.run(ask())


def test_closing_lets_answers_finish_and_refuses_new_ones(loaded: LoadedModel) -> None:
    async def ask() -> None:
        service = EngineService(Engine(loaded))
        service.start()
        reading = asyncio.create_task(read(service.submit(LONG)))
        closing = asyncio.create_task(service.close(grace_s=20.0))
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            service.submit(LONG)
        with pytest.raises(Busy):
            await service.embed([[0]])
        pieces = await reading
        await closing
        assert pieces[-1].finish_reason == "length"
        assert sum(len(piece.ids) for piece in pieces) == 90

    asyncio.run(ask())


def test_what_is_not_finished_in_time_is_cut_off(loaded: LoadedModel) -> None:
    async def ask() -> list[Piece]:
        service = EngineService(Engine(loaded))
        service.start()
        reading = asyncio.create_task(read(service.submit(LONG)))
        await service.close(grace_s=0.0)
        return await reading

    pieces = asyncio.run(ask())
    assert not pieces or pieces[-1].finish_reason is None


def test_embeddings_come_between_steps_and_errors_reach_their_caller(loaded: LoadedModel, engine: Engine) -> None:
    async def ask() -> None:
        async with serving(Engine(loaded)) as service:
            answer = service.submit(LONG)
            assert await service.embed([[0, 300]]) == engine.embed([[0, 300]])
            with pytest.raises(ConfigError, match="it has no tokens"):
                await service.embed([[]])
            assert (await read(answer))[-1].finish_reason == "length"

    asyncio.run(ask())


def test_an_embedding_that_waits_is_answered_when_the_service_closes(loaded: LoadedModel) -> None:
    """Regression: what had not been computed yet was waited for without end."""

    async def ask() -> None:
        service = EngineService(Engine(loaded))
        service.start()
        waiting = [asyncio.create_task(service.embed([[0, 300]] * 50)) for _ in range(20)]
        await asyncio.sleep(0)
        await service.close(grace_s=0.0)
        async with asyncio.timeout(10):
            found = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(each, Busy | list) for each in found)

    asyncio.run(ask())


def test_a_request_that_cannot_join_fails_alone(loaded: LoadedModel) -> None:
    """Regression: it ended the thread, and everyone waited."""

    class Refuses(Scheduler):
        def add(self, request: Request) -> Job:
            if request.stream == 7:
                raise MemoryError("on purpose")
            return super().add(request)

    async def ask() -> None:
        engine = Engine(loaded)
        vocabulary = Vocabulary.of(loaded.tokenizer, loaded.config.vocab_size)
        engine.scheduler = Refuses(engine.runner, vocabulary, max_length=96, limits=Limits())
        async with serving(engine) as service:
            other = service.submit(LONG)
            with pytest.raises(MemoryError, match="on purpose"):
                await read(service.submit(replace(LONG, stream=7)))
            assert (await read(other))[-1].finish_reason == "length"
            assert service.statistics().waiting == 0

    asyncio.run(ask())


def test_an_answer_that_was_read_has_nothing_more(loaded: LoadedModel) -> None:
    async def ask() -> None:
        async with serving(Engine(loaded)) as service:
            answer = service.submit(LONG)
            assert await read(answer)
            assert await read(answer) == []

    asyncio.run(ask())


class FailsOnce(Runner):
    """A runner with a bug that shows in its first step."""

    def __init__(self, inner: Runner) -> None:
        self._inner = inner
        self._failed = False
        self.num_pages, self.alignment = inner.num_pages, inner.alignment
        self.grows_exactly = inner.grows_exactly

    def logits(self, chunks: Sequence[Chunk]) -> Tensor:
        if not self._failed:
            self._failed = True
            raise RuntimeError("on purpose")
        return self._inner.logits(chunks)


def test_a_bug_in_a_step_reaches_who_waits_and_the_next_is_served(loaded: LoadedModel) -> None:
    engine = Engine(loaded)
    vocabulary = Vocabulary.of(loaded.tokenizer, loaded.config.vocab_size)
    engine.scheduler = Scheduler(FailsOnce(engine.runner), vocabulary, max_length=engine.max_seq_len, limits=Limits())

    async def ask() -> None:
        async with serving(engine) as service:
            with pytest.raises(RuntimeError, match="on purpose"):
                await read(service.submit(LONG))
            assert (await read(service.submit(LONG)))[-1].finish_reason == "length"
            assert service.statistics().pages_used == 0

    asyncio.run(ask())
