"""How fast is one GPU, how much memory does it take, and is what it computes right?

    python benchmarks/one_gpu.py --only 8b-bf16 [--out runs/one_gpu] [--whole-rows]
    python benchmarks/one_gpu.py                     # every row that has no result yet, then the table
    python benchmarks/one_gpu.py --device cpu --small

Rows are measured one by one, each in a process of its own and well inside ten minutes; results are appended to
OUT/results.jsonl, and the table is made from what stands there. Every row uses the parts of a Trainer as `build.py` puts them
together (model, memory plan, optimizer, step) on synthetic tokens: documents of random lengths, kept apart in attention, unless
`--whole-rows` makes every row one document, as the published rates were measured. `--small` runs tiny shapes in seconds, to try
the script on a machine without a GPU; what it prints then says nothing about speed.

A row that several settings could fit tries them in order: one that the plan says is too large, or that runs out of memory, is
passed over and named. Peak memory is compared with what the plan predicted. `cap-*` rows cap torch's allocator at what a
smaller card leaves to it; that shows that the run fits there, not how fast such a card is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from one_gpu_parts import (
    CASES,
    CHECKS,
    MODEL_100M,
    TINY,
    Bench,
    Case,
    batches,
    config_of,
    document_lengths,
    put_together,
)
from torch import Tensor

from havoc_core.config import TrainingConfig
from havoc_core.costs import num_parameters
from havoc_core.device import choose_device, memory_peaks
from havoc_core.distributed import World
from havoc_core.errors import HavocError
from havoc_core.layers.attention import attend, attend_in_blocks
from havoc_core.layers.segments import Segments
from havoc_core.processor import cpu_name
from havoc_core.tensor_file import TensorSource
from havoc_training.memory.arena import Arena
from havoc_training.memory.host_link import HostLink
from havoc_training.memory.presets import plan_memory
from havoc_training.metrics import Yardstick
from havoc_training.planner.cards import GIB, card_of_device
from havoc_training.planner.device_rates import measure_matmul_rate, seconds_of
from havoc_training.planner.ledger import memory_ledger
from havoc_training.step import StepSettings, train_step

SHARE_OF_UNCAPPED = 0.70
"""Of the speed of `uncapped-7b`, at least, where the allocator is capped."""
NEAR_PLAN = 0.03
"""Relative difference between the peak and the plan, at most."""


def measure_speed(name: str, bench: Bench) -> dict[str, Any]:
    """The first setting of a case that fits: tokens a second, utilisation, memory beside the plan."""
    case = bench.shrunk(CASES[name])
    limit = case.cap_gib * GIB if case.cap_gib else bench.total_bytes
    if bench.total_bytes and case.cap_gib:
        torch.cuda.set_per_process_memory_fraction(case.cap_gib * GIB / bench.total_bytes, bench.device)
    passed_over = []
    for recompute, rows in case.tries:
        config = config_of(case, recompute, rows, bench.device)
        plan = plan_memory(config, preset=config.memory, working="bfloat16")
        ledger = memory_ledger(config.model, plan, rows=rows, length=case.length)
        if limit and ledger.peak_bytes > limit:
            passed_over.append(f"{recompute} x {rows}: {ledger.peak_bytes / GIB:.1f} GiB planned")
            continue
        found: dict[str, Any] = {}
        try:
            found = run_steps(config, case, bench)
        except torch.OutOfMemoryError:
            passed_over.append(f"{recompute} x {rows}: out of memory, {ledger.peak_bytes / GIB:.1f} GiB planned")
        if not found:  # outside of the handler, which keeps every tensor of the failed step alive
            torch.cuda.empty_cache()
            continue
        allocated = found["allocated_bytes"]
        return found | {
            "parameters": num_parameters(config.model),
            "setting": f"{case.memory}, recompute {plan.recompute}, "
            f"{rows} x {config.gradient_accumulation_steps} rows of {case.length}",
            "planned_bytes": ledger.peak_bytes, "planned_host_bytes": ledger.host_bytes,
            "ratio": round(allocated / ledger.peak_bytes, 4) if allocated else None, "passed_over": passed_over,
        }  # fmt: skip
    return {"not_measured": f"nothing fits: {'; '.join(passed_over)}"}


def run_steps(config: TrainingConfig, case: Case, bench: Bench) -> dict[str, Any]:
    """Train for some steps. The first compiles and fills, the second settles; of the others the median counts."""
    model, updater = put_together(config, bench.device)
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    settings = StepSettings(config.max_grad_norm, config.z_loss_weight, World())
    prepared = [batches(config, seed=step, whole_rows=bench.whole_rows) for step in range(min(case.steps, 3))]
    seconds, losses, reserved = [], [], []
    for step in range(case.steps):
        wanted = prepared[step % len(prepared)]
        began = time.perf_counter()
        losses.append(train_step(model, updater, wanted, lr_factor=1.0, settings=settings).loss)
        if bench.device.type == "cuda":
            torch.cuda.synchronize(bench.device)
        seconds.append(time.perf_counter() - began)
        reserved.append(memory_peaks(bench.device).reserved)
    tokens = config.batch_size * config.gradient_accumulation_steps * config.data.max_sequence_length
    rate = tokens / statistics.median(seconds[min(3, case.steps // 2) :])
    peaks = memory_peaks(bench.device)
    del model, updater
    return {
        "tokens_per_s": round(rate, 1), "first_step_s": round(seconds[0], 1), "step_s": [round(s, 4) for s in seconds],
        "losses": [round(loss, 4) for loss in losses], "tokens_per_step": tokens, "reserved_by_step": reserved,
        "allocated_bytes": peaks.allocated, "reserved_bytes": peaks.reserved, "used_bytes": peaks.used,
        **utilisation(config, rate, bench),
    }  # fmt: skip


def utilisation(config: TrainingConfig, rate: float, bench: Bench) -> dict[str, float | None]:
    """By both conventions of costs.py, each as a share of the datasheet's bfloat16 peak and of the measured rate."""
    plan = plan_memory(config, preset=config.memory, working="bfloat16")
    total = bench.total_bytes
    card = card_of_device(torch.cuda.get_device_name(bench.device), memory_bytes=total) if total else None
    shares = Yardstick.of(
        config.model,
        sequence_length=config.data.max_sequence_length,
        recompute=plan.recompute,
        datasheet_flops_per_s=card.bf16_flops_per_s if card else None,
        measured_flops_per_s=measure_matmul_rate(bench.device, torch.bfloat16),
    ).utilisation(rate)
    return {
        "mfu": shares.mfu,
        "hfu": shares.hfu,
        "mfu_measured": shares.mfu_measured,
        "hfu_measured": shares.hfu_measured,
    }


