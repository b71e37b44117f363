"""Sampling draws from the distribution it promises, and from nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from havoc_core.errors import CheckpointError, ConfigError
from havoc_inference.sampling import (
    GREEDY,
    RowSampler,
    SamplingOptions,
    choose,
    row_generator,
    sample,
)

PLAIN = SamplingOptions(temperature=1.0, top_k=None, top_p=None)
PROBS = torch.tensor([0.02, 0.4, 0.08, 0.25, 0.15, 0.1])


def counts(options: SamplingOptions, *, rows: int = 100, rounds: int = 100) -> np.ndarray:
    """How often each of the six tokens came in rows * rounds draws."""
    generators = [row_generator(options.seed, row) for row in range(rows)]
    logits = PROBS.log().expand(rows, -1)
    drawn = torch.cat([sample(logits, options, generators) for _ in range(rounds)])
    return np.bincount(drawn.numpy(), minlength=len(PROBS))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (PLAIN, [0.02, 0.4, 0.08, 0.25, 0.15, 0.1]),
        (replace(PLAIN, temperature=0.5), [0.0004, 0.16, 0.0064, 0.0625, 0.0225, 0.01]),
        (replace(PLAIN, top_k=3), [0, 0.4, 0, 0.25, 0.15, 0]),
        (replace(PLAIN, top_k=100), [0.02, 0.4, 0.08, 0.25, 0.15, 0.1]),
        (replace(PLAIN, top_p=0.7), [0, 0.4, 0, 0.25, 0.15, 0]),  # 0.65 is short of 0.7: 0.15 crosses it and stays
        (replace(PLAIN, top_p=1.0), [0.02, 0.4, 0.08, 0.25, 0.15, 0.1]),
        (replace(PLAIN, min_p=0.3), [0, 0.4, 0, 0.25, 0.15, 0]),  # 0.3 * 0.4 = 0.12
        (replace(PLAIN, top_k=3, top_p=0.7), [0, 0.4, 0, 0.25, 0, 0]),  # of what top_k leaves, 0.65 is 81 %
    ],
    ids=["plain", "temperature", "top_k", "top_k above V", "top_p", "top_p of 1", "min_p", "top_k then top_p"],
)
def test_draws_follow_the_distribution(options: SamplingOptions, expected: list[float]) -> None:
    found = counts(options)
    wanted = np.array(expected) / sum(expected)
    assert (found[wanted == 0] == 0).all()
    # A fixed seed: below 0.001 would mean a wrong distribution, not bad luck.
    assert chisquare(found[wanted > 0], found.sum() * wanted[wanted > 0]).pvalue > 0.001


def test_equal_seeds_draw_equal_tokens_and_others_do_not() -> None:
    assert counts(PLAIN, rounds=5).tolist() == counts(PLAIN, rounds=5).tolist()
    assert counts(PLAIN, rounds=5).tolist() != counts(replace(PLAIN, seed=1), rounds=5).tolist()


def test_a_temperature_of_zero_takes_the_most_probable() -> None:
    assert sample(torch.tensor([[1.0, 3.0, 2.0], [5.0, -1.0, 4.0]]), GREEDY, []).tolist() == [1, 0]


def test_a_temperature_near_zero_is_greedy_and_does_not_overflow() -> None:
    logits = torch.tensor([[1e4, 9.9e3, -1e4]] * 3)
    tiny = replace(PLAIN, temperature=1e-300)
    assert sample(logits, tiny, [row_generator(0, row) for row in range(3)]).tolist() == [0, 0, 0]


def test_a_forbidden_token_is_never_drawn_however_hot() -> None:
    logits = torch.tensor([[0.0, -math.inf, 0.0, -math.inf]]).expand(50, -1)
    generators = [row_generator(0, row) for row in range(50)]
    hot = replace(PLAIN, temperature=1e9)
    drawn = torch.cat([sample(logits, hot, generators) for _ in range(40)])
    assert set(drawn.tolist()) == {0, 2}


@settings(max_examples=60, deadline=None)
@given(
    temperature=st.floats(0.0, 1e6),
    top_k=st.none() | st.integers(1, 10**9),
    top_p=st.none() | st.floats(1e-300, 1.0),
    min_p=st.none() | st.floats(0.0, 1.0),
    scale=st.floats(0.0, 1e30),
)
def test_any_allowed_options_draw_a_token_that_may_be_drawn(
    temperature: float, top_k: int | None, top_p: float | None, min_p: float | None, scale: float
) -> None:
    options = SamplingOptions(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    logits = torch.linspace(-1.0, 1.0, 40).repeat(3, 1) * scale
    logits[:, ::2] = -math.inf
    drawn = sample(logits, options, [row_generator(1, row) for row in range(3)])
    assert drawn.shape == (3,)
    assert all(token % 2 == 1 for token in drawn.tolist())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("options", [GREEDY, PLAIN, replace(PLAIN, top_k=2)])
def test_a_logit_that_is_no_number_is_an_error(bad: float, options: SamplingOptions) -> None:
    with pytest.raises(CheckpointError, match=r"model: its logits are not finite numbers\. Its weights are damaged"):
        sample(torch.tensor([[0.0, bad, 1.0]]), options, [row_generator(0, 0)])


def test_penalties_and_bias_are_what_their_formulas_say() -> None:
    options = replace(
        PLAIN, repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25, logit_bias=((3, -100.0),)
    )
    row = RowSampler(options, stream=0, prompt=[0, 1], vocab_size=4)
    row.count(2)
    row.count(2)
    changed = row.changed(torch.tensor([2.0, -2.0, 2.0, 2.0]))
    # The prompt counts for the repetition penalty alone; what was generated counts for all three.
    assert changed.tolist() == [1.0, -4.0, 2.0 / 2.0 - 2 * 0.25 - 0.5, -98.0]


def test_rows_of_many_ways_draw_together_what_each_draws_alone() -> None:
    ways = [
        GREEDY, PLAIN, replace(PLAIN, seed=7), replace(PLAIN, temperature=0.3), replace(PLAIN, top_k=3),
        replace(PLAIN, presence_penalty=2.0), replace(PLAIN, logit_bias=((5, 20.0),)), replace(GREEDY, frequency_penalty=2.0),
    ]  # fmt: skip
    forbidden = torch.zeros(50, dtype=torch.bool)
    forbidden[7] = True
    logits = torch.randn(6, len(ways), 50, generator=torch.Generator().manual_seed(1)) * 3

    def rows() -> list[RowSampler]:
        return [RowSampler(way, stream=at, prompt=[1, 2], vocab_size=50) for at, way in enumerate(ways)]

    together, apart = rows(), rows()
    drawn = [choose(step, together, forbidden=forbidden) for step in logits]
    alone = [
        [choose(step[at : at + 1], [row], forbidden=forbidden)[0] for at, row in enumerate(apart)] for step in logits
    ]
    assert drawn == alone
    assert {token for step in drawn for token in step}.isdisjoint({7})
    assert len({token for step in drawn for token in step}) > 10  # so that the comparison compares something


def test_a_forbidden_id_cannot_be_forced() -> None:
    row = RowSampler(replace(GREEDY, logit_bias=((1, 100.0),)), stream=0, prompt=[0], vocab_size=3)
    assert choose(torch.zeros(1, 3), [row], forbidden=torch.tensor([False, True, False])) == [0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, r"temperature: -0\.1 is out of range\. Use 0"),
        ({"temperature": math.nan}, r"temperature: nan is out of range\. Use 0"),
        ({"temperature": math.inf}, r"temperature: inf is out of range\. Use 0"),
        ({"top_k": 0}, r"top_k: 0 is out of range\. Use 1 or more"),
        ({"top_p": 0.0}, r"top_p: 0\.0 is out of range\. Use a number above 0"),
        ({"top_p": 1.01}, r"top_p: 1\.01 is out of range"),
        ({"min_p": -0.1}, r"min_p: -0\.1 is out of range\. Use a number from 0 to 1"),
        ({"min_p": math.nan}, r"min_p: nan is out of range"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty: 0\.0 is out of range\. Use 1 \(off\)"),
        ({"presence_penalty": 2.1}, r"presence_penalty: 2\.1 is out of range\. Use a number from -2 to 2"),
        ({"frequency_penalty": math.nan}, r"frequency_penalty: nan is out of range"),
        ({"logit_bias": ((3, 101.0),)}, r"logit_bias: 3: 101\.0 is out of range\. Use -100 to 100"),
        ({"logit_bias": ((-1, 1.0),)}, r"logit_bias: -1: 1\.0 is out of range"),
        ({"seed": -1}, r"seed: -1 is out of range\. Use a whole number from 0"),
        ({"seed": 2**63}, r"seed: 9223372036854775808 is out of range"),
        ({"max_new_tokens": -1}, r"max_new_tokens: -1 is out of range\. Use 1 or more"),
    ],
)
def test_options_out_of_range_are_named_with_a_remedy(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplingOptions(**values)
