"""How many tokens per second does a training step learn from on this CPU, against transformers' Trainer?

    python benchmarks/train_throughput.py [--precision bfloat16 float32] [--rounds 5] [--steps 5] [--compile auto]

Same shape (Qwen3, 18.9 M parameters), same rows, same precision, same optimizer settings. Every trainer is a child
process that prints a line a step. They are warmed up, stopped with SIGSTOP, and continued in turn (ours, theirs, ours,
theirs, ...), so that drift of the machine hits both alike; the first step after a continue is dropped. Reported is the
median over rounds of the ratio of their median step times. Ours is the whole Trainer (loader, hashes, metrics) and
keeps documents apart in attention; theirs attends across them, which is their default. `--compile auto` is what a run of
under 2000 steps does: the attention kernel, but no torch.compile. One JSON line each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import selectors
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

SHAPE = {"vocab": 8192, "width": 384, "layers": 8, "heads": 6, "kv_heads": 2, "head_dim": 64, "hidden": 1024}
ROWS, LENGTH = 8, 512
_STEP = re.compile(rb"STEP (\d+) loss ([\d.]+)")


def config_values(folder: Path, precision: str, compilation: str) -> dict[str, Any]:
    """Our settings: the shape above on the documentation of installed packages."""
    return {
        "run_dir": str(folder),
        "data": {"fallback": "package_docs", "data_dir": "data", "max_sequence_length": LENGTH},
        "model": {
            "size": "30m", "vocab_size": SHAPE["vocab"], "d_model": SHAPE["width"], "num_layers": SHAPE["layers"],
            "max_seq_len": LENGTH, "mlp": {"hidden_dim": SHAPE["hidden"]},
            "attention": {"num_heads": SHAPE["heads"], "num_kv_heads": SHAPE["kv_heads"], "head_dim": SHAPE["head_dim"]},
        },
        "batch_size": ROWS, "gradient_accumulation_steps": 1, "max_steps": 900, "warmup_steps": 20,
        "learning_rate": 6.0e-4, "lr_scheduler_type": "constant", "use_amp": precision == "bfloat16",
        "eval_every_n_steps": 1_000_000, "save_every_n_steps": 1_000_000, "eval_samples": 1,
        "compile": compilation, "tracking": {"trackers": []},
    }  # fmt: skip


def run_ours(folder: Path, precision: str, compilation: str) -> None:
    """Train with HAVOC's Trainer until killed."""
    from havoc_core.config_files import resolve
    from havoc_training.build import build_trainer

    class Say:
        def started(self, facts: object) -> None: ...
        def validated(self, record: object) -> None: ...
        def closed(self) -> None: ...
        def stepped(self, record: Any) -> None:
            print(f"STEP {record.step} loss {record.loss:.4f}", flush=True)

    config = resolve(config_values(folder, precision, compilation), {}).config
    trainer = build_trainer(config)
    trainer.observers = [*trainer.observers[1:], Say()]  # metrics.jsonl stays, the screen does not
    trainer.fit()


