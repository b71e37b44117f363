"""How many tokens per second does a training step learn from on this CPU, against other trainers at their best?

    python benchmarks/train_throughput.py [--precision bfloat16 float32] [--rounds 5] [--steps 5] [--compile auto]
        [--peers transformers transformers-compiled litgpt litgpt-eager] [--litgpt-python PATH]

Same shape (Qwen3, 18.9 M parameters), same rows, same optimizer settings. Peers: transformers' Trainer, stock and with
torch_compile; litgpt's pretraining, which always compiles, and the same with TORCHDYNAMO_DISABLE=1 (-eager). In bfloat16
litgpt's are `bf16-true`, without float32 weights anywhere; `litgpt-mixed` and `litgpt-mixed-eager` are its autocast.

Every trainer is a child process that prints a line a step. They are warmed up one by one, stopped with SIGSTOP, and continued
in turn (A B C D, A B C D, ...), so that drift of the machine hits all alike; the first step after a continue is dropped.
Reported for each peer is the median over rounds of the ratio of its median step time to ours. Ours is the whole Trainer
(loader, hashes, metrics) and keeps documents apart in attention; the peers attend across them, which is their default.
`--compile auto` is what a run of under 2000 steps does: the kernels for the CPU, but no torch.compile.

Every child compiles into an empty cache of its own, so the times to the first step are those of a first start. Memory is the
peak of resident memory (VmHWM): of the trainer itself, and summed over its process group (compile workers, loaders), in which
pages that processes share count once each. One JSON line for each precision.
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
OURS = "havoc"
LITGPT = {"litgpt": "bf16-true", "litgpt-mixed": "bf16-mixed"}
"""Peer -> its precision in a bfloat16 comparison."""
PEERS = ["transformers", "transformers-compiled", *LITGPT, *(f"{name}-eager" for name in LITGPT)]
_STEP = re.compile(rb"^STEP \d+ loss |\| iter \d+ step \d+ \| loss train: ")
"""The line of a step: ours and transformers' by the observers below, litgpt's own."""


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
        def summarized(self, summary: object) -> None: ...
        def closed(self) -> None: ...
        def stepped(self, record: Any) -> None:
            print(f"STEP {record.step} loss {record.loss:.4f}", flush=True)

    config = resolve(config_values(folder, precision, compilation), {}).config
    trainer = build_trainer(config)
    trainer.observers = [*trainer.observers[1:], Say()]  # metrics.jsonl stays, the screen does not
    trainer.fit()


def run_transformers(folder: Path, precision: str, *, compiled: bool) -> None:
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
        output_dir=str(folder / f"transformers-{compiled}"), per_device_train_batch_size=ROWS, max_steps=100_000,
        learning_rate=6e-4, weight_decay=0.1, adam_beta2=0.95, max_grad_norm=1.0, lr_scheduler_type="constant_with_warmup",
        warmup_steps=20, logging_steps=1, save_strategy="no", bf16=precision == "bfloat16", use_cpu=True,
        report_to="none", disable_tqdm=True, dataloader_pin_memory=False, seed=0, torch_compile=compiled,
    )  # fmt: skip
    trainer = Trainer(model=Qwen3ForCausalLM(shape), args=arguments, train_dataset=Rows(), callbacks=[Say()])
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def prepare(folder: Path) -> None:
    """Store and tokenizer for ours; the same rows as one array for theirs."""
    import numpy as np

    from havoc_core.config_files import resolve
    from havoc_data.prepare.build import prepare as prepare_data
    from havoc_training.data_stages import make_loader

    config = resolve(config_values(folder, "float32", "off"), {}).config
    loader = make_loader(config, prepare_data(config))
    np.save(folder / "rows.npy", np.stack([row.inputs for row in loader.rows(range(4000))]).astype(np.uint16))


def command(name: str, folder: Path, precision: str, args: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """(command line, additions to the environment) of a trainer."""
    empty = {"TORCHINDUCTOR_CACHE_DIR": str(folder / f"inductor-{name}-{precision}")}
    if not name.startswith("litgpt"):
        return [sys.executable, __file__, "--child", name, str(folder), precision, "--compile", args.compile], empty
    theirs = LITGPT[name.removesuffix("-eager")] if precision == "bfloat16" else "32-true"
    shape = json.dumps(SHAPE | {"rows": ROWS, "length": LENGTH})
    script, out = Path(__file__).parent / "peers" / "litgpt_train.py", folder / f"{name}-{precision}"
    line = [args.litgpt_python, str(script), str(folder / "rows.npy"), str(out), theirs, shape]
    return line, empty | ({"TORCHDYNAMO_DISABLE": "1"} if name.endswith("-eager") else {})


class Child:
    """A trainer in a process group of its own, stopped and continued from outside."""

    def __init__(self, name: str, line: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log.open("wb")
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
        )
        assert self.process.stdout is not None, "a pipe was asked for"
        os.set_blocking(self.process.stdout.fileno(), False)
        self.buffer = b""
        self.ready: list[float] = []
        self.peaks: dict[int, int] = {}

    def next_step(self, timeout_s: float = 1800.0) -> float:
        """Wait for the next step's line and give the time at which it came."""
        assert self.process.stdout is not None, "a pipe was asked for"
        end = time.perf_counter() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not self.ready:
                if time.perf_counter() > end or (self.process.poll() is not None and not selector.select(0)):
                    raise SystemExit(f"{self.name} printed no step:\n{Path(self.log.name).read_text()[-4000:]}")
                selector.select(1.0)
                chunk = self.process.stdout.read() or b""
                now = time.perf_counter()
                if not chunk and self.process.poll() is not None:
                    end = now  # the pipe is at its end
                *lines, self.buffer = (self.buffer + chunk).split(b"\n")
                self.ready += [now for line in lines if _STEP.search(line)]
        return self.ready.pop(0)

    def signal(self, number: int) -> None:
        """Send a signal to the process and its threads and children."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def note_memory(self) -> None:
        """Remember the peak of resident memory, in KiB, of every process of the group; those that ended keep theirs."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                group = int((folder / "stat").read_text().rpartition(")")[2].split()[2])
                if group == self.process.pid:
                    lines = (folder / "status").read_text().splitlines()
                    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
                    self.peaks[int(folder.name)] = peak
            except (OSError, StopIteration):
                continue  # it has just ended

    def peak_mib(self) -> dict[str, int]:
        """Of the trainer and of its whole group."""
        return {"trainer": self.peaks[self.process.pid] // 1024, "group": sum(self.peaks.values()) // 1024}


def compare(folder: Path, precision: str, args: argparse.Namespace) -> dict[str, Any]:
    """Interleaved rounds of all trainers; gives the ratios, rates and peaks of memory."""
    ours_folder = folder / f"ours-{precision}"
    ours_folder.mkdir()
    for part in ("corpus", "tokenizer", "store"):
        (ours_folder / part).symlink_to(folder / part)
    children: list[Child] = []
    seconds: dict[str, list[list[float]]] = {name: [] for name in (OURS, *args.peers)}
    first_step_s = {}
    try:
        for name in seconds:
            child = Child(name, *command(name, folder, precision, args), folder / f"{name}-{precision}.log")
            children.append(child)
            first_step_s[name] = round(child.next_step() - child.began, 1)
            for _ in range(args.warmup):
                child.next_step()
            child.signal(signal.SIGSTOP)
        for _ in range(args.rounds):
            for child in children:
                seconds[child.name].append(continued(child, args.steps))
        peaks = {child.name: child.peak_mib() for child in children}
    finally:
        for child in children:
            child.signal(signal.SIGKILL)
            child.process.wait()
    return {
        "question": "tokens per second of a training step against other trainers",
        "precision": precision,
        "compile": args.compile,
        **summary(seconds),
        "first_step_s": first_step_s,
        "peak_resident_mib": peaks,
    }


def continued(child: Child, steps: int) -> list[float]:
    """Seconds of each of its next steps; the one that it was stopped in is dropped."""
    child.signal(signal.SIGCONT)
    before, times = child.next_step(), []
    for _ in range(steps):
        now = child.next_step()
        times.append(now - before)
        before = now
    child.signal(signal.SIGSTOP)
    child.note_memory()
    return times


def summary(seconds: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Ratios (peer's time by ours) and rates from the step times of each round."""
    medians = {name: [statistics.median(times) for times in rounds] for name, rounds in seconds.items()}
    ratios = {
        name: [theirs / ours for ours, theirs in zip(medians[OURS], rounds, strict=True)]
        for name, rounds in medians.items()
        if name != OURS
    }
    whole = {name: statistics.median(chain.from_iterable(rounds)) for name, rounds in seconds.items()}
    return {
        "ratio": {name: round(statistics.median(values), 3) for name, values in ratios.items()},
        "ratios": {name: [round(value, 3) for value in values] for name, values in ratios.items()},
        "steps": {name: sum(len(times) for times in rounds) for name, rounds in seconds.items()},
        "tokens_per_s": {name: round(ROWS * LENGTH / value) for name, value in whole.items()},
    }


def machine(litgpt_python: str | None) -> dict[str, Any]:
    """Date, hardware and versions of a result."""
    import torch
    import transformers

    from havoc_core.processor import cpu_name

    ask = "from importlib.metadata import version; print(version('litgpt'), 'with torch', version('torch'))"
    litgpt = (
        subprocess.run([litgpt_python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
        if litgpt_python
        else None
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "litgpt": litgpt,
    }


def run_child(who: str, folder: str, precision: str, *, compilation: str) -> None:
    """Be one of the trainers that run in this Python."""
    if who == OURS:
        run_ours(Path(folder) / f"ours-{precision}", precision, compilation)
    else:
        run_transformers(Path(folder), precision, compiled=who == "transformers-compiled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--compile", choices=["off", "auto", "on"], default="auto", help="our setting of that name")
    parser.add_argument(
        "--peers", nargs="+", default=PEERS[:2], choices=PEERS, help="in the order in which they take turns"
    )
    parser.add_argument("--litgpt-python", metavar="PATH", help="a Python that has litgpt, for the peers of that name")
    parser.add_argument("--child", nargs=3, metavar=("WHO", "FOLDER", "PRECISION"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run_child(*args.child, compilation=args.compile)
        return
    if any(name.startswith("litgpt") for name in args.peers) != bool(args.litgpt_python):
        parser.error("--litgpt-python PATH belongs with the peers litgpt...: one is there without the other")
    if len(set(args.peers)) != len(args.peers):
        parser.error("--peers names one twice")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children are ended and the folder removed
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for precision in args.precision:
            print(json.dumps(compare(folder, precision, args) | machine(args.litgpt_python)), flush=True)


if __name__ == "__main__":
    main()
