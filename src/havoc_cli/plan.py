"""`havoc plan`: what a run will need, before it starts; on this machine, or on cards that are not here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from havoc_cli.flags import ConfigFlags, load_config, parse_with_settings
from havoc_cli.plan_lines import plan_lines, table_lines, trace_lines
from havoc_cli.train import DEFAULT_CONFIG
from havoc_core.config import TrainingConfig
from havoc_core.errors import ConfigError, PlanError
from havoc_core.run_files import RunFiles
from havoc_training.planner.block_tape import Kernels
from havoc_training.planner.cards import GIB
from havoc_training.planner.choice import Choice, choose
from havoc_training.planner.machine import Machine, machine_here, machine_of_card, working_format
from havoc_training.planner.plan import Outlook, Plan, Prices, Schedule, make_plan
from havoc_training.planner.rates import Rate, predict_rate, probed_rate
from havoc_training.planner.solve import Pace, Wishes, parse_prices, solve


@dataclass(frozen=True)
class PlanFlags(ConfigFlags):
    """Flags of `havoc plan` besides the settings."""

    gpu: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A card to plan for instead of this machine, such as "RTX 4090"; several, with commas or repeated: a row each."""
    host_memory: str | None = None
    """Host memory of the machine, in GiB. Without it: with --gpu as much as is needed, else what is free here."""
    price_per_hour: str | None = None
    """What an hour of one device costs, such as 1.90 or 1.90EUR."""
    price_per_kwh: str | None = None
    """What energy costs, such as 0.35."""
    currency: str | None = None
    """Of prices without one of their own; EUR if nothing else says so."""
    budget: str | None = None
    """Train as long as this pays for, such as 50EUR; needs a price."""
    until: str | None = None
    """Train until then: "friday 18:00", "tomorrow 9:00", 2026-12-01, "in 36 hours". Local time."""
    tokens: str | None = None
    """Train on so many tokens: 500M, 10B, 10e9."""
    fit: tuple[str, ...] = ()
    """Folders of finished runs of yours, from which the final loss is expected."""
    trace: bool = False
    """Trace a step of the model with torch, without contents, and show it beside the plan. Takes some seconds."""
    probe: bool = False
    """Time some seconds of real work on this machine instead of predicting from the datasheet."""
    json: bool = False
    """Print JSON: a plan, or a list of them for several cards."""


@dataclass(frozen=True)
class _Asked:
    """What was asked for, whatever the card."""

    config: TrainingConfig
    flags: PlanFlags
    prices: Prices
    sources: Mapping[str, tuple[str, int]] | None
    """Source -> (group, tokens), as the store's manifest says; None: there is no store yet."""
    now: datetime


def run(argv: Sequence[str]) -> int:
    """Print a plan, and give the exit code: 3 if something cannot fit."""
    flags, given = parse_with_settings(
        PlanFlags,
        argv,
        prog="havoc plan",
        description="What a run will need: memory, disk, time, energy and money. Nothing is started.",
    )
    config = load_config(flags, given, default_file=DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None).config
    names = [name.strip() for text in flags.gpu for name in text.split(",") if name.strip()]
    if flags.probe and names:
        raise ConfigError("--probe", "measures this machine, and --gpu plans for another.", "Leave one of them out.")
    prices = parse_prices(flags.price_per_hour, flags.price_per_kwh, flags.currency, budget=flags.budget)
    asked = _Asked(config, flags, prices, tokens_by_source(config), datetime.now())
    machines = [machine_of_card(name, _host_bytes(flags)) for name in names] or [_machine_here(config, flags)]
    if len(machines) > 1:
        return _print_table(asked, machines)
    plan, choice = _plan(asked, machines[0])
    print(plan.to_json() if flags.json else "\n".join(plan_lines(plan, config, notes=list(_notes(asked, plan)))))
    if flags.trace and not flags.json:
        print("\n".join(_trace(config, choice, machines[0])))
    return 0


def _print_table(asked: _Asked, machines: Sequence[Machine]) -> int:
    rows: list[tuple[str, Plan | PlanError]] = []
    for machine in machines:
        try:
            rows.append((machine.name, _plan(asked, machine)[0]))
        except PlanError as error:
            rows.append((machine.name, error))
    if asked.flags.json:
        plans = [_failure(name, p) if isinstance(p, PlanError) else json.loads(p.to_json()) for name, p in rows]
        print(json.dumps(plans, indent=2, sort_keys=True, ensure_ascii=False))
    else:
        print("\n".join(table_lines(rows)))
    return PlanError.exit_code if any(isinstance(row, PlanError) for _, row in rows) else 0


def _failure(name: str, error: PlanError) -> dict[str, str]:
    return {"machine": name, "error": error.found, "remedy": error.remedy}


def _machine_here(config: TrainingConfig, flags: PlanFlags) -> Machine:
    machine = machine_here(config.device)
    if config.device == "cuda" and machine.kind != "cuda":
        raise ConfigError(
            "device",
            "'cuda' was asked for, and nvidia-smi finds no GPU here.",
            'Plan for a card: --gpu "RTX 4090"; or for this machine: --device cpu.',
        )
    host = _host_bytes(flags)
    if host is None:
        return machine
    return replace(machine, host_bytes=host, device_bytes=host if machine.kind == "cpu" else machine.device_bytes)


def _host_bytes(flags: PlanFlags) -> int | None:
    if flags.host_memory is None:
        return None
    text = flags.host_memory.lower().removesuffix("gib").removesuffix("gb").strip()
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0.0 < size < 1e6:
        raise ConfigError("--host-memory", f"'{flags.host_memory}' is no size.", "Give it in GiB, such as 64.")
    return int(size * GIB)


