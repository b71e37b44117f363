"""Do the memory presets learn as well as textbook AdamW, and can this comparison see damage?

    python benchmarks/memory_presets_quality.py [--out runs/memory_presets_quality] [--tokens 1_500_000] [--jobs 2]

Three million parameters (`model: nano`) learn from 1.5 M tokens of package documentation, in bfloat16 on the CPU, through the
whole Trainer: three seeds, each with `fp32_master`, `bf16_sr` and `8bit`. A seed fixes the rows and the first weights, so that
runs of one seed differ in nothing but the preset and are compared in pairs. What counts is the loss on the held-out text at the
end. The bars: bf16_sr within 0.6 % of fp32_master and 8bit within 0.5 %.

Then the control: from the checkpoint of fp32_master in which its rate is about to fall, training goes on at a constant rate of
3e-5 for a fifth as many tokens, with fp32_master, with bf16_sr, and with bf16_sr rounded to nearest, which the settings refuse.
Nearest must be visibly worse, or the comparison above proves nothing.

Every run is a child process with one thread. Results are appended to OUT/results.jsonl, and what stands there is not run again:
an interrupted study goes on. `--only NAME --seed S` makes one run in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

ROWS, LENGTH = 8, 256
"""Of a step."""
SEEDS = (1, 2, 3)
BASE = "fp32_master"
BARS = {"bf16_sr": 0.6, "8bit": 0.5}
"""Percent above fp32_master, at most, in the mean over the seeds."""
CONTROLS = {"control-fp32_master": "fp32_master", "control-bf16_sr": "bf16_sr", "control-nearest": "bf16_sr"}
"""Name -> preset of the runs from the warm checkpoint."""
CONTROL_RATE = 3e-5
WARM = 0.6
"""Part of the run after which the rate falls and the warm checkpoint is written."""


@dataclass(frozen=True)
class Study:
    """Where the runs lie and how long they are."""

    folder: Path
    tokens: int

    @property
    def steps(self) -> int:
        return self.tokens // (ROWS * LENGTH)

    @property
    def warm_step(self) -> int:
        return round(WARM * self.steps)

    @property
    def control_steps(self) -> int:
        return max(1, self.steps // 5)

    @property
    def results(self) -> Path:
        return self.folder / "results.jsonl"

    def run_dir(self, name: str, seed: int) -> Path:
        return self.folder / f"{name}-{seed}-{self.tokens}"

    def warm_checkpoint(self, seed: int) -> Path:
        return self.run_dir(BASE, seed) / "checkpoints" / f"checkpoint_step_{self.warm_step}"


@dataclass(frozen=True)
class Result:
    """The end of a run."""

    name: str
    seed: int
    tokens: int
    """Of the study, which says how long the run was."""
    loss: float
    """On the held-out text, nats a token."""
    warm_loss: float
    """The same at the warm checkpoint."""
    steps: int
    tokens_per_s: float
    machine: str
    compiled: Mapping[str, bool] = field(default_factory=dict)
    """What `compile: auto` chose. It decides the last bits, so it should be the same in all runs."""


def values_of(study: Study, name: str, seed: int) -> dict[str, Any]:
    """Settings of a run."""
    values: dict[str, Any] = {
        "run_dir": str(study.run_dir(name, seed)), "seed": seed, "device": "cpu", "threads": 1,
        "data": {"fallback": "package_docs", "data_dir": "data", "max_sequence_length": LENGTH},
        "model": {"size": "nano", "max_seq_len": LENGTH},
        "batch_size": ROWS, "gradient_accumulation_steps": 1, "max_steps": study.steps,
        # 2e-3 is the best of AdamW's rates for this model in configs/training/first_run.yaml.
        "learning_rate": 2.0e-3, "min_learning_rate": 1.0e-4, "warmup_steps": 40,
        "lr_scheduler_type": "wsd", "decay_fraction": 1.0 - WARM,
        "use_amp": True, "compile": "auto", "memory": CONTROLS.get(name, name),
        "eval_every_n_steps": study.warm_step, "eval_samples": 64, "save_every_n_steps": study.warm_step,
        "tracking": {"trackers": []},
    }  # fmt: skip
    if name in CONTROLS:
        values |= {
            "max_steps": study.warm_step + study.control_steps, "learning_rate": CONTROL_RATE,
            "min_learning_rate": CONTROL_RATE, "warmup_steps": 0, "lr_scheduler_type": "constant",
            "resume_from_checkpoint": str(study.warm_checkpoint(seed)), "eval_every_n_steps": 1_000_000,
            "save_every_n_steps": 1_000_000,
        }  # fmt: skip
    return values


def prepare(study: Study) -> None:
    """Text, tokenizer and store, which all runs share."""
    from havoc_core.config_files import resolve
    from havoc_data.prepare.build import prepare as prepare_data

    values = values_of(study, BASE, SEEDS[0]) | {"run_dir": str(study.folder / "shared")}
    prepare_data(resolve(values, {}).config)


def run_one(study: Study, name: str, seed: int) -> Result:
    """Train one run from its beginning and add its result to the file."""
    from havoc_core.config_files import resolve
    from havoc_core.processor import cpu_name
    from havoc_training.build import build_trainer
    from havoc_training.continuation import find_checkpoint
    from havoc_training.memory.presets import plan_memory

    folder = study.run_dir(name, seed)
    shutil.rmtree(folder, ignore_errors=True)  # a run that was cut off begins anew
    folder.mkdir(parents=True)
    for part in ("corpus", "tokenizer", "store"):
        (folder / part).symlink_to((study.folder / "shared" / part).resolve())
    config = resolve(values_of(study, name, seed), {}).config
    plan = plan_memory(config, preset=config.memory, working="bfloat16")
    if name == "control-nearest":
        plan = replace(plan, rounding="nearest")
    trainer = build_trainer(config, saved=find_checkpoint(config), memory_plan=plan)
    fitted = trainer.fit()
    losses = validation_losses(folder)
    if name in CONTROLS:
        losses |= validation_losses(study.run_dir(BASE, seed), up_to=study.warm_step)
    done = fitted.state.step - (study.warm_step if name in CONTROLS else 0)
    result = Result(
        name=name,
        seed=seed,
        tokens=study.tokens,
        loss=losses[fitted.state.step],
        warm_loss=losses[study.warm_step],
        steps=done,
        tokens_per_s=round(done * ROWS * LENGTH / fitted.compute_seconds, 1),
        compiled=json.loads((fitted.checkpoint / "training_state.json").read_text("utf-8"))["resolved"]["compile"],
        machine=cpu_name(),
    )
    with study.results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result)) + "\n")
    return result


def validation_losses(folder: Path, up_to: int = sys.maxsize) -> dict[int, float]:
    """Step -> loss on the held-out text, from a run's metrics.jsonl."""
    lines = map(json.loads, (folder / "logs/metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "validation" and line["step"] <= up_to}


def read_results(study: Study) -> dict[tuple[str, int], Result]:
    """(name, seed) -> result, of runs of this length."""
    if not study.results.exists():
        return {}
    lines = map(json.loads, study.results.read_text(encoding="utf-8").splitlines())
    return {(line["name"], line["seed"]): Result(**line) for line in lines if line["tokens"] == study.tokens}


def run_all(study: Study, names: Sequence[str], seeds: Sequence[int], *, jobs: int) -> None:
    """Make the runs that are missing, each in a process of its own."""
    there = read_results(study)
    missing = [(name, seed) for seed in seeds for name in names if (name, seed) not in there]

    def run(task: tuple[str, int]) -> str:
        name, seed = task
        command = [sys.executable, __file__, "--out", str(study.folder), "--tokens", str(study.tokens)]
        log = study.folder / f"{name}-{seed}.log"
        with log.open("wb") as file:
            done = subprocess.run(
                [*command, "--only", name, "--seed", str(seed)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                check=False,
            )
        return "" if done.returncode == 0 else f"{name} with seed {seed} failed; see {log}"

    with ThreadPoolExecutor(jobs) as pool:
        for task, trouble in zip(missing, pool.map(run, missing), strict=True):
            print(trouble or f"{task[0]} with seed {task[1]} is done", file=sys.stderr, flush=True)


def differences(results: Mapping[tuple[str, int], Result], name: str, base: str) -> list[float]:
    """Percent above the run of `base` with the same seed, seed by seed where there are both."""
    pairs = [(result, results.get((base, seed))) for (each, seed), result in sorted(results.items()) if each == name]
    return [100.0 * (result.loss / other.loss - 1.0) for result, other in pairs if other is not None]


def table(study: Study, results: Mapping[tuple[str, int], Result]) -> str:
    """Both comparisons in Markdown; a run that is missing is "not measured"."""
    seeds = sorted({seed for _, seed in results})
    header = [*(f"seed {seed}" for seed in seeds), "difference in pairs, mean (range)", "bar", "verdict"]
    out = [f"Validation loss after {study.steps * ROWS * LENGTH:,} tokens, nats a token", ""]
    out += rows_of(results, [BASE, *BARS], base=BASE, header=["preset", *header])
    warm = [results[BASE, seed].warm_loss if (BASE, seed) in results else None for seed in seeds]
    out += [
        "",
        f"And {study.control_steps * ROWS * LENGTH:,} tokens at a rate of {CONTROL_RATE:g} from step {study.warm_step:,}",
        "",
    ]
    lines = rows_of(results, list(CONTROLS), base="control-fp32_master", header=["control", *header])
    before = ["before", *(f"{loss:.4f}" if loss is not None else "not measured" for loss in warm), "", "", ""]
    if len({json.dumps(result.compiled, sort_keys=True) for result in results.values() if result.compiled}) > 1:
        out.insert(0, "NOT COMPARABLE TO THE LAST BIT: compile: auto chose otherwise in some of the runs.")
    return "\n".join([*out, *lines[:2], "| " + " | ".join(before) + " |", *lines[2:]])


def rows_of(
    results: Mapping[tuple[str, int], Result], names: Sequence[str], *, base: str, header: Sequence[str]
) -> list[str]:
    seeds = sorted({seed for _, seed in results})
    lines = ["| " + " | ".join(header) + " |", "| --- " + "| --: " * len(seeds) + "| --- | --- | --- |"]
    for name in names:
        cells = [f"{results[name, seed].loss:.4f}" if (name, seed) in results else "not measured" for seed in seeds]
        off = differences(results, name, base) if name != base else []
        spread = f"{statistics.mean(off):+.2f} % ({min(off):+.2f} to {max(off):+.2f})" if off else ""
        lines.append("| " + " | ".join([name, *cells, spread, *verdict(name, off, results)]) + " |")
    return lines


def verdict(name: str, off: Sequence[float], results: Mapping[tuple[str, int], Result]) -> tuple[str, str]:
    """What is asked of a run, and whether it is so."""
    if name in BARS:
        met = statistics.mean(off) <= BARS[name] if off else None
        return f"at most +{BARS[name]} %", {True: "met", False: "missed", None: "not measured"}[met]
    if name == "control-nearest":
        others = differences(results, "control-bf16_sr", "control-fp32_master")
        worse = min(off) > max(0.0, *others) if off and others else None
        return "worse than both, with every seed", {True: "seen", False: "not seen", None: "not measured"}[worse]
    return "", ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/memory_presets_quality"), help="folder of the runs")
    parser.add_argument("--tokens", type=int, default=1_500_000, help="of each run; fewer for a try")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--only", choices=[BASE, *BARS, *CONTROLS], help="this run alone, in this process")
    parser.add_argument("--seed", type=int, default=SEEDS[0], help="with --only")
    args = parser.parse_args()
    study = Study(args.out, args.tokens)
    if not (study.folder / "shared" / "store").exists():
        prepare(study)
    if args.only:
        print(json.dumps(asdict(run_one(study, args.only, args.seed))))
        return
    run_all(study, [BASE, *BARS], args.seeds, jobs=args.jobs)
    run_all(study, list(CONTROLS), args.seeds, jobs=args.jobs)
    print(table(study, read_results(study)))


if __name__ == "__main__":
    main()
