"""A loaded model at work: text that goes on, answers, and how probable a text is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from havoc_core import chat_format
from havoc_core.errors import ConfigError, HavocError
from havoc_core.labels import IGNORE_INDEX
from havoc_core.loss import label_log_probs
from havoc_core.tokenizer import Tokenizer
from havoc_inference import cpu_runner
from havoc_inference.grammar import JsonGrammars
from havoc_inference.load import LoadedModel
from havoc_inference.request import FinishReason, Piece, Request, TokenScore
from havoc_inference.runner import PAGE_SIZE, Runner, TorchRunner
from havoc_inference.sampling import GREEDY, Constraint, SamplingOptions
from havoc_inference.scheduler import Job, Limits, Scheduler
from havoc_inference.vocabulary import Vocabulary


@dataclass(frozen=True)
class EngineOptions:
    """Room and manner of an engine."""

    max_cached_tokens: int = 32_768
    """Tokens of all texts together whose keys and values are kept; the model's context at least."""
    max_running: int = 64
    """Texts that grow at once."""
    max_step_tokens: int | None = None
    """Tokens of prompts that go through the model in a step; those who grow wait for so many. None: 64 on a CPU, which
    reads no faster in larger steps, and 2,048 elsewhere."""
    max_scored_tokens: int = 8_192
    """Tokens that go through the model at once in `token_log_probs`, which bounds the memory."""
    int8: bool = False
    """Read the matrices as int8 with one scale for each row; only with the compiled decoder on a CPU."""
    compiled: bool = True
    """Use the compiled decoder where it takes the model."""

    def __post_init__(self) -> None:
        """Check every number."""
        for name in ("max_cached_tokens", "max_running", "max_step_tokens", "max_scored_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(name, f"{value} leaves room for nothing.", "Use 1 or more.")


@dataclass(frozen=True)
class Generation:
    """What was generated after one prompt."""

    ids: list[int]
    """Without the prompt, and without the id that ended it."""
    text: str
    """Of `ids`; bytes that are no UTF-8 become U+FFFD."""
    finish_reason: FinishReason


class Engine:
    """Generates with a model and scores with it. Texts never see each other; being together only saves time.

    Args:
        loaded: the model.
        options: room and manner.

    Raises:
        ConfigError: int8 was asked for where the compiled decoder cannot be used.
    """

    def __init__(self, loaded: LoadedModel, options: EngineOptions | None = None) -> None:
        self.loaded = loaded
        """The model and what belongs to it."""
        self._options = options or EngineOptions()
        self._model = loaded.model
        self._device = loaded.model.head.device
        self._vocabulary = Vocabulary.of(loaded.tokenizer, loaded.config.vocab_size)
        self.runner = self._make_runner()
        """What computes: the compiled decoder on a CPU, or torch."""
        self.scheduler = self._make_scheduler()
        """Steps what was asked for; one caller at a time."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""
        return self.loaded.tokenizer

    @property
    def max_seq_len(self) -> int:
        """Tokens of context, prompt and answer together."""
        return self.loaded.config.max_seq_len

    @property
    def max_running(self) -> int:
        """Texts that grow at once."""
        return self._options.max_running

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a text that is to go on: BOS, then the text."""
        return [self.tokenizer.bos_id, *self.tokenizer.encode(text)]

    def check(self, request: Request, *, where: str = "prompt") -> None:
        """Whether a request can be computed at all.

        Raises:
            ConfigError: the prompt is empty, too long for the context, or holds an id that does not exist, as may
                `logit_bias`; or the JSON schema cannot be followed.
            MissingPackageError: a JSON schema needs llguidance.
        """
        if not request.prompt:
            raise ConfigError(where, "it has no tokens.", "Begin it with the tokenizer's BOS id: encode_prompt does.")
        # The last token of a text that is only scored never goes through the model.
        room = self.max_seq_len - 1 if request.options.max_new_tokens else self.max_seq_len + 1
        self._check_ids(where, request.prompt, limit=room)
        if request.top_log_probs is not None and request.top_log_probs < 0:
            raise ConfigError("top_log_probs", f"{request.top_log_probs} is below 0.", "Use 0 for the token alone.")
        self._check_ids("logit_bias", [number for number, _ in request.options.logit_bias], limit=len(self))
        if request.json_schema is not None:
            self._constrain(request.json_schema)

    def generate(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[Generation]:
        """Continue every prompt.

        Args:
            prompts: ids, BOS included (`encode_prompt`, `chat_format.prompt`).
            options: how tokens are chosen; prompt number i draws from stream i.

        Returns:
            One for each prompt, in their order.

        Raises:
            ConfigError: a prompt is empty, too long for the context, or holds an id that does not exist.
            CheckpointError: the model gives no finite numbers.
        """
        requests = [Request(tuple(prompt), options, stream=number) for number, prompt in enumerate(prompts)]
        for number, request in enumerate(requests):
            self.check(request, where=f"prompt {number + 1}")
        return [
            Generation(
                [token for piece in pieces for token in piece.ids],
                "".join(piece.text for piece in pieces),
                pieces[-1].finish_reason or "stop",
            )
            for pieces in self.complete(requests)
        ]

    def complete(self, requests: Sequence[Request]) -> list[list[Piece]]:
        """The pieces of every request, which has been checked.

        Raises:
            CheckpointError: the model gives no finite numbers.
        """
        jobs: list[Job] = []
        try:
            jobs.extend(map(self.scheduler.add, requests))
            return [list(self._pieces_of(job)) for job in jobs]
        finally:
            for job in jobs:
                self.scheduler.cancel(job)

    def stream(self, prompt: Sequence[int], options: SamplingOptions) -> Iterator[str]:
        """Continue one prompt and give the text as it comes; together the pieces are `generate`'s text.

        A piece never ends inside a character: bytes wait until the rest of it has come.

        Raises:
            ConfigError, CheckpointError: as `generate`; the first at once, not at the first piece.
        """
        request = Request(tuple(prompt), options)
        self.check(request)
        return self._pieces(request)

    def answer(self, dialogs: Sequence[Sequence[tuple[str, str]]], *, max_new_tokens: int) -> list[str]:
        """The assistant's most probable next message in each dialog of (role, content) pairs.

        Raises:
            ConfigError, CheckpointError: as `generate`.
            DataError: a role is unknown, or the tokenizer has no tokens for dialogs.
        """
        prompts = [chat_format.prompt(self.tokenizer, dialog) for dialog in dialogs]
        return [made.text for made in self.generate(prompts, replace(GREEDY, max_new_tokens=max_new_tokens))]

    def generate_text(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[str]:
        """The most probable continuation of each text, without the text itself.

        Raises:
            ConfigError, CheckpointError: as `generate`.
        """
        ids = [self.encode_prompt(prompt) for prompt in prompts]
        return [made.text for made in self.generate(ids, replace(GREEDY, max_new_tokens=max_new_tokens))]

    def score(self, rows: Sequence[Sequence[int]], *, num_top: int = 1) -> list[list[TokenScore | None]]:
        """Each token's log-probability given those before it, and the most probable tokens in its place.

        Computed as the server computes it, so that both give the same numbers; `token_log_probs` is faster for much text.

        Args:
            rows: ids; at most max_seq_len + 1 in a row, since the last one is only predicted.
            num_top: how many of the most probable tokens.

        Returns:
            One for each id; None for the first of a row, which has nothing before it.

        Raises:
            ConfigError: a row is empty, too long, or holds an id that does not exist.
        """
        options = replace(GREEDY, max_new_tokens=0)
        requests = [Request(tuple(row), options, top_log_probs=num_top, score_prompt=True) for row in rows]
        for number, request in enumerate(requests):
            self.check(request, where=f"row {number + 1}")
        return [[score for piece in pieces for score in piece.prompt_scores] for pieces in self.complete(requests)]

    @torch.inference_mode()
    def token_log_probs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability, in nats, of each token given those before it in its row.

        Args:
            rows: ids; a row has at most max_seq_len + 1, since the last one is only predicted.

        Returns:
            For each row one number less than it has ids: the first has nothing before it.

        Raises:
            ConfigError: a row is too long, or holds an id that does not exist.
        """
        for number, row in enumerate(rows):
            self._check_ids(f"row {number + 1}", row, limit=self.max_seq_len + 1)
        out: list[list[float]] = [[] for _ in rows]
        for batch in batches([len(row) for row in rows], max_tokens=self._options.max_scored_tokens):
            width = len(rows[batch[0]]) - 1
            if width < 1:
                continue  # widest first: no row of this batch has a token to predict
            # Padded on the right, where causal attention never looks.
            tokens = torch.zeros(len(batch), width, dtype=torch.int64)
            labels = torch.full((len(batch), width), IGNORE_INDEX)
            for at, index in enumerate(batch):
                ids = torch.tensor(rows[index], dtype=torch.int64)
                tokens[at, : max(0, len(ids) - 1)] = ids[:-1]
                labels[at, : max(0, len(ids) - 1)] = ids[1:]
            hidden = self._model(tokens.to(self._device))
            log_probs = label_log_probs(hidden, self._model.head, labels.to(self._device)).cpu()
            for at, index in enumerate(batch):
                out[index] = log_probs[at, : max(0, len(rows[index]) - 1)].tolist()
        return out

    @torch.inference_mode()
    def embed(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """The mean of the last hidden states of each row, of length 1: texts of like content lie near each other.

        Args:
            rows: ids, at most max_seq_len in a row.

        Returns:
            For each row D numbers.

        Raises:
            ConfigError: a row is empty, too long, or holds an id that does not exist.
        """
        for number, row in enumerate(rows):
            if not row:
                raise ConfigError(f"row {number + 1}", "it has no tokens.", "Leave it out.")
            self._check_ids(f"row {number + 1}", row, limit=self.max_seq_len)
        means = [self._model(torch.tensor([list(row)], device=self._device))[0].float().mean(0) for row in rows]
        return [torch.nn.functional.normalize(mean, dim=0).tolist() for mean in means]

    def __len__(self) -> int:
        """Ids of the model."""
        return self._vocabulary.size

    def _make_runner(self) -> Runner:
        config, options = self.loaded.config, self._options
        num_pages = -(-max(options.max_cached_tokens, config.max_seq_len) // PAGE_SIZE)
        if options.compiled and cpu_runner.is_supported(self._model, config):
            return cpu_runner.CpuRunner(self._model, config, num_pages=num_pages, int8=options.int8)
        if options.int8:
            raise ConfigError(
                "int8",
                "it needs the compiled decoder, which cannot be used here.",
                "It wants a CPU, a C++ compiler and weights in float32 or bfloat16; leave int8 out.",
            )
        return TorchRunner(self._model, config, num_pages=num_pages)

    def _make_scheduler(self) -> Scheduler:
        step = self._options.max_step_tokens or (64 if self._device.type == "cpu" else 2_048)
        limits = Limits(max_running=self._options.max_running, max_step_tokens=step)
        return Scheduler(
            self.runner, self._vocabulary, max_length=self.max_seq_len, limits=limits, constrain=self._constrain
        )

    def _constrain(self, schema: str) -> Constraint:
        return self._grammars.constraint(schema)

    @cached_property
    def _grammars(self) -> JsonGrammars:
        return JsonGrammars(self._vocabulary)

    def _pieces(self, request: Request) -> Iterator[str]:
        job = self.scheduler.add(request)
        try:
            for piece in self._pieces_of(job):
                if piece.text:
                    yield piece.text
        finally:
            self.scheduler.cancel(job)

    def _pieces_of(self, job: Job) -> Iterator[Piece]:
        """To the last one. Whoever waits steps for all; what comes of the others waits in their inboxes."""
        while True:
            while not job.inbox:
                self.scheduler.step()
            piece = job.inbox.popleft()
            if isinstance(piece, HavocError):
                raise piece
            yield piece
            if piece.finish_reason:
                return

    def _check_ids(self, where: str, ids: Sequence[int], *, limit: int) -> None:
        if len(ids) > limit:
            raise ConfigError(
                where,
                f"it has {len(ids):,} tokens; the model's context of {self.max_seq_len:,} has room for {limit:,}.",
                "Shorten it, or use a model with a larger max_seq_len.",
            )
        wrong = next((i for i in ids if not 0 <= i < self._vocabulary.size), None)
        if wrong is not None:
            raise ConfigError(
                where,
                f"the id {wrong} does not exist; the model has {self._vocabulary.size:,}.",
                "Encode the text with the tokenizer of the same checkpoint.",
            )


def batches(widths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Put texts of like width together, widest first.

    Args:
        widths: tokens that each text needs.
        max_tokens: rows times the widest row, at most; a text that is wider goes alone.

    Returns:
        Indices into `widths`, each once.
    """
    order = sorted(range(len(widths)), key=lambda index: widths[index], reverse=True)
    out: list[list[int]] = []
    for index in order:
        if out and (len(out[-1]) + 1) * widths[out[-1][0]] <= max_tokens:
            out[-1].append(index)
        else:
            out.append([index])
    return out