def _plan(asked: _Asked, machine: Machine) -> tuple[Plan, Choice]:
    config, flags = asked.config, asked.flags
    choice = choose(config, machine, working=working_format(config, machine))
    rate = _probe(config, choice, machine) if flags.probe else predict_rate(config, choice, machine)
    tokens_per_step = choice.micro_batch_size * choice.micro_batches * config.data.max_sequence_length
    wishes = Wishes(flags.budget, flags.until, flags.tokens)
    reasons: tuple[str, ...] = ()
    if wishes.any:
        pace = Pace(tokens_per_step, rate, machine.card.power_w if machine.card else None)
        solution = solve(wishes, prices=asked.prices, pace=pace, now=asked.now)
        steps: int | None = solution.tightest.steps
        reasons = solution.reasons
    else:
        steps = _steps_of_config(asked, tokens_per_step)
    tokens = None if steps is None else steps * tokens_per_step
    schedule = Schedule(
        total_steps=steps,
        rate=rate,
        begins_at=asked.now.astimezone(),
        prices=asked.prices,
        epochs=epochs_by_source(config, asked.sources, tokens) if asked.sources and tokens else None,
        outlook=_outlook(flags.fit, config, tokens) if flags.fit and tokens else None,
    )
    return make_plan(config, replace(choice, reasons=(*choice.reasons, *reasons)), machine, schedule), choice


def _steps_of_config(asked: _Asked, tokens_per_step: int) -> int | None:
    """As set, or about as many as the passes over the store take: rows are not packed here."""
    if asked.config.max_steps is not None:
        return asked.config.max_steps
    if asked.sources is None:
        return None
    tokens = sum(tokens for _, tokens in asked.sources.values())
    return max(1, -int(-asked.config.max_epochs * tokens // tokens_per_step))


def _notes(asked: _Asked, plan: Plan) -> Iterator[str]:
    """What the plan leaves open."""
    if plan.total_steps is None:
        yield "How long the run is: there is no store yet. --tokens, --until, --budget or --max-steps set it."
    elif asked.sources is None:
        yield "Epochs per source: there is no store yet (havoc data build)."
    elif asked.config.max_steps is None and not Wishes(asked.flags.budget, asked.flags.until, asked.flags.tokens).any:
        yield "The exact number of steps, until rows are packed: it is estimated from the tokens of the store."
    if plan.tokens_per_s is None:
        yield "The speed: the device is not in the table of cards, or not in this number format; --probe measures it."
    if asked.flags.fit and plan.total_steps is None:
        yield "The expected loss: it depends on how long the run is."


def _probe(config: TrainingConfig, choice: Choice, machine: Machine) -> Rate:
    import torch  # only when it is asked for: a plan answers without it

    from havoc_training.planner.probe import probe_tokens_per_s

    device = torch.device(machine.kind)
    probe = probe_tokens_per_s(config, choice.memory, micro_batch_size=choice.micro_batch_size, device=device)
    return probed_rate(probe.tokens_per_s)


def _trace(config: TrainingConfig, choice: Choice, machine: Machine) -> Iterator[str]:
    from havoc_training.planner.trace import trace_peaks  # brings torch along

    length = config.data.max_sequence_length
    rows = choice.micro_batch_size
    kernels: Kernels = "cpu" if machine.kind == "cpu" else "gpu"
    traced = trace_peaks(config.model, choice.memory, rows=rows, length=length, kernels=kernels)
    return trace_lines({phase.name: phase.bytes for phase in choice.ledger.phases}, traced.phases)


def _outlook(runs: Sequence[str], config: TrainingConfig, tokens: int) -> Outlook:
    from havoc_core.costs import num_parameters
    from havoc_training.planner.loss_fit import fit_runs

    expected = fit_runs([Path(run) for run in runs]).expect(parameters=num_parameters(config.model), tokens=tokens)
    return Outlook(expected.loss, expected.low, expected.high, expected.note)


def tokens_by_source(config: TrainingConfig) -> dict[str, tuple[str, int]] | None:
    """Source -> (group, tokens) from the manifest of the run's store; None where there is no store that can be read here."""
    folder = Path(config.data.store) if config.data.store else RunFiles.of(config).store
    try:
        sources = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["sources"]
        found = {name: (str(record["group"]), int(record["tokens"])) for name, record in sources.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # what is wrong with it, `havoc train` says
    return found or None


def epochs_by_source(
    config: TrainingConfig, sources: Mapping[str, tuple[str, int]], total_tokens: int
) -> dict[str, float]:
    """How often each source is read in a run: its share of the mixture over the tokens it has.

    Args:
        config: ratios of the groups and weights inside them; a group without text leaves its share to the others.
        sources: source -> (group, tokens).
        total_tokens: of the run.
    """
    ratios, weights = config.data.ratios, config.data.weights
    whole = sum(ratios.get(group, 0.0) for group in {group for group, _ in sources.values()})
    out: dict[str, float] = {}
    for name, (group, tokens) in sources.items():
        members = {other: size for other, (g, size) in sources.items() if g == group}
        named = {other: weights[other] for other in members if other in weights}
        unnamed = sum(size for other, size in members.items() if other not in named)
        rest = max(0.0, 1.0 - sum(named.values())) if unnamed else 0.0
        inside = named[name] if name in named else rest * tokens / unnamed
        share = inside / ((sum(named.values()) + rest) or 1.0) * ratios.get(group, 0.0) / (whole or 1.0)
        out[name] = share * total_tokens / max(1, tokens)
    return out
