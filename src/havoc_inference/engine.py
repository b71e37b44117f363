"""A loaded model at work: text that goes on, answers, and how probable a text is."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from havoc_core import chat_format
from havoc_core.errors import ConfigError
from havoc_core.labels import IGNORE_INDEX
from havoc_core.loss import label_log_probs
from havoc_core.tokenizer import Tokenizer
from havoc_inference.batching import Decoding, batches
from havoc_inference.load import LoadedModel
from havoc_inference.sampling import GREEDY, Sampler, SamplingOptions, allowed_ids, stop_ids

_SHRINK_AT = 0.75
"""Rows that ended stay in the batch until this share is left: copying the cache costs about one step."""


@dataclass(frozen=True)
class Generation:
    """What was generated after one prompt."""

    ids: list[int]
    """Without the prompt, and without the id that ended it."""
    text: str
    """Of `ids`; bytes that are no UTF-8 become U+FFFD."""
    finish_reason: Literal["stop", "length"]
    """stop: the model ended it. length: `max_new_tokens` or the end of the context."""


class Engine:
    """Generates with a model and scores with it. Rows never see each other; batches only save time.

    Args:
        loaded: the model.
        max_batch_tokens: rows times columns of a batch, which bounds the memory of keys and values.
        max_step_tokens: tokens that go through the model at once, which bounds the memory of activations.
    """

    def __init__(self, loaded: LoadedModel, *, max_batch_tokens: int = 32_768, max_step_tokens: int = 8_192) -> None:
        self._model = loaded.model
        self._tokenizer = loaded.tokenizer
        self._config = loaded.config
        self._device = loaded.model.head.device
        self._max_batch_tokens = max_batch_tokens
        self._max_step_tokens = max_step_tokens
        self._allowed = allowed_ids(loaded.tokenizer, loaded.config.vocab_size).to(self._device)
        self._stops = stop_ids(loaded.tokenizer)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""
        return self._tokenizer

    @property
    def max_seq_len(self) -> int:
        """Tokens of context, prompt and answer together."""
        return self._config.max_seq_len

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a text that is to go on: BOS, then the text."""
        return [self._tokenizer.bos_id, *self._tokenizer.encode(text)]

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
        for number, prompt in enumerate(prompts):
            self._check_prompt(f"prompt {number + 1}", prompt)
        ids: list[list[int]] = [[] for _ in prompts]
        stopped = [False] * len(prompts)
        widths = [min(len(prompt) + options.max_new_tokens, self.max_seq_len) for prompt in prompts]
        for rows in batches(widths, max_tokens=self._max_batch_tokens):
            for row, token in self._decode(prompts, rows, options):
                if token in self._stops:
                    stopped[row] = True
                else:
                    ids[row].append(token)
        return [
            Generation(made, self._tokenizer.decode(made), "stop" if ended else "length")
            for made, ended in zip(ids, stopped, strict=True)
        ]

    def stream(self, prompt: Sequence[int], options: SamplingOptions) -> Iterator[str]:
        """Continue one prompt and give the text as it comes; together the pieces are `generate`'s text.

        A piece never ends inside a character: bytes wait until the rest of it has come.

        Raises:
            ConfigError, CheckpointError: as `generate`; the first at once, not at the first piece.
        """
        self._check_prompt("prompt", prompt)
        return self._pieces(prompt, options)

    def answer(self, dialogs: Sequence[Sequence[tuple[str, str]]], *, max_new_tokens: int) -> list[str]:
        """The assistant's most probable next message in each dialog of (role, content) pairs.

        Raises:
            ConfigError, CheckpointError: as `generate`.
            DataError: a role is unknown, or the tokenizer has no tokens for dialogs.
        """
        prompts = [chat_format.prompt(self._tokenizer, dialog) for dialog in dialogs]
        return [made.text for made in self.generate(prompts, replace(GREEDY, max_new_tokens=max_new_tokens))]

    def generate_text(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[str]:
        """The most probable continuation of each text, without the text itself.

        Raises:
            ConfigError, CheckpointError: as `generate`.
        """
        ids = [self.encode_prompt(prompt) for prompt in prompts]
        return [made.text for made in self.generate(ids, replace(GREEDY, max_new_tokens=max_new_tokens))]

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
        for batch in batches([len(row) for row in rows], max_tokens=self._max_step_tokens):
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

    def _decode(
        self, prompts: Sequence[Sequence[int]], batch: Sequence[int], options: SamplingOptions
    ) -> Iterator[tuple[int, int]]:
        """(prompt number, token) as they come; a row's last is a stop id or the one at its limit."""
        inside = [prompts[row] for row in batch]
        longest = max(len(ids) for ids in inside)
        left = {row: min(options.max_new_tokens, self.max_seq_len - len(prompts[row])) for row in batch}
        columns = min(longest + options.max_new_tokens, self.max_seq_len)
        decoding = Decoding(self._model, inside, max_columns=columns, max_step_tokens=self._max_step_tokens)
        sampler = Sampler(options, allowed=self._allowed, prompts=inside, streams=batch)
        rows = list(batch)
        logits = decoding.read_prompts()
        while True:
            tokens = sampler.choose(logits)
            for row, token in zip(rows, tokens, strict=True):
                if left[row] > 0:
                    left[row] = 0 if token in self._stops else left[row] - 1
                    yield row, token
            active = [at for at, row in enumerate(rows) if left[row] > 0]
            if not active:
                return
            if len(active) <= _SHRINK_AT * len(rows) or decoding.is_full:
                decoding.keep(active)
                sampler.keep(active)
                rows, tokens = [rows[at] for at in active], [tokens[at] for at in active]
            logits = decoding.extend(tokens)

    def _pieces(self, prompt: Sequence[int], options: SamplingOptions) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for _, token in self._decode([prompt], [0], options):
            piece = "" if token in self._stops else decoder.decode(self._tokenizer.decode_bytes([token]))
            if piece:
                yield piece
        rest = decoder.decode(b"", final=True)
        if rest:
            yield rest

    def _check_prompt(self, where: str, prompt: Sequence[int]) -> None:
        if not prompt:
            raise ConfigError(where, "it has no tokens.", "Begin it with the tokenizer's BOS id: encode_prompt does.")
        self._check_ids(where, prompt, limit=self.max_seq_len - 1)

    def _check_ids(self, where: str, ids: Sequence[int], *, limit: int) -> None:
        if len(ids) > limit:
            raise ConfigError(
                where,
                f"it has {len(ids):,} tokens; the model's context of {self.max_seq_len:,} has room for {limit:,}.",
                "Shorten it, or use a model with a larger max_seq_len.",
            )
        wrong = next((i for i in ids if not 0 <= i < self._config.vocab_size), None)
        if wrong is not None:
            raise ConfigError(
                where,
                f"the id {wrong} does not exist; the model has {self._config.vocab_size:,}.",
                "Encode the text with the tokenizer of the same checkpoint.",
            )
