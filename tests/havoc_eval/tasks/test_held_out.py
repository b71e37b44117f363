"""Bits per byte by hand, with weights and intervals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from havoc_core.errors import ConfigError, DataError
from havoc_core.tokenizer import Tokenizer
from havoc_eval.tasks.held_out import Options, build


def test_a_quarter_for_every_byte_is_two_bits_per_byte(
    tokenizer: Tokenizer, fake: Any, write: Callable[..., Path]
) -> None:
    files = {
        "domain": write("domain", ["abc", "defg"]),
        "dialog": write("dialog", [(("user", "é"),), (("user", "x"),)]),
    }
    result = build(Options(files=files)).run(fake(tokenizer))
    assert [score.group for score in result.scores] == ["dialog", "domain", "total"]
    for score in result.scores:
        assert (score.value, score.low, score.high) == pytest.approx((2.0, 2.0, 2.0))
    assert result.scores[1].counts == {"documents": 2, "bytes": 7}
    assert result.total.counts == {"documents": 4, "bytes": 10}


def two_groups(tokenizer: Tokenizer, fake: Any, write: Callable[..., Path]) -> tuple[Any, dict[str, Path]]:
    """Group a costs 1 bit a byte, group b 3 bits."""
    letters = {tokenizer.encode(letter)[0]: 0.5 if letter == "a" else 0.125 for letter in "ab"}
    model = fake(tokenizer, probability=dict.fromkeys(range(256), 1e-9) | letters)
    return model, {"domain": write("domain", ["a" * 10] * 3), "general": write("general", ["b" * 90, "b"])}


def test_the_total_is_weighted_by_the_ratios(tokenizer: Tokenizer, fake: Any, write: Callable[..., Path]) -> None:
    model, files = two_groups(tokenizer, fake, write)
    ratios = {"domain": 0.6, "general": 0.3, "dialog": 0.1}  # there is no dialog: its share goes to the others
    result = build(Options(files=files, ratios=ratios)).run(model)
    assert [score.value for score in result.scores] == pytest.approx([1.0, 3.0, (0.6 * 1 + 0.3 * 3) / 0.9])
    assert "domain 66.7%, general 33.3%" in result.notes[1]


def test_without_ratios_the_total_is_weighted_by_bytes(
    tokenizer: Tokenizer, fake: Any, write: Callable[..., Path]
) -> None:
    model, files = two_groups(tokenizer, fake, write)
    assert build(Options(files=files)).run(model).total.value == pytest.approx((30 * 1 + 91 * 3) / 121)


def test_the_interval_is_that_of_documents_and_repeats(
    tokenizer: Tokenizer, fake: Any, write: Callable[..., Path]
) -> None:
    model, _ = two_groups(tokenizer, fake, write)
    files = {"domain": write("domain", ["a" * 20, "b" * 20] * 10)}
    result = build(Options(files=files)).run(model)
    score = result.scores[0]
    assert score.value == pytest.approx(2.0)
    # Twenty documents of 1 or 3 bits: a standard error of 1 / sqrt(20) = 0.22, so about 2 +- 0.44.
    assert score.low == pytest.approx(1.56, abs=0.1) and score.high == pytest.approx(2.44, abs=0.1)
    assert build(Options(files=files)).run(model) == result
    assert (result.total.low, result.total.high) == (score.low, score.high)


def test_the_chance_in_one_group_is_not_the_chance_in_another(
    tokenizer: Tokenizer, fake: Any, write: Callable[..., Path]
) -> None:
    """Two like groups together are known better than each alone, by about sqrt(2)."""
    model, _ = two_groups(tokenizer, fake, write)
    contents = ["a" * n + "b" * (40 - n) for n in range(41)]
    files = {group: write(group, contents) for group in ("domain", "general")}
    result = build(Options(files=files)).run(model)
    widths = [score.high - score.low for score in result.scores]
    assert widths[2] == pytest.approx(widths[0] / 2**0.5, rel=0.15)  # 2000 draws: a few per cent


def test_one_document_has_no_interval(tokenizer: Tokenizer, fake: Any, write: Callable[..., Path]) -> None:
    score = build(Options(files={"domain": write("domain", ["abc"])})).run(fake(tokenizer)).scores[0]
    assert (score.low, score.high) == (None, None)


def test_the_window_is_the_one_asked_for(tokenizer: Tokenizer, fake: Any, write: Callable[..., Path]) -> None:
    model = fake(tokenizer, max_seq_len=50)
    build(Options(files={"domain": write("domain", ["x" * 99])}, window_tokens=20)).run(model)
    assert [len(row) for row in model.rows] == [21] * 5  # 100 predictions
    model.rows.clear()
    build(Options(files={"domain": write("domain", ["x" * 99])})).run(model)
    assert [len(row) for row in model.rows] == [51, 51]


def test_a_window_longer_than_the_context_is_refused(
    tokenizer: Tokenizer, fake: Any, write: Callable[..., Path]
) -> None:
    task = build(Options(files={"domain": write("domain", ["x"])}, window_tokens=51))
    with pytest.raises(
        ConfigError, match=r"window_tokens: 51 is longer than the model's context of 50\. Use 50 or less"
    ):
        task.run(fake(tokenizer, max_seq_len=50))


def test_a_group_without_text_is_refused(tokenizer: Tokenizer, fake: Any, write: Callable[..., Path]) -> None:
    task = build(Options(files={"domain": write("domain", [""])}))
    with pytest.raises(DataError, match=r"domain\.jsonl\.zst: holds no text\. Raise `data\.validation_fraction`"):
        task.run(fake(tokenizer))


@pytest.mark.parametrize("ratios", [{"general": 1.0}, {"domain": 0.0}, {"domain": -1.0}, {"domain": float("nan")}])
def test_ratios_that_weigh_no_group_are_refused(ratios: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"ratios: .* gives domain no weights\. Use positive numbers"):
        build(Options(files={"domain": Path("x")}, ratios=ratios))


def test_no_groups_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"files: there is no group of held-out text\. Build it"):
        build(Options(files={}))
