"""EleutherAI's tasks (lm-eval) on a model in this process.

The same rows reach the model as through a server with lm-eval's `local-completions`, so both give the same scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from havoc_core.errors import ConfigError, MissingPackageError
from havoc_core.tokenizer import Tokenizer

_NEW_TOKENS = 256
"""lm-eval's default, where a task names no limit."""


class HarnessModel(Protocol):
    """What the tasks need beyond `LanguageModel`: whether each token was the most probable one, and stop texts."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Text <-> ids, as the model learnt them."""

    @property
    def max_seq_len(self) -> int:
        """Tokens of context, prompt and answer together."""

    def scores(self, rows: Sequence[Sequence[int]]) -> list[list[tuple[float, bool]]]:
        """For each row, of every id but the first: its log-probability in nats, and whether none was more probable.

        Args:
            rows: ids; at most max_seq_len + 1 in a row, since the last one is only predicted.
        """

    def go_on(self, rows: Sequence[Sequence[int]], *, stop: Sequence[Sequence[str]], max_new_tokens: int) -> list[str]:
        """The most probable continuation of each row of ids, up to one of its stop texts."""


@dataclass(frozen=True)
class HarnessOptions:
    """What is run, and how."""

    tasks: tuple[str, ...]
    include: Path | None = None
    """Folder with tasks of one's own (YAML), which are then the only ones; None: lm-eval's."""
    limit: int | None = None
    """Items of each task; None: all."""
    num_few_shot: int | None = None
    """Worked items before each question; None: as the task says."""
    add_bos: bool = False
    """Put the beginning-of-text token before every text. lm-eval does so for no model unless it is asked to, and its
    client of a server cannot."""


def run(model: HarnessModel, options: HarnessOptions) -> dict[str, Any]:
    """Run tasks and give lm-eval's own record: `results`, `configs`, `samples`, ...

    Raises:
        ConfigError: a task does not exist, or asks for random answers.
        MissingPackageError: lm-eval is not installed.
    """
    try:
        # Before anything else of lm-eval: a model that is registered earlier keeps its own ones from being found.
        import lm_eval.models  # noqa: F401
        from lm_eval.evaluator import simple_evaluate
    except ImportError as error:
        raise MissingPackageError(
            "--harness", f"lm-eval cannot be imported ({error}).", "Install it: pip install 'havoc[eval]'."
        ) from None
    record: dict[str, Any] | None = simple_evaluate(
        model=adapter(model, add_bos=options.add_bos),
        tasks=list(options.tasks),
        task_manager=_manager(options),
        limit=options.limit,
        num_fewshot=options.num_few_shot,
        bootstrap_iters=1000,
    )
    assert record is not None, "only other ranks than the first get none"
    return record


def adapter(model: HarnessModel, *, add_bos: bool = False) -> Any:
    """The model as lm-eval's `TemplateLM`, for `simple_evaluate(model=...)`."""
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class Adapter(TemplateLM):  # type: ignore[misc]
        """Hands rows of ids to the model."""

        @property
        def eot_token_id(self) -> int:
            return model.tokenizer.eos_id

        @property
        def prefix_token_id(self) -> int:
            return model.tokenizer.bos_id

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            bos = [model.tokenizer.bos_id] if add_bos and add_special_tokens is not False else []
            return [*bos, *model.tokenizer.encode(string)]

        def _loglikelihood_tokens(
            self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
        ) -> list[tuple[float, bool]]:
            rows = [[*context, *text][-model.max_seq_len - 1 :] for _, context, text in requests]
            out = []
            for request, scores in zip(requests, model.scores(rows), strict=True):
                text = request[2]
                mine = scores[-len(text) :] if text else []
                out.append((sum(value for value, _ in mine), all(is_best for _, is_best in mine)))
            return out

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            out = []
            for (text,) in [request.args for request in requests]:
                windows = get_rolling_token_windows(
                    self.tok_encode(text, add_special_tokens=False), self.prefix_token_id, model.max_seq_len, 1
                )
                rows = [(None, *make_disjoint_window(window)) for window in windows]
                out.append(sum(value for value, _ in self._loglikelihood_tokens(rows)))
            return out

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            return _generate(model, [request.args for request in requests], encode=self.tok_encode)

    return Adapter()


def _generate(
    model: HarnessModel, asked: Sequence[tuple[str, dict[str, Any]]], *, encode: Callable[[str], list[int]]
) -> list[str]:
    by_length: dict[int, list[int]] = {}
    for number, (_, options) in enumerate(asked):
        if options.get("do_sample") and options.get("temperature", 0.0) > 0:
            raise ConfigError(
                "--harness", "a task asks for random answers (do_sample).", "Ask for it through a server: havoc serve."
            )
        by_length.setdefault(options.get("max_gen_toks", _NEW_TOKENS), []).append(number)
    out = [""] * len(asked)
    for length, numbers in by_length.items():
        # The newest tokens of a context that is too long, as lm-eval cuts it for a server.
        room = max(1, model.max_seq_len - 1 - length)
        rows = [encode(asked[number][0])[-room:] for number in numbers]
        stops = [_stops(asked[number][1].get("until")) for number in numbers]
        texts = model.go_on(rows, stop=stops, max_new_tokens=min(length, model.max_seq_len - 1))
        for number, text in zip(numbers, texts, strict=True):
            out[number] = text
    return out


def _stops(until: str | Sequence[str] | None) -> list[str]:
    return [until] if isinstance(until, str) else [text for text in until or () if text]


def _manager(options: HarnessOptions) -> Any:
    """Where tasks are looked for.

    Raises:
        ConfigError: there is no such folder, or a task is not there.
    """
    from lm_eval.tasks import TaskManager

    if options.include is not None and not options.include.is_dir():
        raise ConfigError(
            "--harness-include", f"{options.include} is no folder.", "Name the folder that holds the tasks' YAML files."
        )
    # Finding lm-eval's own takes a quarter of a minute.
    manager = TaskManager(include_path=options.include, include_defaults=options.include is None)
    missing = [task for task in options.tasks if not manager.match_tasks([task])]
    if missing:
        raise ConfigError(
            "--harness",
            f"there is no task '{missing[0]}' in {options.include or 'lm-eval'}.",
            "`lm_eval ls tasks` lists lm-eval's own.",
        )
    return manager