def check_fidelity(bench: Bench) -> dict[str, Any]:
    """Whether placement changes no bit, document attention is attention, and fp8 learns as bfloat16 does."""
    return {
        "bit_equal_to_resident": {name: placed_alike(name, bench) for name in ("stream", "offload")},
        "attention": attention_error(bench),
        "fp8": fp8_losses(bench),
    }


def placed_alike(memory: str, bench: Bench) -> bool:
    """Whether master and moments are bit for bit those of a resident run after five steps with accumulation."""
    states = []
    for preset in ("fp32_master", memory):
        case = Case(TINY, 64, preset, (("full", 2),), {"gradients": "bfloat16"}, step_tokens=512)
        config = config_of(case, "full", 2, bench.device)
        model, updater = put_together(config, bench.device, exact_start=True)
        settings = StepSettings(config.max_grad_norm, config.z_loss_weight, World())
        for step in range(5):
            train_step(model, updater, batches(config, seed=step, whole_rows=False), lr_factor=1.0, settings=settings)
        states.append(
            {
                n: {k: v.made() if isinstance(v, TensorSource) else v.clone() for k, v in kept.items()}
                for n, kept in updater.state_dict().items()
            }
        )
    one, other = states
    return all(torch.equal(one[name][key], other[name][key]) for name in one for key in one[name])


