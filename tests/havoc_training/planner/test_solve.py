"""Budgets, ends and numbers of tokens: read, and turned into steps."""

from __future__ import annotations

from datetime import datetime

import pytest

from havoc_core.errors import ConfigError
from havoc_training.planner.plan import Prices
from havoc_training.planner.rates import probed_rate
from havoc_training.planner.solve import Pace, Wishes, parse_money, parse_prices, parse_tokens, parse_until, solve

NOW = datetime(2026, 11, 25, 15, 30)  # a Wednesday
PACE = Pace(tokens_per_step=100_000, rate=probed_rate(10_000.0), power_w=500.0)  # ten seconds a step


def steps(pace=PACE, prices=None, **wishes):
    return solve(Wishes(**wishes), prices=prices or Prices(per_hour=3.6), pace=pace, now=NOW).tightest.steps


def refused(call, *arguments, **named) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **named)
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("10B", 10**10), ("10b", 10**10), ("500M", 5 * 10**8), ("1.5T", 1.5e12), ("250K", 250_000), ("10e9", 10**10),
        ("10_000_000", 10**7), ("10,000", 10**4), ("65536", 65536), (" 2 B ", 2 * 10**9),
    ],
)  # fmt: skip
def test_tokens_are_read_with_their_unit(text, tokens):
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize("text", ["", "ten", "10X", "-5B", "0", "B", "1e30", "10 B B", "nan", "inf"])
def test_what_is_no_number_of_tokens_is_refused(text):
    error = refused(parse_tokens, text)
    assert (error.where, error.remedy) == ("--tokens", "Write it like 500M, 10B or 10e9.")
    assert error.found == f"'{text}' is no number of tokens."


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("50EUR", (50.0, "EUR")), ("50 eur", (50.0, "EUR")), ("€50", (50.0, "EUR")), ("12.50 $", (12.5, "USD")),
        ("USD 12.5", (12.5, "USD")), ("50", (50.0, None)), ("0.35", (0.35, None)), ("1,000.50CHF", (1000.5, "CHF")),
    ],
)  # fmt: skip
def test_money_is_read_with_its_currency(text, amount):
    assert parse_money(text, where="--budget") == amount


@pytest.mark.parametrize("text", ["", "fifty", "EUR", "-5", "5 euros please", "$5USD", "1.2.3", "5E", "nan"])
def test_a_price_that_is_no_number_is_refused(text):
    error = refused(parse_money, text, where="--price-per-hour")
    assert error.where == "--price-per-hour"
    assert error.found == f"'{text}' is no amount of money."
    assert error.remedy == "Write it like 50, 50EUR or 12.50 USD."


def test_prices_take_the_currency_that_any_of_them_has():
    assert parse_prices("2", None, None) == Prices(2.0, None, "EUR")
    assert parse_prices("2", "0.3USD", None) == Prices(2.0, 0.3, "USD")
    assert parse_prices("2", None, "gbp") == Prices(2.0, None, "GBP")
    assert parse_prices("2", None, None, budget="50CHF").currency == "CHF"
    assert not parse_prices(None, None, None).known


def test_prices_in_two_currencies_are_refused():
    error = refused(parse_prices, "2USD", None, None, budget="50EUR")
    assert error.where == "prices"
    assert error.found == "--price-per-hour is in USD and --budget is in EUR; nothing is converted here."
    assert error.remedy == "Give all of them in one currency."
    assert refused(parse_prices, "2", "0.3USD", "EUR").where == "prices"
    unknown = refused(parse_prices, None, None, "florins")
    assert str(unknown) == "--currency: 'florins' is no currency. Use three letters, such as EUR or USD."


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("friday 18:00", datetime(2026, 11, 27, 18)),
        ("Fri 18:00", datetime(2026, 11, 27, 18)),
        ("friday", datetime(2026, 11, 28)),
        ("wednesday 18:00", datetime(2026, 11, 25, 18)),
        ("wednesday 9:00", datetime(2026, 12, 2, 9)),
        ("tomorrow 9:00", datetime(2026, 11, 26, 9)),
        ("tomorrow", datetime(2026, 11, 27)),
        ("today 18:00", datetime(2026, 11, 25, 18)),
        ("today", datetime(2026, 11, 26)),
        ("18:00", datetime(2026, 11, 25, 18)),
        ("9:00", datetime(2026, 11, 26, 9)),
        ("2026-12-01", datetime(2026, 12, 2)),
        ("2026-12-01 18:30", datetime(2026, 12, 1, 18, 30)),
        ("2026-12-01T18:30", datetime(2026, 12, 1, 18, 30)),
        ("in 36 hours", datetime(2026, 11, 27, 3, 30)),
        ("90 minutes", datetime(2026, 11, 25, 17, 0)),
        ("in 2 days", datetime(2026, 11, 27, 15, 30)),
        ("in a week", datetime(2026, 12, 2, 15, 30)),
    ],
)
def test_ends_are_read_as_a_person_means_them(text, end):
    """A day without a time lasts to its midnight; a weekday or a time that has passed today is the next one."""
    assert parse_until(text, now=NOW) == end


