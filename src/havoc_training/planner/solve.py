"""From a budget, an end or a number of tokens to the steps of a run. Imports no torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from havoc_core.errors import ConfigError
from havoc_training.planner.plan import Prices, money_per_second
from havoc_training.planner.rates import Rate

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_SYMBOLS = {"€": "EUR", "$": "USD", "£": "GBP", "¥": "JPY"}
_NUMBER = r"\d+(?:[_,]\d{3})*(?:\.\d+)?(?:[eE][-+]?\d+)?|\.\d+"
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SECONDS = {"minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_TIMES = 'such as "friday 18:00", "tomorrow 9:00", "2026-12-01", "2026-12-01 18:00" or "in 36 hours"'


@dataclass(frozen=True)
class Wishes:
    """What a user wants to be held, as written; None: does not matter."""

    budget: str | None = None
    until: str | None = None
    tokens: str | None = None

    @property
    def any(self) -> bool:
        """Whether there is one at all."""
        return not (self.budget is None and self.until is None and self.tokens is None)


@dataclass(frozen=True)
class Pace:
    """What a step takes."""

    tokens_per_step: int
    rate: Rate | None
    power_w: float | None = None
    world_size: int = 1


@dataclass(frozen=True)
class Limit:
    """What one wish allows."""

    wish: str
    """Such as "--budget 50EUR"."""
    steps: int


@dataclass(frozen=True)
class Solution:
    """The steps that all wishes allow."""

    limits: tuple[Limit, ...]
    """In the order budget, until, tokens."""

    @property
    def tightest(self) -> Limit:
        """The one that rules."""
        return min(self.limits, key=lambda limit: limit.steps)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Which wish rules, and what the others would allow."""
        rules = self.tightest
        others = [f"{limit.wish} would allow {limit.steps:,}" for limit in self.limits if limit is not rules]
        return (f"{rules.wish} gives {rules.steps:,} steps" + (f"; {', '.join(others)}" if others else "") + ".",)


def solve(wishes: Wishes, *, prices: Prices, pace: Pace, now: datetime) -> Solution:
    """How many steps the wishes allow; the tightest rules.

    Args:
        wishes: at least one.
        prices: for a budget.
        pace: tokens of a step, and speed.
        now: local time without a zone, when the run would begin.

    Raises:
        ConfigError: a wish cannot be read, needs what is not known, or buys not even one step.
    """
    limits = []
    if wishes.budget is not None:
        limits.append(_limit(f"--budget {wishes.budget}", _seconds_of_budget(wishes.budget, prices, pace), pace))
    if wishes.until is not None:
        end = parse_until(wishes.until, now=now)
        # Naive local times: as timestamps they know of the hour that summer time adds or takes.
        limits.append(_limit(f'--until "{wishes.until}"', end.timestamp() - now.timestamp(), pace))
    if wishes.tokens is not None:
        steps = math.ceil(parse_tokens(wishes.tokens) / pace.tokens_per_step)
        limits.append(Limit(f"--tokens {wishes.tokens}", steps))
    return Solution(tuple(limits))


def parse_tokens(text: str) -> int:
    """A number of tokens: "10B", "500M", "1.5T", "10e9", "10_000".

    Raises:
        ConfigError: it is no such number, or less than one.
    """
    match = re.fullmatch(rf"({_NUMBER})\s*([kmbgt]?)", text.strip().lower())
    tokens = float(match[1].replace(",", "").replace("_", "")) * _UNITS[match[2]] if match else 0.0
    if not 1.0 <= tokens < 1e18:
        raise ConfigError("--tokens", f"'{text}' is no number of tokens.", "Write it like 500M, 10B or 10e9.")
    return round(tokens)


def parse_money(text: str, *, where: str) -> tuple[float, str | None]:
    """An amount and its currency, if one stands beside it: "50EUR", "€50", "12.50 USD", "50".

    Raises:
        ConfigError: it is no amount of money.
    """
    match = re.fullmatch(rf"([^\d\s.,+-]*)\s*({_NUMBER})\s*([^\d\s.,+-]*)", text.strip())
    marks = [mark for mark in (match[1], match[3]) if mark] if match else []
    currency = _currency(marks[0]) if len(marks) == 1 else None
    if match is None or len(marks) > 1 or (marks and currency is None):
        raise ConfigError(where, f"'{text}' is no amount of money.", "Write it like 50, 50EUR or 12.50 USD.")
    return float(match[2].replace(",", "").replace("_", "")), currency


def parse_prices(
    per_hour: str | None, per_kwh: str | None, currency: str | None, *, budget: str | None = None
) -> Prices:
    """Prices as written on the command line, all in one currency.

    Args:
        per_hour: of one device.
        per_kwh: of energy.
        currency: of what has none of its own; None: that of the others, or EUR.
        budget: whose currency must be the same.

    Raises:
        ConfigError: one is no amount of money, or they are in several currencies.
    """
    if currency is not None and _currency(currency) is None:
        raise ConfigError("--currency", f"'{currency}' is no currency.", "Use three letters, such as EUR or USD.")
    found = {"--currency": _currency(currency)} if currency is not None else {}
    amounts: dict[str, float] = {}
    for where, text in (("--price-per-hour", per_hour), ("--price-per-kwh", per_kwh), ("--budget", budget)):
        if text is not None:
            amounts[where], its_own = parse_money(text, where=where)
            if its_own is not None:
                found[where] = its_own
    if len(set(found.values())) > 1:
        said = " and ".join(f"{where} is in {name}" for where, name in found.items())
        raise ConfigError("prices", f"{said}; nothing is converted here.", "Give all of them in one currency.")
    common = next(iter(found.values()), None) or "EUR"
    return Prices(amounts.get("--price-per-hour"), amounts.get("--price-per-kwh"), common)