def attention_error(bench: Bench) -> dict[str, float]:
    """Largest difference between FlexAttention and masked SDPA over the largest entry of SDPA's, in bfloat16.

    Gradients on a GPU alone: FlexAttention has none elsewhere.
    """
    on_gpu = bench.device.type == "cuda"
    heads, kv_heads, width, length = (4, 2, 32, 128) if bench.small else (32, 8, 128, 4096)
    generator = np.random.default_rng(0)
    segments = Segments.of_lengths([document_lengths(length, generator) for _ in range(2)], length).to(bench.device)
    torch.manual_seed(0)
    shapes = {"q": (2, heads, length, width), "k": (2, kv_heads, length, width), "v": (2, kv_heads, length, width)}
    values = [torch.randn(s, device=bench.device).bfloat16().requires_grad_(on_gpu) for s in shapes.values()]
    results: list[dict[str, Tensor]] = []
    for blocks in (False, True):
        q, k, v = values
        out = attend_in_blocks(q, k, v, segments.blocks) if blocks else attend(q, k, v, segments.mask)
        gradients = torch.autograd.grad(out.float().square().sum(), values) if on_gpu else ()
        results.append({"out": out, **dict(zip(shapes, gradients, strict=False))})
    masked, flex = results
    return {n: float((flex[n] - masked[n]).abs().max() / masked[n].abs().max()) for n in masked}


