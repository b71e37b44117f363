"""A conversation that remembers what was said, as far as the context reaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from havoc_core import chat_format
from havoc_core.errors import ConfigError
from havoc_inference.engine import Engine
from havoc_inference.sampling import SamplingOptions

_SHARE_FOR_THE_ANSWER = 4
"""At least one in so many tokens of the context is left for an answer, if `max_new_tokens` wants that much."""


class Chat:
    """Turns of a user and the model. When they outgrow the context, the oldest are forgotten, never the system message.

    Args:
        engine: the model.
        options: how answers are sampled; each turn draws from a seed of its own, counted up from `options.seed`.
        system: what the model is told before the first turn.

    Raises:
        ConfigError: the system message alone leaves no room in the context.
        DataError: the tokenizer has no tokens for dialogs.
    """

    def __init__(self, engine: Engine, *, options: SamplingOptions, system: str | None = None) -> None:
        self._engine = engine
        self._options = options
        self._system = _as_message(system)
        self._forgotten: list[tuple[str, str]] = []
        self._turns: list[tuple[str, str]] = []
        self._num_said = 0
        self._fit([], "system message")

    @property
    def history(self) -> tuple[tuple[str, str], ...]:
        """(role, content) of everything that is remembered, the system message first."""
        return (*self._system, *self._turns)

    @property
    def transcript(self) -> tuple[tuple[str, str], ...]:
        """(role, content) of everything that was said, also where the context no longer reaches."""
        return (*self._system, *self._forgotten, *self._turns)

    def forget(self) -> None:
        """Begin anew, with the system message and the first seed."""
        self._forgotten, self._turns, self._num_said = [], [], 0

    def undo(self) -> str | None:
        """Take the last turn back and give what the user said in it; None if there is none.

        Said again, it is answered with the next seed. Turns that were forgotten for it stay so.
        """
        if not self._turns:
            return None
        *self._turns, (_, said), _ = self._turns
        return said

    def instruct(self, system: str | None) -> None:
        """Put another system message before the conversation; None: none.

        Raises:
            ConfigError: it leaves no room in the context for the shortest conversation; the old one stays.
        """
        before = self._system
        self._system = _as_message(system)
        try:
            self._fit([], "system message")
        except ConfigError:
            self._system = before
            raise

    def say(self, text: str) -> Iterator[str]:
        """Say something and get the answer, piece by piece.

        The turn is remembered when the answer ends, or as far as it came when the reader stops reading.

        Raises:
            ConfigError: the message alone is too long for the context; nothing was said then.
            CheckpointError: the model gives no finite numbers.
        """
        turns = self._fit([*self._turns, ("user", text)], "message")
        options = replace(self._options, seed=(self._options.seed + self._num_said) % 2**63)
        prompt = chat_format.prompt(self._engine.tokenizer, [*self._system, *turns])
        return self._answer(turns, self._engine.stream(prompt, options))

    def _answer(self, turns: Sequence[tuple[str, str]], pieces: Iterator[str]) -> Iterator[str]:
        said: list[str] = []
        try:
            for piece in pieces:
                said.append(piece)
                yield piece
        except (GeneratorExit, KeyboardInterrupt):
            self._remember(turns, said)
            raise
        self._remember(turns, said)

    def _remember(self, turns: Sequence[tuple[str, str]], said: Sequence[str]) -> None:
        num_forgotten = len(self._turns) + 1 - len(turns)
        self._forgotten += self._turns[:num_forgotten]
        self._turns = [*turns, ("assistant", "".join(said))]
        self._num_said += 1

    def _fit(self, turns: list[tuple[str, str]], where: str) -> list[tuple[str, str]]:
        """The newest turns that leave room for an answer; they begin with the user's."""
        context = self._engine.max_seq_len
        limit = context - max(1, min(self._options.max_new_tokens, context // _SHARE_FOR_THE_ANSWER))
        while True:
            num_tokens = len(chat_format.prompt(self._engine.tokenizer, [*self._system, *turns]))
            if num_tokens <= limit:
                return turns
            if len(turns) < 3:
                raise ConfigError(
                    where,
                    f"it makes a prompt of {num_tokens:,} tokens; the context of {context:,} leaves {limit:,}.",
                    "Shorten it.",
                )
            turns = turns[2:]


def _as_message(system: str | None) -> list[tuple[str, str]]:
    return [] if system is None else [("system", system)]