@pytest.mark.parametrize("text", ["", "soon", "in 3 fortnights", "2026-13-01", "25:00", "friday 18:77", "fr", "18"])
def test_an_end_that_cannot_be_read_is_refused(text):
    error = refused(parse_until, text, now=NOW)
    assert (error.where, error.found) == ("--until", f"'{text}' is no time that can be read.")
    assert '"friday 18:00", "tomorrow 9:00", "2026-12-01"' in error.remedy


@pytest.mark.parametrize("text", ["2026-11-24", "today 9:00", "2020-01-01 10:00"])
def test_an_end_in_the_past_is_refused(text):
    error = refused(parse_until, text, now=NOW)
    assert error.found == f"'{text}' is in the past: it is 2026-11-25 15:30 now."
    assert error.remedy == "Name a later time."


def test_a_budget_buys_the_time_that_its_prices_give():
    assert steps(budget="3.60EUR") == 360, "an hour at 3.60 an hour, ten seconds a step"
    assert steps(budget="3.60", prices=Prices(per_kwh=0.72)) == 3600, "0.36 an hour at 500 W"
    both = Prices(per_hour=3.24, per_kwh=0.72)
    assert steps(budget="3.60", prices=both) == 360
    twice = Pace(100_000, probed_rate(10_000.0), power_w=500.0, world_size=2)
    assert steps(budget="3.60", pace=twice) == 180


def test_an_end_gives_the_steps_that_are_whole_by_then():
    assert steps(until="in 1 hours") == 360
    assert steps(until="16:00") == 180


def test_tokens_are_rounded_up_to_whole_steps_and_need_no_speed():
    assert steps(tokens="1M") == 10
    assert steps(tokens="1000001") == 11
    assert steps(tokens="1M", pace=Pace(100_000, None)) == 10


def test_of_several_wishes_the_tightest_rules_and_says_so():
    wishes = Wishes(budget="3.60EUR", until="16:00", tokens="1B")
    solution = solve(wishes, prices=Prices(per_hour=3.6), pace=PACE, now=NOW)
    assert solution.tightest.steps == 180
    assert solution.reasons == (
        '--until "16:00" gives 180 steps; --budget 3.60EUR would allow 360, --tokens 1B would allow 10,000.',
    )


def test_a_budget_without_a_price_is_refused():
    error = refused(steps, budget="50", prices=Prices())
    assert str(error) == (
        "--budget: there is no price that it could be divided by. Add --price-per-hour X or --price-per-kwh X."
    )
    unknown = refused(steps, budget="50", prices=Prices(per_kwh=0.3), pace=Pace(1000, probed_rate(100.0)))
    assert "nothing is known of the power that this device takes" in unknown.found
    assert unknown.remedy == "Give --price-per-hour, or name a card: --gpu."


def test_a_price_of_nothing_is_refused_because_it_sets_no_limit():
    error = refused(steps, budget="50", prices=Prices(per_hour=0.0))
    assert str(error) == "--budget: at a price of 0 it buys any number of steps. Give a price above 0."


def test_a_budget_and_an_end_need_the_speed():
    for wish in ({"budget": "50"}, {"until": "friday"}):
        error = refused(steps, pace=Pace(100_000, None, power_w=500.0), **wish)
        assert error.where == f"--{next(iter(wish))}"
        assert error.found == "nothing is known of the speed of this device."
        assert error.remedy == "Measure it (--probe), or name a card of the table: --gpu."


def test_what_buys_no_step_is_refused():
    error = refused(steps, budget="0.005EUR")
    assert error.where == "--budget"
    assert error.found == "'0.005EUR' buys no step: one takes 10 s, and there are 5 s."
    assert error.remedy.startswith("Give more, take fewer rows a step (--rows-per-step)")
    assert refused(steps, until="in 0.1 minutes").where == "--until"
