"""`havoc evaluate --harness TASK`: EleutherAI's tasks on a checkpoint or an exported folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from havoc_core.tokenizer import Tokenizer

if TYPE_CHECKING:
    from havoc_eval.harness import HarnessOptions
    from havoc_inference.engine import Engine


class ScoringEngine:
    """An engine as the harness wants it (`havoc_eval.harness.HarnessModel`)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""
        return self._engine.tokenizer

    @property
    def max_seq_len(self) -> int:
        """Tokens of context, prompt and answer together."""
        return self._engine.max_seq_len

    def scores(self, rows: Sequence[Sequence[int]]) -> list[list[tuple[float, bool]]]:
        """As the server scores an echoed prompt: by the same steps of the engine."""
        from havoc_inference.request import Request
        from havoc_inference.sampling import GREEDY

        options = replace(GREEDY, max_new_tokens=0)
        requests = [Request(tuple(row), options, top_log_probs=1, score_prompt=True) for row in rows]
        out = []
        for pieces in self._engine.complete(requests):
            scored = [score for piece in pieces for score in piece.prompt_scores]
            # The chosen one is the best where its number is the largest, whichever of several tokens that share it.
            out.append([(s.log_prob, s.log_prob >= s.top[0][1]) for s in scored if s is not None])
        return out

    def go_on(self, rows: Sequence[Sequence[int]], *, stop: Sequence[Sequence[str]], max_new_tokens: int) -> list[str]:
        """The most probable continuation of each row."""
        from havoc_inference.request import Request
        from havoc_inference.sampling import GREEDY

        options = replace(GREEDY, max_new_tokens=max_new_tokens)
        requests = [Request(tuple(row), options, stop=tuple(texts)) for row, texts in zip(rows, stop, strict=True)]
        return ["".join(piece.text for piece in pieces) for pieces in self._engine.complete(requests)]


def run_harness(engine: Engine, options: HarnessOptions, *, out: Path) -> int:
    """Run the tasks, print their scores and write lm-eval's record, without the items, as JSON."""
    from havoc_eval import harness

    record = harness.run(ScoringEngine(engine), options)
    for line in score_lines(record["results"]):
        print(line)
    kept = {
        name: record.get(name) for name in ("results", "groups", "versions", "n-shot", "n-samples", "higher_is_better")
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(kept, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
    print(out)
    return 0


def score_lines(results: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each score: task, metric, value and its standard error where lm-eval gives one."""
    lines = []
    for task, scores in results.items():
        for name, value in scores.items():
            metric, _, variant = name.partition(",")
            if isinstance(value, float) and not metric.endswith("_stderr"):
                error = scores.get(f"{metric}_stderr,{variant}")
                spread = f"  ± {error:.4f}" if isinstance(error, float) else ""
                lines.append(f"{task:<24} {metric:<16} {value:.4f}{spread}")
    return lines
