"""How long does an export of the 1 B model take, proof included, and how much memory?

    python benchmarks/export.py [--size 1b] [--dtype bfloat16] [--to hf,gguf] [--kind KIND] [--folder FOLDER]

A checkpoint with random weights is written to a temporary folder, with a byte-level tokenizer as large as the model's
vocabulary; then `havoc export` runs as a user calls it, in a process of its own, and loads its result back in others.

Memory is the largest sum over all these processes, sampled every 50 ms: `private` is what the system cannot take back
(anonymous memory), `resident` counts the pages of mapped files too, which it can. Both also as a
multiple of the weights' size in the checkpoint. CPU seconds say what it costs where other work shares the machine. One
JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from havoc_core import checkpoint, config_files
from havoc_core.config import ModelConfig, TrainingConfig
from havoc_core.costs import num_parameters
from havoc_core.fast_bpe import byte_alphabet
from havoc_core.model import FirstWeights
from havoc_core.models import havoc
from havoc_core.processor import cpu_name
from havoc_core.tensor_file import TensorSource
from havoc_core.tokenizer import SPECIAL_TOKENS, SPLIT_PATTERN, BpeEngine, Tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1b")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--to", default="hf,gguf")
    parser.add_argument("--kind", default=None, help="f32, bf16, q8_0 or q4_0; as the checkpoint if it is left out")
    parser.add_argument("--folder", type=Path, default=None, help="where the temporary folder is made")
    args = parser.parse_args()

    model = ModelConfig.model_validate(args.size)
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        run = Path(name) / "run"
        weight_bytes = write_checkpoint(run, model, getattr(torch, args.dtype))
        for to in args.to.split(","):
            words = ["export", str(run), "--to", to, "--out", str(Path(name) / to)]
            words += ["--dtype", args.kind] if args.kind else []
            measured[to] = call(words, weight_bytes)
    print(
        json.dumps(
            {
                "question": "export with proof: seconds, and memory as a multiple of the weights",
                "date": datetime.now(UTC).date().isoformat(),
                "hardware": f"{cpu_name()}, {os.cpu_count()} cores",
                "size": args.size,
                "parameters": num_parameters(model),
                "dtype": args.dtype,
                "kind": args.kind,
                "weight_gb": round(weight_bytes / 1e9, 3),
                "exports": measured,
            }
        )
    )


def write_checkpoint(run: Path, config: ModelConfig, dtype: torch.dtype) -> int:
    """Write checkpoint_step_1; gives the bytes of its weights."""
    weights = FirstWeights(havoc.build(config), seed=0)

    def source(name: str, shape: tuple[int, ...]) -> TensorSource:
        def fill(out: torch.Tensor) -> None:
            out.copy_(weights[name])

        return TensorSource(shape, dtype if len(shape) > 1 else torch.float32, fill)

    shapes = {name: tuple(each.shape) for name, each in havoc.build(config).named_parameters()}
    sources = {name: source(name, shape) for name, shape in shapes.items()}
    settings = TrainingConfig.model_validate({"model": config.model_dump()})
    with checkpoint.writing(run / "checkpoints" / "checkpoint_step_1") as inside:
        checkpoint.save_tensors(inside / "model.pt", sources)
        checkpoint.save_json(inside / "training_state.json", {"step": 1, "dummy_data": True})
        (inside / "config.json").write_text(config_files.to_json(settings), encoding="utf-8")
        made_up_tokenizer(config.vocab_size).save(inside / "tokenizer")
    return sum(each.nbytes for each in sources.values())


def made_up_tokenizer(size: int) -> Tokenizer:
    """Byte-level BPE of so many ids, whose merges are pairs of letters and of what came of them."""
    alphabet = list(byte_alphabet().values())
    vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *alphabet))}
    merges: list[tuple[str, str]] = []
    letters = [byte_alphabet()[byte] for byte in b"etaoinshrdlucmfwypvbgkqjxz ETAOINSHRDLU"]
    parts = list(letters)
    for left in parts:
        for right in letters:
            if len(vocabulary) == size:
                break
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
                parts.append(left + right)
    fast = FastTokenizer(models.BPE(vocab=vocabulary, merges=merges))
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS])
    split = pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    fast.decoder = decoders.ByteLevel()
    return Tokenizer(BpeEngine(fast))


def call(words: list[str], weight_bytes: int) -> dict[str, Any]:
    """Run a command and watch it."""
    command = [sys.executable, "-c", "from havoc_cli.main import entry; entry()", *words]
    began, before = time.perf_counter(), cpu_seconds()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    peaks = {"private": 0, "resident": 0}
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(process.pid, peaks, done))
    watcher.start()
    out, _ = process.communicate()
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{out.decode(errors='replace')[-3000:]}")
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds() - before, 1),
        **{f"{kind}_gb": round(peak / 1e9, 3) for kind, peak in peaks.items()},
        **{f"{kind}_multiple": round(peak / weight_bytes, 2) for kind, peak in peaks.items()},
        "said": [line for line in out.decode(errors="replace").splitlines() if ": " in line],
    }


def cpu_seconds() -> float:
    """Of all processes that have ended, with what they started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def watch(pid: int, peaks: dict[str, int], done: threading.Event) -> None:
    while not done.wait(0.05):
        found = [memory_of(each) for each in family(pid)]
        peaks["private"] = max(peaks["private"], sum(private for private, _ in found))
        peaks["resident"] = max(peaks["resident"], sum(resident for _, resident in found))


def family(pid: int) -> Iterator[int]:
    """A process and all that it started."""
    yield pid
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = tasks.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from family(int(child))


def memory_of(pid: int) -> tuple[int, int]:
    """(anonymous bytes, all resident bytes) as /proc/PID/status tells them, which stops nobody; zeros where it does not.

    smaps_rollup would count shared pages once, but walks all pages each time and slows the process down.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        values = {
            line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("Rss", "VmRSS"))
        }
        return values["RssAnon"], values["VmRSS"]
    except (OSError, IndexError, ValueError, KeyError):
        return 0, 0


if __name__ == "__main__":
    main()
