"""Many requests at once: which tokens of which text go through the model in a step.

Requests join and leave between steps. Every step takes one token of each text that grows, then tokens of prompts up to a
budget, so that a long prompt delays nobody by more than a chunk (Agrawal et al. 2024, arXiv:2403.02310). When pages run out,
the text that came last gives its pages back and is read again later; its draws go on where they were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from havoc_core.errors import HavocError
from havoc_inference.pages import PageNames, PagePool
from havoc_inference.request import FinishReason, Piece, Request, TokenScore
from havoc_inference.runner import PAGE_SIZE, Chunk, Runner
from havoc_inference.sampling import Constraint, RowSampler, choose, has_finite_logits, not_finite
from havoc_inference.text_stream import TextStream
from havoc_inference.vocabulary import Vocabulary


@dataclass(frozen=True)
class Limits:
    """Of a step and of the room."""

    max_running: int = 64
    """Texts that grow at once."""
    max_step_tokens: int = 64
    """Tokens of prompts that go through the model in a step, beside one of each text that grows: how long those wait."""


@dataclass
class Counters:
    """What happened since the start."""

    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    """Tokens of prompts that were found in pages and not computed again."""
    generated_tokens: int = 0
    preempted: int = 0
    """Texts that gave their pages back to be read again."""


class Job:
    """One request on its way. Callers keep it to cancel; everything else is the scheduler's."""

    def __init__(
        self, request: Request, vocabulary: Vocabulary, *, max_length: int, constraint: Constraint | None = None
    ) -> None:
        self.request = request
        self.ids = list(request.prompt)
        """The prompt and what was generated."""
        self.pages: list[int] = []
        self.num_computed = 0
        """Tokens whose keys and values are in the pages."""
        self.names = PageNames(PAGE_SIZE)
        self.left = min(request.options.max_new_tokens, max_length - len(request.prompt))
        self.sampler = RowSampler(
            request.options,
            stream=request.stream,
            prompt=request.prompt,
            vocab_size=vocabulary.size,
            constraint=constraint,
        )
        self.text = TextStream(vocabulary.bytes_of, stop=request.stop)
        self.num_scored = 0
        """Tokens of the prompt that have their score, or can have none."""
        self.prompt_scores: list[TokenScore | None] = []
        """Those that were not given out yet."""
        self.num_named = 0
        """Pages that can be found by others."""
        self.num_read = 0
        """Tokens that were known when it got its place: they are read in chunks, what comes later one by one."""
        self.number = 0
        """Its place among all that ever came."""
        self.inbox: deque[Piece | HavocError] = deque()
        """What came of it and was not taken yet."""
        self.is_counted = False

    @property
    def scores_prompt(self) -> bool:
        """Whether log-probabilities of the prompt's tokens are still to come."""
        return self.request.score_prompt and self.num_scored < len(self.request.prompt)

    @property
    def num_to_compute(self) -> int:
        """Tokens that must go through the model: all, but for a prompt that is only scored, whose last one is not needed."""
        return len(self.ids) if self.request.options.max_new_tokens else max(1, len(self.ids) - 1)

    @property
    def grows(self) -> bool:
        """Whether a single token, the newest, is left to compute."""
        return self.num_computed == len(self.ids) - 1 and len(self.ids) > len(self.request.prompt)


Event = tuple[Job, Piece | HavocError]


