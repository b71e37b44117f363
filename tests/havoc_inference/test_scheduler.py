"""Requests join, leave and give way, and each gets what it would get alone; no page is lost."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from havoc_core.errors import CheckpointError, HavocError
from havoc_core.model import place_weights
from havoc_core.models import havoc
from havoc_inference import cpu_runner
from havoc_inference.engine import Engine, EngineOptions
from havoc_inference.grammar import ANY_OBJECT
from havoc_inference.load import LoadedModel
from havoc_inference.request import Piece, Request
from havoc_inference.runner import PAGE_SIZE
from havoc_inference.sampling import GREEDY, SamplingOptions
from havoc_inference.scheduler import Job, Scheduler, scores_of

ONE_BY_ONE = EngineOptions(max_running=1, max_step_tokens=96)


def run(scheduler: Scheduler, requests: list[Request]) -> list[list[Piece]]:
    jobs = [scheduler.add(request) for request in requests]
    out: dict[int, list[Piece]] = {id(job): [] for job in jobs}
    for _ in range(10_000):
        for job, piece in scheduler.step():
            assert isinstance(piece, Piece), piece
            out[id(job)].append(piece)
        if not scheduler.num_running and not scheduler.num_waiting:
            return [out[id(job)] for job in jobs]
    raise AssertionError("it does not end")


def made(pieces: list[Piece]) -> tuple[str, list[int], list[float], str | None]:
    """Everything that an answer says, however it was cut into pieces."""
    scores = [score for piece in pieces for score in piece.scores]
    prompt = [score for piece in pieces for score in piece.prompt_scores]
    return (
        "".join(piece.text for piece in pieces),
        [token for piece in pieces for token in piece.ids],
        [score.log_prob for score in [*prompt, *scores] if score],
        pieces[-1].finish_reason,
    )


def random_request(draw: random.Random) -> Request:
    """Prompts that often begin alike, and every option there is."""
    beginning = [0, *range(300, 300 + draw.choice([0, 20, 40]))]
    prompt = [*beginning, *(draw.randrange(256, 600) for _ in range(draw.randrange(1, 30)))]
    prompt = prompt[: draw.choice([16, 17, 32, 33, 96])]
    options = SamplingOptions(
        temperature=draw.choice([0.0, 0.7, 1.5]),
        top_k=draw.choice([None, 5, 50]),
        top_p=draw.choice([None, 0.9]),
        repetition_penalty=draw.choice([1.0, 1.0, 1.3]),
        presence_penalty=draw.choice([0.0, 0.5]),
        frequency_penalty=draw.choice([0.0, 0.0, 0.5]),
        logit_bias=draw.choice([(), ((300, 4.0), (301, -100.0))]),
        seed=draw.randrange(5),
        max_new_tokens=draw.choice([0, 1, 5, 40]),
    )
    return Request(
        tuple(prompt),
        options,
        stream=draw.randrange(3),
        ignore_end=draw.random() < 0.2,
        json_schema=draw.choice([None, None, None, ANY_OBJECT]),
        stop=draw.choice([(), (), ("e",), ("th", "zz")]),
        top_log_probs=draw.choice([None, 0, 3]),
        score_prompt=draw.random() < 0.2,
    )


@pytest.mark.parametrize(("room", "step_tokens", "running"), [(96, 16, 8), (200, 7, 5), (4096, 256, 64)])
def test_each_gets_alone_and_in_a_crowd_the_same_bits(
    loaded: LoadedModel, either: Engine, room: int, step_tokens: int, running: int
) -> None:
    """With little room texts give way and are read again; torch, whose shapes would differ then, gets enough of it."""
    compiled = type(either.runner).__name__ == "CpuRunner"
    draw = random.Random(room)
    requests = [random_request(draw) for _ in range(60 if compiled else 20)]
    options = EngineOptions(
        max_cached_tokens=room if compiled else 8192,
        max_step_tokens=step_tokens,
        max_running=running,
        compiled=compiled,
    )
    crowd = Engine(loaded, options).scheduler
    together = [made(pieces) for pieces in run(crowd, requests)]
    alone = [
        made(run(Engine(loaded, replace(ONE_BY_ONE, compiled=compiled)).scheduler, [request])[0])
        for request in requests
    ]
    assert together == alone
    assert crowd.pool.num_owned == 0
    assert crowd.counters.generated_tokens >= sum(len(ids) for _, ids, _, _ in together)
    if compiled and room == 96:
        assert crowd.counters.preempted > 0
    if compiled and room == 200:
        assert crowd.counters.cached_prompt_tokens > 0


def test_a_thousand_requests_that_are_cancelled_anywhere_leave_no_page_and_change_no_other(loaded: LoadedModel) -> None:
    draw = random.Random(1)
    engine = Engine(loaded, EngineOptions(max_cached_tokens=1024, max_running=16))
    scheduler = engine.scheduler
    kept = [random_request(draw) for _ in range(20)]
    wanted = [made(pieces) for pieces in run(Engine(loaded).scheduler, kept)]
    waiting = [(request, True) for request in kept] + [(random_request(draw), False) for _ in range(1000)]
    draw.shuffle(waiting)
    live: list[Job] = []
    out: dict[Request, list[Piece]] = {}
    keepers: dict[Job, Request] = {}
    while waiting or scheduler.num_running or scheduler.num_waiting:
        for _ in range(min(len(waiting), draw.randrange(20))):
            request, keep = waiting.pop()
            job = scheduler.add(request)
            if keep:
                keepers[job] = request
            else:
                live.append(job)
        draw.shuffle(live)
        for job in [live.pop() for _ in range(min(len(live), draw.randrange(20)))]:
            scheduler.cancel(job)
            scheduler.cancel(job)  # twice is once
        for job, piece in scheduler.step():
            assert isinstance(piece, Piece)
            if job in keepers:
                out.setdefault(keepers[job], []).append(piece)
    assert [made(out[request]) for request in kept] == wanted
    assert scheduler.pool.num_owned == 0
    assert scheduler.pool.num_free == scheduler.pool.num_pages


def test_a_beginning_that_was_computed_is_not_computed_again(loaded: LoadedModel) -> None:
    scheduler = Engine(loaded).scheduler
    first = Request((0, *range(300, 350)), replace(GREEDY, max_new_tokens=3))
    run(scheduler, [first])
    assert scheduler.counters.cached_prompt_tokens == 0
    run(scheduler, [replace(first, prompt=(*first.prompt[:40], 400, 401))])
    assert scheduler.counters.cached_prompt_tokens == 40 // PAGE_SIZE * PAGE_SIZE


def test_texts_that_grow_never_wait_for_more_than_a_chunk_of_a_prompt(loaded: LoadedModel) -> None:
    scheduler = Engine(loaded, EngineOptions(max_step_tokens=17, compiled=True)).scheduler
    growing = scheduler.add(Request((0, 300), replace(GREEDY, max_new_tokens=60), ignore_end=True))
    scheduler.step()
    scheduler.add(Request((0, *range(300, 380)), replace(GREEDY, max_new_tokens=1)))
    lengths = []
    for _ in range(6):
        scheduler.step()
        lengths.append(len(growing.ids))
    assert lengths == list(range(lengths[0], lengths[0] + 6))  # a token with every step


def test_a_prompt_is_read_however_many_texts_grow(loaded: LoadedModel) -> None:
    """Regression: texts that grow used the budget of prompts up, and a prompt waited until one of them ended."""
    scheduler = Engine(loaded, EngineOptions(max_step_tokens=16, max_running=32)).scheduler
    growing = Request((0, 300), replace(GREEDY, max_new_tokens=90), ignore_end=True)
    for stream in range(24):
        scheduler.add(replace(growing, stream=stream))
    for _ in range(4):
        scheduler.step()
    late = scheduler.add(Request((0, *range(300, 340)), replace(GREEDY, max_new_tokens=1)))
    ended = [
        job for _ in range(3) for job, piece in scheduler.step() if isinstance(piece, Piece) and piece.finish_reason
    ]
    assert ended == [late]


def test_a_prompt_that_waits_for_room_is_served_when_there_is_some(loaded: LoadedModel) -> None:
    scheduler = Engine(loaded, EngineOptions(max_cached_tokens=96, max_running=4)).scheduler
    long = Request((0, *range(300, 380)), replace(GREEDY, max_new_tokens=10))
    answers = run(scheduler, [long, replace(long, stream=1), long])
    assert made(answers[0]) == made(answers[1]) == made(answers[2])


def test_a_prompt_that_is_only_scored_generates_nothing(loaded: LoadedModel) -> None:
    request = Request((0, 300, 301), replace(GREEDY, max_new_tokens=0), top_log_probs=0, score_prompt=True)
    (pieces,) = run(Engine(loaded).scheduler, [request])
    assert [(piece.text, piece.ids, piece.finish_reason) for piece in pieces] == [("", (), "length")]
    assert [score and score.id for score in pieces[0].prompt_scores] == [None, 300, 301]


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 32, 33])
@pytest.mark.parametrize("scored", [False, True])
def test_nothing_to_generate_ends_also_where_the_beginning_is_known(either: Engine, length: int, scored: bool) -> None:
    """Regression: a text that was known up to its last token, which is not needed, was waited for without end."""
    request = Request((0, *range(300, 299 + length)), replace(GREEDY, max_new_tokens=0), score_prompt=scored)
    for _ in range(3):
        (pieces,) = run(either.scheduler, [request])
        assert pieces[-1].finish_reason == "length"
        assert len(pieces[-1].prompt_scores) == (length if scored else 0)


def test_a_shared_beginning_leaves_room_for_others(loaded: LoadedModel) -> None:
    """Regression: pages that a text would find counted as if it needed them, and four ran where sixteen fit."""
    scheduler = Engine(loaded, EngineOptions(max_cached_tokens=26 * PAGE_SIZE, max_step_tokens=96)).scheduler
    beginning = (0, *range(300, 363))
    long = [Request((*beginning, 400 + at), replace(GREEDY, max_new_tokens=8), ignore_end=True) for at in range(10)]
    run(scheduler, long[:1])
    for request in long:
        scheduler.add(request)
    scheduler.step()
    shares = cpu_runner.is_supported(loaded.model, loaded.config)
    assert scheduler.num_running == (10 if shares else 4)
    while scheduler.num_running or scheduler.num_waiting:
        scheduler.step()
    assert scheduler.counters.preempted == 0


def test_no_more_are_let_in_than_there_are_pages_for(loaded: LoadedModel) -> None:
    """Regression: pages are taken as texts are read, and until then they were promised to everyone."""
    scheduler = Engine(loaded, EngineOptions(max_cached_tokens=10 * PAGE_SIZE)).scheduler
    for at in range(6):
        scheduler.add(Request((0, *range(300 + at, 350 + at)), replace(GREEDY, max_new_tokens=2)))
    scheduler.step()
    assert scheduler.num_running == 2
    while scheduler.num_running or scheduler.num_waiting:
        scheduler.step()
    assert scheduler.counters.preempted == 0


def test_what_was_generated_is_reused_only_where_it_is_exact(loaded: LoadedModel, either: Engine) -> None:
    """Regression: torch's numbers of tokens that came one by one served as a prompt's, which differ in the last bits."""
    first = Request((0, *range(300, 340)), replace(GREEDY, max_new_tokens=50), ignore_end=True)
    (pieces,) = run(either.scheduler, [first])
    whole = (*first.prompt, *(token for piece in pieces for token in piece.ids))[:88]
    again = Request(whole, replace(GREEDY, max_new_tokens=3), top_log_probs=3)
    fresh = Engine(loaded, EngineOptions(compiled=either.runner.grows_exactly)).scheduler
    assert made(run(either.scheduler, [again])[0]) == made(run(fresh, [again])[0])
    assert (either.scheduler.counters.cached_prompt_tokens > 0) == either.runner.grows_exactly


def test_a_text_without_finite_logits_ends_alone(loaded: LoadedModel, poisoned: LoadedModel) -> None:
    """Regression: it ended all that were part of its step."""
    healthy = [Request((0, at), replace(GREEDY, max_new_tokens=20)) for at in (300, 301)]
    wanted = [made(pieces) for pieces in run(Engine(loaded).scheduler, healthy)]
    scheduler = Engine(poisoned).scheduler
    jobs = [scheduler.add(request) for request in (healthy[0], Request((0, 600), GREEDY), healthy[1])]
    while scheduler.num_running or scheduler.num_waiting:
        scheduler.step()
    pieces = [[event for event in jobs[at].inbox if isinstance(event, Piece)] for at in (0, 2)]
    assert [made(each) for each in pieces] == wanted
    assert [type(event) for event in jobs[1].inbox] == [CheckpointError]
    assert scheduler.pool.num_owned == 0


def test_without_an_end_a_text_goes_on_to_its_last_token(loaded: LoadedModel) -> None:
    always_ends = Request((0,), replace(GREEDY, max_new_tokens=30, logit_bias=((1, 100.0),)))
    scheduler = Engine(loaded).scheduler
    (ended,) = run(scheduler, [always_ends])
    assert (made(ended)[1], made(ended)[3]) == ([], "stop")
    (went_on,) = run(scheduler, [replace(always_ends, ignore_end=True)])
    assert (len(made(went_on)[1]), made(went_on)[3]) == (30, "length")


def test_a_model_without_finite_numbers_ends_every_request_and_leaves_no_page(loaded: LoadedModel) -> None:
    weights = {name: values.clone() for name, values in loaded.model.state_dict().items()}
    weights["model.norm.weight"][0] = torch.nan
    model = havoc.build(loaded.config)
    place_weights(model, weights, dtype=torch.float32, device=torch.device("cpu"))
    scheduler = Engine(replace(loaded, model=model)).scheduler
    jobs = [scheduler.add(Request((0, number), GREEDY)) for number in (300, 301)]
    events: list[tuple[Job, Piece | HavocError]] = scheduler.step()
    assert {id(job) for job, _ in events} == {id(job) for job in jobs}
    assert all(isinstance(error, CheckpointError) for _, error in events)
    assert scheduler.pool.num_owned == scheduler.num_running == scheduler.num_waiting == 0


def test_scores_are_log_probabilities_of_the_whole_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    (score,) = scores_of(logits, [0], 2)
    assert score.log_prob == pytest.approx(float(logits.log_softmax(-1)[0, 0]))
    assert [token for token, _ in score.top] == [2, 1]
    assert scores_of(logits, [2], 1)[0].top[0][1] == scores_of(logits, [2], 1)[0].log_prob  # the identical number