def run_theirs(folder: Path, precision: str) -> None:
    """Train with transformers' Trainer, stock settings, until killed."""
    import numpy as np
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    rows = np.load(folder / "rows.npy")

    class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            row = torch.from_numpy(rows[index].astype(np.int64))
            return {"input_ids": row, "labels": row}

    class Say(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            if "loss" in (logs or {}):
                print(f"STEP {state.global_step} loss {float(logs['loss']):.4f}", flush=True)

    torch.manual_seed(0)
    shape = Qwen3Config(
        vocab_size=SHAPE["vocab"], hidden_size=SHAPE["width"], intermediate_size=SHAPE["hidden"],
        num_hidden_layers=SHAPE["layers"], num_attention_heads=SHAPE["heads"], num_key_value_heads=SHAPE["kv_heads"],
        head_dim=SHAPE["head_dim"], max_position_embeddings=LENGTH, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(folder / "theirs"), per_device_train_batch_size=ROWS, max_steps=100_000, learning_rate=6e-4,
        weight_decay=0.1, adam_beta2=0.95, max_grad_norm=1.0, lr_scheduler_type="constant_with_warmup",
        warmup_steps=20, logging_steps=1, save_strategy="no", bf16=precision == "bfloat16", use_cpu=True,
        report_to="none", disable_tqdm=True, dataloader_pin_memory=False, seed=0,
    )  # fmt: skip
    trainer = Trainer(model=Qwen3ForCausalLM(shape), args=arguments, train_dataset=Rows(), callbacks=[Say()])
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def prepare(folder: Path) -> None:
    """Store and tokenizer for ours; the same rows as one array for theirs."""
    import numpy as np

    from havoc_core.config_files import resolve
    from havoc_data.prepare.build import prepare as prepare_data
    from havoc_training.build import make_loader

    config = resolve(config_values(folder, "float32", "off"), {}).config
    loader = make_loader(config, prepare_data(config))
    np.save(folder / "rows.npy", np.stack([row.inputs for row in loader.rows(range(4000))]).astype(np.uint16))


class Child:
    """A trainer in a process of its own, stopped and continued from outside."""

    def __init__(self, name: str, arguments: list[str], log: Path) -> None:
        self.name = name
        self.log = log.open("wb")
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdout=subprocess.PIPE,
            stderr=self.log,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None, "a pipe was asked for"
        os.set_blocking(self.process.stdout.fileno(), False)
        self.buffer = b""
        self.ready: list[float] = []

    def next_step(self, timeout_s: float = 300.0) -> float:
        """Wait for the next step's line and give the time at which it came."""
        assert self.process.stdout is not None, "a pipe was asked for"
        selector = selectors.DefaultSelector()
        selector.register(self.process.stdout, selectors.EVENT_READ)
        end = time.perf_counter() + timeout_s
        while not self.ready:
            if time.perf_counter() > end or (self.process.poll() is not None and not selector.select(0)):
                raise SystemExit(f"{self.name} printed no step; see {self.log.name}")
            selector.select(1.0)
            chunk = self.process.stdout.read() or b""
            now = time.perf_counter()
            *lines, self.buffer = (self.buffer + chunk).split(b"\n")
            self.ready += [now for line in lines if _STEP.search(line)]
        return self.ready.pop(0)

    def signal(self, number: int) -> None:
        """Send a signal to the process and its threads and children."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass


def compare(folder: Path, precision: str, args: argparse.Namespace) -> dict[str, Any]:
    """Interleaved rounds of both trainers; gives the ratio and both rates."""
    ours_folder = folder / f"ours-{precision}"
    ours_folder.mkdir()
    for part in ("corpus", "tokenizer", "store"):
        (ours_folder / part).symlink_to(folder / part)
    children = [
        Child(
            "havoc", ["--child", "ours", str(ours_folder), precision, "--compile", args.compile], folder / "ours.log"
        ),
        Child("transformers", ["--child", "theirs", str(folder), precision], folder / "theirs.log"),
    ]
    seconds: dict[str, list[list[float]]] = {child.name: [] for child in children}
    first_step_s = {}
    try:
        for child in children:
            first_step_s[child.name] = child.next_step() - child.began
            for _ in range(args.warmup):
                child.next_step()
            child.signal(signal.SIGSTOP)
        for _ in range(args.rounds):
            for child in children:
                child.signal(signal.SIGCONT)
                before = child.next_step()  # partly run before it was stopped: dropped
                times = []
                for _ in range(args.steps):
                    now = child.next_step()
                    times.append(now - before)
                    before = now
                child.signal(signal.SIGSTOP)
                seconds[child.name].append(times)
    finally:
        for child in children:
            child.signal(signal.SIGKILL)
            child.process.wait()
    medians = {name: [statistics.median(times) for times in rounds] for name, rounds in seconds.items()}
    ratios = [theirs / ours for ours, theirs in zip(medians["havoc"], medians["transformers"], strict=True)]
    tokens = ROWS * LENGTH
    return {
        "question": "tokens per second of a training step against transformers' Trainer",
        "precision": precision,
        "compile": args.compile,
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "steps": {name: sum(len(times) for times in rounds) for name, rounds in seconds.items()},
        "tokens_per_s": {
            name: round(tokens / statistics.median(chain.from_iterable(rounds))) for name, rounds in seconds.items()
        },
        "first_step_s": {name: round(value, 1) for name, value in first_step_s.items()},
    }


def machine() -> dict[str, Any]:
    """Date and hardware of a result."""
    import torch
    import transformers

    from havoc_core.device import cpu_name

    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--compile", choices=["off", "auto", "on"], default="auto", help="our setting of that name")
    parser.add_argument("--child", nargs=3, metavar=("WHO", "FOLDER", "PRECISION"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        who, folder, precision = args.child
        if who == "ours":
            run_ours(Path(folder), precision, args.compile)
        else:
            run_theirs(Path(folder), precision)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children are ended and the folder removed
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for precision in args.precision:
            print(json.dumps(compare(folder, precision, args) | machine()), flush=True)


if __name__ == "__main__":
    main()