class Scheduler:
    """Steps requests through a runner.

    Args:
        runner: what computes.
        vocabulary: what may be generated, and what ends a text.
        max_length: tokens of context, prompt and answer together.
        limits: of a step.
        constrain: a JSON schema -> what it forbids; None where no request has one.
    """

    def __init__(
        self,
        runner: Runner,
        vocabulary: Vocabulary,
        *,
        max_length: int,
        limits: Limits,
        constrain: Callable[[str], Constraint] | None = None,
    ) -> None:
        self._constrain = constrain
        self._runner = runner
        self._vocabulary = vocabulary
        self._max_length = max_length
        self._limits = limits
        self.pool = PagePool(runner.num_pages, PAGE_SIZE)
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._num_added = 0
        self.counters = Counters()

    @property
    def num_running(self) -> int:
        """Requests that own pages."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Requests that wait for room."""
        return len(self._waiting)

    def add(self, request: Request) -> Job:
        """Let a request join; it has been checked."""
        constraint = None
        if request.json_schema is not None:
            assert self._constrain is not None, "a request with a schema needs somebody who reads it"
            constraint = self._constrain(request.json_schema)
        job = Job(request, self._vocabulary, max_length=self._max_length, constraint=constraint)
        self._num_added += 1
        job.number = self._num_added
        self._waiting.append(job)
        return job

    def cancel(self, job: Job) -> None:
        """Let a request leave; its pages are free at once. One that has ended already is left alone."""
        if job in self._running:
            self._leave(job)
        elif job in self._waiting:
            self._waiting.remove(job)

    def step(self) -> list[Event]:
        """Compute once: what is new in every text that moved, also left in its inbox. An error of the model ends those
        whom it concerns."""
        self._admit()
        chunks = self._plan()
        if not chunks:
            return []
        events: list[Event] = []
        try:
            self._after(chunks, self._runner.logits([chunk for _, chunk in chunks]), events)
        except HavocError as error:
            for job, _ in chunks:
                if job in self._running:
                    self._leave(job)
                    events.append((job, error))
        for job, event in events:
            job.inbox.append(event)
        return events

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._limits.max_running:
            job = self._waiting[0]
            job.pages = self._shared_beginning(job)
            # With some room to grow for those who run, or they would take back at once what was given.
            promised = sum(_num_pages(len(one.ids)) - len(one.pages) for one in self._running) + len(self._running)
            if self._running and self.pool.num_free < _num_pages(len(job.ids)) - len(job.pages) + promised:
                self.pool.release(job.pages)
                job.pages = []
                return
            self._waiting.popleft()
            self._running.append(job)
            job.num_computed, job.num_read = len(job.pages) * PAGE_SIZE, len(job.ids)
            if not job.is_counted:
                job.is_counted = True
                self.counters.prompt_tokens += len(job.request.prompt)
                self.counters.cached_prompt_tokens += job.num_computed

    def _shared_beginning(self, job: Job) -> list[int]:
        """Pages of what was computed before, owned by this text too."""
        if job.scores_prompt:
            return []  # the logits of every token are wanted
        step = self._runner.alignment // PAGE_SIZE
        # The last token is always computed: its logits are what comes next.
        most = (job.num_to_compute - 1) // self._runner.alignment * step
        found = self.pool.find(job.names.of(job.ids)[:most])
        keep = len(found) // step * step
        self.pool.release(found[keep:])
        return found[:keep]

    def _plan(self) -> list[tuple[Job, Chunk]]:
        """One token of each text that grows, then prompts, the oldest first, up to the budget."""
        budget = self._limits.max_step_tokens
        chunks: list[tuple[Job, Chunk]] = []
        for job in sorted(self._running, key=lambda one: not one.grows):
            if job not in self._running:  # it has given its pages to one before it
                continue
            end = self._end_of_chunk(job, budget)
            if end == job.num_computed or not self._make_room(job, end, planned=chunks):
                continue
            if not job.grows:
                budget -= end - job.num_computed
            chunks.append((job, self._chunk(job, end)))
        return chunks

    def _end_of_chunk(self, job: Job, budget: int) -> int:
        """How far a text gets in this step; where it stands if not at all."""
        end, alignment = job.num_to_compute, self._runner.alignment
        if job.grows or end - job.num_computed <= budget:
            return end
        aligned = (job.num_computed + budget) // alignment * alignment
        # Where even the whole budget is no aligned chunk, a step still takes one: else no prompt would ever be read.
        if budget == self._limits.max_step_tokens:
            aligned = max(aligned, job.num_computed // alignment * alignment + alignment)
        return min(end, max(aligned, job.num_computed))

    def _chunk(self, job: Job, end: int) -> Chunk:
        start = job.num_computed
        # Logits of a token score the one after it; those of the last one say what comes next.
        wanted = range(end - start) if job.scores_prompt else range(end - start - (end == len(job.ids)), end - start)
        return Chunk(job.ids[start:end], start, job.pages, wanted)

    def _make_room(self, job: Job, end: int, *, planned: Sequence[tuple[Job, Chunk]]) -> bool:
        """Give a text the pages up to `end`; of those not planned yet the one that came last gives way. False if it is
        this one."""
        while len(job.pages) * PAGE_SIZE < end:
            page = self.pool.take()
            if page is not None:
                job.pages.append(page)
                continue
            busy = {id(one) for one, _ in planned}
            last = max((one for one in self._running if id(one) not in busy), key=lambda one: one.number)
            self._preempt(last)
            if last is job:
                return False
        return True

    def _preempt(self, job: Job) -> None:
        self._leave(job)
        job.num_computed = job.num_named = 0
        self._waiting.appendleft(job)
        self.counters.preempted += 1

    def _leave(self, job: Job) -> None:
        self._running.remove(job)
        self.pool.release(job.pages)
        job.pages = []

    def _after(self, chunks: Sequence[tuple[Job, Chunk]], logits: Tensor, events: list[Event]) -> None:
        drawing: list[tuple[Job, int]] = []
        row = 0
        for job, chunk in chunks:
            rows = logits[row : row + len(chunk.wanted)]
            row += len(chunk.wanted)
            job.num_computed = chunk.start + len(chunk.ids)
            self._name_pages(job)
            if job.scores_prompt:
                self._score_prompt(job, chunk, rows)
            if job.num_computed == job.num_to_compute:
                if job.left > 0:
                    drawing.append((job, row - 1))
                else:
                    events.append((job, self._finish(job, "length")))
        if drawing:
            at = torch.tensor([row for _, row in drawing])
            self._draw([job for job, _ in drawing], logits[at], events)

    def _name_pages(self, job: Job) -> None:
        known = job.num_computed
        if not self._runner.grows_exactly:
            known = min(known, job.num_read // self._runner.alignment * self._runner.alignment)
        full = known // PAGE_SIZE
        if full > job.num_named:
            names = job.names.of(job.ids[: full * PAGE_SIZE])
            for number in range(job.num_named, full):
                self.pool.name(job.pages[number], names[number])
            job.num_named = full

    def _score_prompt(self, job: Job, chunk: Chunk, rows: Tensor) -> None:
        if chunk.start == 0:
            job.prompt_scores, job.num_scored = [None], 1  # also where it is read again from the beginning
        following = job.request.prompt[chunk.start + 1 : chunk.start + 1 + len(rows)]
        job.prompt_scores += scores_of(rows[: len(following)], following, job.request.top_log_probs or 0)
        job.num_scored += len(following)

    def _draw(self, jobs: Sequence[Job], logits: Tensor, events: list[Event]) -> None:
        finite = has_finite_logits(logits)
        if not all(finite):
            for job, is_finite in zip(jobs, finite, strict=True):
                if not is_finite:
                    self._leave(job)
                    events.append((job, not_finite()))
            jobs = [job for job, is_finite in zip(jobs, finite, strict=True) if is_finite]
            logits = logits[torch.tensor(finite)]
        if not jobs:
            return
        tokens = choose(logits, [one.sampler for one in jobs], forbidden=self._vocabulary.forbidden)
        self.counters.generated_tokens += len(tokens)
        for row, (job, token) in enumerate(zip(jobs, tokens, strict=True)):
            top = job.request.top_log_probs
            score = None if top is None else scores_of(logits[row : row + 1], [token], top)[0]
            piece = self._take(job, token, score)
            if piece is not None:
                events.append((job, piece))

    def _take(self, job: Job, token: int, score: TokenScore | None) -> Piece | None:
        """What a new token gives to show; None if nothing yet."""
        if token in self._vocabulary.ends and not job.request.ignore_end:
            # A grammar that broke forbids all but the end: what it leaves is cut off, not finished.
            return self._finish(job, "length" if job.sampler.is_broken else "stop")
        job.ids.append(token)
        job.left -= 1
        text, ids, scores = job.text.add(token, score)
        if job.text.stopped or job.left == 0:
            return self._finish(job, "stop" if job.text.stopped else "length", (text, ids, scores))
        return self._piece(job, (text, ids, scores), None) if ids or job.prompt_scores else None

    def _finish(
        self,
        job: Job,
        reason: FinishReason,
        before: tuple[str, list[int], list[TokenScore]] = ("", [], []),
    ) -> Piece:
        text, ids, scores = job.text.finish()
        self._leave(job)
        if job.text.stopped:
            reason = "stop"
        return self._piece(job, (before[0] + text, before[1] + ids, before[2] + scores), reason)

    def _piece(self, job: Job, new: tuple[str, list[int], list[TokenScore]], reason: FinishReason | None) -> Piece:
        text, ids, scores = new
        prompt_scores, job.prompt_scores = tuple(job.prompt_scores), []
        return Piece(text, tuple(ids), tuple(scores), prompt_scores, reason)


def _num_pages(num_tokens: int) -> int:
    return -(-num_tokens // PAGE_SIZE)


def scores_of(logits: Tensor, tokens: Sequence[int], num_top: int) -> list[TokenScore]:
    """Log-probabilities of tokens and of the most probable ones beside them.

    Args:
        logits: [n, V] float32, unchanged by any option.
        tokens: n ids.
        num_top: how many of the most probable ones.
    """
    log_probs = logits.log_softmax(-1)
    own = log_probs.gather(1, torch.tensor(tokens, dtype=torch.int64)[:, None])[:, 0].tolist()
    top = log_probs.topk(min(num_top, log_probs.shape[1]), dim=1) if num_top else None
    values = top.values.tolist() if top else [[] for _ in tokens]
    ids = top.indices.tolist() if top else [[] for _ in tokens]
    return [
        TokenScore(token, mine, tuple(zip(ids[row], values[row], strict=True)))
        for row, (token, mine) in enumerate(zip(tokens, own, strict=True))
    ]