def fp8_losses(bench: Bench) -> dict[str, Any]:
    """Mean loss of the last tenth of 200 steps at 100 M parameters, same rows and first weights, and the difference."""
    steps, length = (4, 64) if bench.small else (200, 1024)
    ends = []
    for fp8 in (False, True):
        case = Case(TINY if bench.small else MODEL_100M, length, "fp32_master", (), fp8=fp8, step_tokens=16 * length)
        config = config_of(case, "none", 16, bench.device)
        model, updater = put_together(config, bench.device, exact_start=True)
        settings = StepSettings(config.max_grad_norm, config.z_loss_weight, World())
        losses = []
        for step in range(steps):
            wanted, factor = batches(config, seed=step, whole_rows=False), min(1.0, (step + 1) / 20)
            losses.append(train_step(model, updater, wanted, lr_factor=factor, settings=settings).loss)
        ends.append(statistics.mean(losses[-max(1, steps // 10) :]))
    return {"steps": steps, "bf16": ends[0], "fp8": ends[1], "percent": 100.0 * (ends[1] / ends[0] - 1.0)}


def measure_link(bench: Bench) -> dict[str, Any]:
    """Copies through registered arenas, as offload and stream make them; matrix products; bytes of the context."""
    on_gpu = bench.device.type == "cuda"
    there = torch.zeros(2**16 if bench.small else 2**30, dtype=torch.uint8, device=bench.device)
    context = None
    if bench.total_bytes:
        context = memory_peaks(bench.device).used - torch.cuda.memory_reserved(bench.device)
    count = there.numel()
    here = Arena({"x": count}, dtype=torch.uint8, device=torch.device("cpu"), registered=on_gpu)["x"]
    link = HostLink(bench.device)

    def best(*copies: Callable[[], object]) -> float:
        def once() -> None:
            for copy in copies:
                copy()

        once()
        return count / 1e9 / min(seconds_of(once, bench.device) for _ in range(5))

    half = count // 2
    return {
        "to_device_gb_per_s": best(lambda: link.to_device([(there, here)])),
        "to_host_gb_per_s": best(lambda: link.to_host([(here, there)])),
        "both_ways_gb_per_s": best(
            lambda: link.to_device([(there[:half], here[:half])]), lambda: link.to_host([(here[half:], there[half:])])
        ),
        "matmul_flops_per_s": measure_matmul_rate(bench.device, torch.bfloat16),
        "context_bytes": context,
    }  # fmt: skip


def measure(name: str, bench: Bench) -> dict[str, Any]:
    """One row. What the machine cannot do is a result too."""
    try:
        if name in CASES:
            return measure_speed(name, bench)
        return measure_link(bench) if name == "link" else check_fidelity(bench)
    except (HavocError, NotImplementedError) as error:
        return {"not_measured": f"{type(error).__name__}: {error}"}


def machine(bench: Bench) -> dict[str, Any]:
    """Date and hardware of a result, and how it was made."""
    on_gpu = bench.device.type == "cuda"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name(bench.device) if on_gpu else cpu_name(),
        "python": platform.python_version(), "torch": torch.__version__,
        "small": bench.small, "whole_rows": bench.whole_rows,
    }  # fmt: skip


def read_results(path: Path, bench: Bench) -> dict[str, dict[str, Any]]:
    """Row -> its newest result of this kind."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    kind = (bench.small, bench.whole_rows)
    return {line["row"]: line for line in lines if (line["small"], line["whole_rows"]) == kind}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What was measured beside what was asked, in Markdown."""
    header = ("row", "setting", "tokens/s", "asked", "MFU", "with recompute", "peak GiB (of plan)", "reserved", "used")
    out = [
        "MFU and the share with recompute: of the datasheet's bfloat16 peak / of the matrix products measured here",
        "",
    ]
    out += [f"| {' | '.join(header)} |", "| --- | --- | --: | --- | --- | --- | --- | --: | --: |"]
    base = results.get("uncapped-7b", {}).get("tokens_per_s")
    for name, case in CASES.items():
        found = results.get(name, {})
        rate = found.get("tokens_per_s")
        judged = None if found.get("small") else rate  # the speed of a tiny shape is no answer
        if rate is None:
            cells = [found.get("not_measured", ""), "not measured", asked(case, judged, base), "", "", "", "", ""]
        else:
            ratio = found["ratio"]
            far = ratio is not None and abs(ratio - 1.0) > NEAR_PLAN and not found["small"]
            near = "" if ratio is None else f" ({ratio:.3f}{', too far off' if far else ''})"
            cells = [
                found["setting"], f"{rate:,.0f}", asked(case, judged, base), shares(found, "mfu"), shares(found, "hfu"),
                gib(found["allocated_bytes"]) + near, gib(found["reserved_bytes"]), gib(found["used_bytes"]),
            ]  # fmt: skip
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    out += ["", "| check | found |", "| --- | --- |"]
    for name in CHECKS:
        keys = [
            key
            for key in results.get(name, {})
            if key not in {"row", "date", "device", "python", "torch", "small", "whole_rows"}
        ]
        out += [f"| {name}: {key.replace('_', ' ')} | {json.dumps(results[name][key])} |" for key in keys]
        out += [f"| {name} | not measured |"] if not keys else []
    return "\n".join(out)


def asked(case: Case, rate: float | None, base: float | None) -> str:
    """The target of a row, and whether it was reached."""
    least, words = case.asked, f"{case.asked:,.0f}" if case.asked else ""
    if case.cap_gib is not None:
        least, words = (SHARE_OF_UNCAPPED * base if base else None), f"{SHARE_OF_UNCAPPED:.0%} of uncapped-7b"
        words += f" = {least:,.0f}" if least else ", not measured"
    return words + ("" if rate is None or least is None else ", reached" if rate >= least else ", missed")


def shares(found: Mapping[str, Any], which: str) -> str:
    return " / ".join("-" if v is None else f"{v:.1%}" for v in (found[which], found[f"{which}_measured"]))


def gib(size: int | None) -> str:
    return "-" if size is None else f"{size / GIB:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*CASES, *CHECKS], help="measure this row, in this process")
    parser.add_argument("--out", type=Path, default=Path("runs/one_gpu"), help="folder of the results")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny shapes, to try the script")
    parser.add_argument("--whole-rows", action="store_true", help="one document a row")
    args = parser.parse_args()
    # Read when CUDA is first used; keeps what is reserved near what is allocated.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    bench = Bench(choose_device(args.device), args.small or args.device == "cpu", args.whole_rows)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.jsonl"
    if args.only:
        result = {"row": args.only, **measure(args.only, bench), **machine(bench)}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result))
        return
    for name in (*CASES, *CHECKS):
        if name not in read_results(path, bench):
            command = [sys.executable, __file__, "--only", name, "--out", str(args.out), "--device", args.device]
            command += ["--small"] * args.small + ["--whole-rows"] * args.whole_rows
            done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
            print(f"{name}: {'done' if done.returncode == 0 else 'failed'}", file=sys.stderr, flush=True)
    text = table(read_results(path, bench))
    (args.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
