"""The record of a plan: what follows from what, and back from JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from havoc_core.config import TrainingConfig
from havoc_core.errors import DataError
from havoc_training.planner.choice import choose
from havoc_training.planner.ledger import checkpoint_bytes
from havoc_training.planner.machine import Machine, machine_of_card
from havoc_training.planner.plan import Outlook, Plan, Prices, Schedule, make_plan, money_per_second
from havoc_training.planner.rates import probed_rate

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CONFIG = TrainingConfig(model="1b", keep_last_n_checkpoints=2)  # type: ignore[arg-type]


def plan_of(machine=None, *, total_steps=1000, rate=20_000.0, world_size=1, **schedule) -> Plan:
    machine = machine or machine_of_card("H200")
    choice = choose(CONFIG, machine, working="bfloat16", world_size=world_size)
    times = Schedule(
        total_steps=total_steps, rate=None if rate is None else probed_rate(rate), begins_at=NOW, **schedule
    )
    return make_plan(CONFIG, choice, machine, times, world_size=world_size)


def test_length_time_and_energy_follow_from_steps_and_speed():
    plan = plan_of()
    assert plan.tokens_per_step == 32 * 2048
    assert plan.total_tokens == 65_536_000
    assert plan.seconds == 65_536_000 / 20_000
    assert plan.ends_at == NOW + timedelta(seconds=3276.8)
    assert plan.energy_kwh == pytest.approx(0.7 * 3276.8 / 3600), "an H200 takes 700 W"
    assert plan.days_per_billion_tokens == pytest.approx(1e9 / 20_000 / 86400)
    assert plan.rate_origin == "probe"


def test_money_is_time_and_energy_at_their_prices():
    hours = 3276.8 / 3600
    assert plan_of(prices=Prices(per_hour=2.0)).money == pytest.approx(2.0 * hours)
    assert plan_of(prices=Prices(per_kwh=0.3)).money == pytest.approx(0.3 * 0.7 * hours)
    assert plan_of(prices=Prices(2.0, 0.3)).money == pytest.approx((2.0 + 0.21) * hours)
    assert plan_of().money is None


def test_every_device_costs():
    one, two = (plan_of(prices=Prices(2.0, 0.3), world_size=n) for n in (1, 2))
    assert two.seconds is not None
    assert two.money == pytest.approx(2 * one.money * two.seconds / one.seconds)
    assert two.energy_kwh == pytest.approx(2 * one.energy_kwh * two.seconds / one.seconds)


def test_energy_without_a_known_power_has_no_price():
    assert money_per_second(Prices(per_kwh=0.3), power_w=None) is None
    assert money_per_second(Prices(), power_w=700.0) is None
    assert money_per_second(Prices(per_hour=3.6), power_w=None) == pytest.approx(0.001)


def test_the_peak_is_that_of_the_phase_that_decides():
    plan = plan_of()
    sums = {name: sum(parts.values()) for name, parts in plan.phases.items()}
    assert sums[plan.peak_phase] == max(sums.values()) == plan.peak_bytes
    assert sum(plan.host.values()) == plan.host_bytes


def test_the_disk_holds_the_kept_checkpoints_the_best_and_one_being_written():
    plan = plan_of()
    assert plan.num_checkpoints == 2 + 1 + 1
    assert plan.disk_bytes == 4 * checkpoint_bytes(CONFIG.model, plan.memory)


def test_free_disk_is_looked_up_here_and_not_for_a_machine_that_is_elsewhere(tmp_path):
    assert plan_of().disk_free_bytes is None
    here = Machine("card", "cuda", 2**37, None)
    config = CONFIG.model_copy(update={"run_dir": str(tmp_path / "not" / "yet")})
    choice = choose(config, here, working="bfloat16")
    times = Schedule(total_steps=None, rate=None, begins_at=NOW)
    free = make_plan(config, choice, here, times).disk_free_bytes
    assert free is not None
    assert free > 0


def test_what_is_not_known_stays_open():
    plan = plan_of(total_steps=None)
    assert (plan.total_tokens, plan.seconds, plan.ends_at, plan.energy_kwh, plan.money) == (None,) * 5
    assert plan.days_per_billion_tokens is not None
    slow = plan_of(rate=None)
    assert (slow.tokens_per_s, slow.rate_origin, slow.peak_share, slow.seconds) == (None,) * 4
    assert plan_of(rate=1e-9).ends_at is None, "no calendar reaches that far"


def test_a_plan_comes_back_from_json_as_it_was():
    plan = plan_of(prices=Prices(2.0), epochs={"books": 1.5}, outlook=Outlook(2.5, 2.4, 2.6, "fitted on 6 runs"))
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.memory == plan.memory
    derived = json.loads(plan.to_json())["derived"]
    assert derived["total_tokens"] == plan.total_tokens
    assert derived["ends_at"] == "2026-11-23T12:54:36.800000+00:00"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 99}', '{"version": 1}'])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(DataError) as caught:
        Plan.from_json(text, where="logs/plan.json")
    assert caught.value.where == "logs/plan.json"
    assert caught.value.found.startswith("is no plan of this version (")
    assert caught.value.remedy == "Make it again: havoc plan --json."