def parse_until(text: str, *, now: datetime) -> datetime:
    """A moment in local time: a weekday, today, tomorrow or a date, with a time or to the end of the day; a time; a wait.

    Args:
        text: as the user wrote it.
        now: local time without a zone.

    Raises:
        ConfigError: it cannot be read, or it is not in the future.
    """
    words = text.strip().lower()
    end = _wait(words, now) or _moment(words, now)
    if end is None:
        raise ConfigError("--until", f"'{text}' is no time that can be read.", f"Write it {_TIMES}.")
    if end <= now:
        raise ConfigError("--until", f"'{text}' is in the past: it is {now:%Y-%m-%d %H:%M} now.", "Name a later time.")
    return end


def _seconds_of_budget(text: str, prices: Prices, pace: Pace) -> float:
    amount, _ = parse_money(text, where="--budget")
    if not prices.known:
        raise ConfigError(
            "--budget", "there is no price that it could be divided by.", "Add --price-per-hour X or --price-per-kwh X."
        )
    each = money_per_second(prices, power_w=pace.power_w, world_size=pace.world_size)
    if each is None:
        raise ConfigError(
            "--budget",
            "nothing is known of the power that this device takes, so energy has no cost.",
            "Give --price-per-hour, or name a card: --gpu.",
        )
    return math.inf if each == 0 else amount / each


def _limit(wish: str, seconds: float, pace: Pace) -> Limit:
    if pace.rate is None:
        raise ConfigError(
            wish.split(" ")[0],
            "nothing is known of the speed of this device.",
            "Measure it (--probe), or name a card of the table: --gpu.",
        )
    step_s = pace.tokens_per_step / pace.rate.tokens_per_s
    if math.isinf(seconds):
        raise ConfigError(wish.split(" ")[0], "at a price of 0 it buys any number of steps.", "Give a price above 0.")
    if seconds < step_s:
        raise ConfigError(
            wish.split(" ")[0],
            f"'{wish.split(' ', 1)[1]}' buys no step: one takes {step_s:,.0f} s, and there are {max(0.0, seconds):,.0f} s.",
            "Give more, take fewer rows a step (--rows-per-step), or take a smaller model (--model.size).",
        )
    return Limit(wish, int(seconds / step_s))


def _currency(text: str) -> str | None:
    """Three capital letters, or None where it is no currency."""
    code = _SYMBOLS.get(text.strip(), text.strip().upper())
    return code if re.fullmatch(r"[A-Z]{3}", code) else None


def _wait(words: str, now: datetime) -> datetime | None:
    """From now: "in 36 hours", "90 minutes", "in 2 days"."""
    match = re.fullmatch(rf"(?:in\s+)?({_NUMBER}|an?)\s*(minute|hour|day|week)s?", words)
    if match is None:
        return None
    number = 1.0 if match[1] in {"a", "an"} else float(match[1].replace(",", "").replace("_", ""))
    try:
        return now + timedelta(seconds=number * _SECONDS[match[2]])
    except OverflowError:
        return datetime.max


def _moment(words: str, now: datetime) -> datetime | None:
    """A day and a time of it."""
    day_text, clock = words, None
    match = re.fullmatch(r"(.*?)[\st]*(?<!\d)(\d{1,2}):(\d{2})(?::\d{2})?", words)
    if match is not None:
        if int(match[2]) > 23 or int(match[3]) > 59:
            return None
        day_text, clock = match[1].strip(), time(int(match[2]), int(match[3]))
    if not day_text and clock is not None:
        today = datetime.combine(now.date(), clock)
        return today if today > now else today + timedelta(days=1)
    day = _named_day(day_text, now) or _date(day_text)
    if day is None:
        return None
    # Without a time the whole day is meant.
    end = datetime.combine(day.date(), clock) if clock else datetime.combine(day.date(), time()) + timedelta(days=1)
    is_weekday = day_text not in {"today", "tomorrow"} and not day_text[0].isdigit()
    return end + timedelta(days=7) if is_weekday and end <= now else end


def _named_day(text: str, now: datetime) -> datetime | None:
    if text in {"today", "tomorrow"}:
        return now + timedelta(days=("today", "tomorrow").index(text))
    text = text.removeprefix("next ").removeprefix("on ")
    number = next((i for i, day in enumerate(_DAYS) if len(text) >= 3 and day.startswith(text)), None)
    return None if number is None else now + timedelta(days=(number - now.weekday()) % 7)


def _date(text: str) -> datetime | None:
    try:
        return datetime.strptime(text.rstrip("t "), "%Y-%m-%d")
    except ValueError:
        return None
