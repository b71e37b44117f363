"""How many tokens a second does the engine write on this CPU, one stream and 16 at once, against transformers and llama.cpp?

    python benchmarks/decode.py [--sizes 30m 300m] [--rounds 7] [--new-tokens 64] [--threads N]

The same random weights in bfloat16 for all: a checkpoint is written, exported by `havoc export` to a Hugging Face folder and to
a bfloat16 GGUF file, and each reads its own form. Every text begins with 16 tokens and goes on greedily for the same number of
tokens, ends ignored. Each is a process of its own, stopped with SIGSTOP while others work, since threads that wait for work
spin; they take turns (A B C D, A B C D, ...), so that drift of the machine hits all alike. What is reported is the median over
rounds of ratios, with the least and the largest. Times are from the call to the last token, the prompt included. transformers
is `generate` with its default cache, one text after the other; llama.cpp (xllamacpp, asked through its own server) runs with
its defaults: float16 keys and values, flash attention where it likes. One JSON line for each size.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from havoc_core import checkpoint, config_files
from havoc_core.config import TrainingConfig
from havoc_core.costs import num_parameters
from havoc_core.model import FirstWeights
from havoc_core.models import havoc
from havoc_core.processor import cpu_name
from havoc_core.tokenizer import Tokenizer
from havoc_data.prepare.train_tokenizer import train_bpe
from havoc_inference.engine import Engine, EngineOptions
from havoc_inference.load import load_checkpoint
from havoc_inference.request import Request
from havoc_inference.sampling import GREEDY

PROMPT_TOKENS, STREAMS, CONTEXT, VOCABULARY = 16, 16, 512, 8192
Write = Callable[[int], int]
"""Number of texts -> tokens that were written."""


def config_of(size: str) -> TrainingConfig:
    """Settings of a model of this size with the vocabulary and context of the comparison."""
    shape = {"size": size, "vocab_size": VOCABULARY, "max_seq_len": CONTEXT}
    return TrainingConfig.model_validate({"model": shape, "data": {"max_sequence_length": CONTEXT}})


def make_checkpoint(folder: Path, size: str) -> Path:
    """Random weights in bfloat16 with a tokenizer of a few hundred words: what is written means nothing."""
    settings = {
        "model": {"size": size, "vocab_size": VOCABULARY, "max_seq_len": CONTEXT},
        "data": {"max_sequence_length": CONTEXT},
    }
    config = TrainingConfig.model_validate(settings)
    model = havoc.build(config.model)
    weights = {name: w.bfloat16() if w.dim() > 1 else w for name, w in FirstWeights(model, seed=0).items()}
    weights["model.embed_tokens.weight"] *= 10  # or every text would repeat one token
    text = " ".join(f"{a}{b} is {a * b}, and {a} / {b} = {a / b:.3f};" for a in range(60) for b in range(1, 60))
    with checkpoint.writing(folder / "checkpoints" / "checkpoint_step_1") as inside:
        checkpoint.save_tensors(inside / "model.pt", weights)
        checkpoint.save_json(inside / "training_state.json", {"step": 1, "dummy_data": True})
        (inside / "config.json").write_text(config_files.to_json(config), encoding="utf-8")
        (inside / "tokenizer").mkdir()
        Tokenizer(train_bpe(iter([text]), vocab_size=1024)).save(inside / "tokenizer")
    return folder


def export(run: Path, out: Path, *arguments: str) -> Path:
    """By the command, as a user does it."""
    command = [
        sys.executable,
        "-c",
        "from havoc_cli.main import entry; entry()",
        "export",
        str(run),
        "--out",
        str(out),
        *arguments,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


_TEXTS = itertools.count()


def prompts(count: int) -> list[list[int]]:
    """Of equal length and all different, also from those of all calls before: no beginning is met twice."""
    draw = random.Random(next(_TEXTS))
    return [[0, *(draw.randrange(256, 1000) for _ in range(PROMPT_TOKENS - 1))] for _ in range(count)]


def ours(run: Path, new_tokens: int, *, int8: bool) -> Write:
    """The engine, all texts in one call."""
    loaded = load_checkpoint(run, device=torch.device("cpu"))
    engine = Engine(loaded, EngineOptions(int8=int8))
    options = replace(GREEDY, max_new_tokens=new_tokens)

    def write(texts: int) -> int:
        requests = [Request(tuple(ids), options, ignore_end=True) for ids in prompts(texts)]
        return sum(len(piece.ids) for pieces in engine.complete(requests) for piece in pieces)

    return write


def transformers(folder: Path, new_tokens: int) -> Write:
    """`generate`, one text after the other."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    model.generation_config.suppress_tokens = None

    @torch.inference_mode()
    def write(texts: int) -> int:
        made = 0
        for ids in prompts(texts):
            tokens = torch.tensor([ids])
            out = model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                min_new_tokens=new_tokens,
                max_new_tokens=new_tokens,
            )
            made += out.shape[1] - len(ids)
        return made

    return write


def llama_cpp(file: Path, new_tokens: int, threads: int) -> Write:
    """Its server in this process, asked without a network; texts in parallel slots."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_parallel, params.n_ctx, params.n_gpu_layers = STREAMS, STREAMS * CONTEXT, 0
    params.verbosity = -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def one(ids: list[int]) -> int:
        body = {"prompt": ids, "n_predict": new_tokens, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
        headers = {"Content-Type": "application/json"}
        question = urllib.request.Request(server.listening_address + "/completion", json.dumps(body).encode(), headers)
        with opener.open(question) as answer:
            return int(json.load(answer)["tokens_predicted"])

    def write(texts: int) -> int:
        with ThreadPoolExecutor(texts) as pool:
            return sum(pool.map(one, prompts(texts)))

    return write


class Peer:
    """One of those who are measured, in a process of its own.

    Args:
        name: which (see `KINDS`).
        path: of its form of the model.
        new_tokens, threads: as for all.
    """

    def __init__(self, name: str, path: Path, new_tokens: int, threads: int) -> None:
        arguments = [name, str(path), str(new_tokens), str(threads)]
        command = [sys.executable, __file__, "--child", *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stop()

    def rate(self, texts: int) -> float:
        """Tokens a second for so many texts."""
        self._process.send_signal(signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{texts}\n")
        self._process.stdin.flush()
        return self._stop()

    def end(self) -> None:
        """Let it go."""
        self._process.send_signal(signal.SIGCONT)
        self._process.communicate("")

    def _stop(self) -> float:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("RATE "):
                self._process.send_signal(signal.SIGSTOP)
                return float(line.split()[1])
        raise RuntimeError("a process ended before it was measured")


def child(name: str, path: Path, new_tokens: int, threads: int) -> None:
    """Write as many texts as each line of the standard input says, and say how fast."""
    torch.set_num_threads(threads)
    write = KINDS[name](path, new_tokens, threads)
    write(2)
    print("RATE 0", flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        made = write(int(line))
        print(f"RATE {made / (time.perf_counter() - begin)}", flush=True)
    os._exit(0)  # a server's threads would be waited for


KINDS: dict[str, Callable[[Path, int, int], Write]] = {
    "havoc": lambda path, new_tokens, _: ours(path, new_tokens, int8=False),
    "havoc int8": lambda path, new_tokens, _: ours(path, new_tokens, int8=True),
    "transformers": lambda path, new_tokens, _: transformers(path, new_tokens),
    "llama.cpp": lambda path, new_tokens, threads: llama_cpp(path, new_tokens, threads),
}


def measure(places: dict[str, Path], flags: argparse.Namespace) -> dict[str, list[float]]:
    """Tokens a second of each entry in each round, all entries in turn."""
    peers = {name: Peer(name, places[name], flags.new_tokens, flags.threads) for name in KINDS}
    entries = [(name, name, 1) for name in KINDS]
    entries += [(f"{name}, 16 at once", name, STREAMS) for name in ("havoc", "llama.cpp")]
    rates: dict[str, list[float]] = {entry: [] for entry, _, _ in entries}
    for _ in range(flags.rounds):
        for entry, name, texts in entries:
            rates[entry].append(peers[name].rate(texts))
    for peer in peers.values():
        peer.end()
    return rates


def ratios(rates: dict[str, list[float]], mine: str, theirs: str) -> dict[str, float]:
    """Of one entry to another, round by round."""
    each = [a / b for a, b in zip(rates[mine], rates[theirs], strict=True)]
    return {"median": round(statistics.median(each), 3), "least": round(min(each), 3), "largest": round(max(each), 3)}


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        name, path, new_tokens, threads = sys.argv[2:]
        child(name, Path(path), int(new_tokens), int(threads))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["30m", "300m"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    flags = parser.parse_args()
    for size in flags.sizes:
        with tempfile.TemporaryDirectory() as temporary:
            run = make_checkpoint(Path(temporary) / "run", size)
            folder = export(run, Path(temporary) / "hf", "--to", "hf")
            file = next(export(run, Path(temporary) / "gguf", "--to", "gguf", "--dtype", "bf16").glob("*.gguf"))
            rates = measure({"havoc": run, "havoc int8": run, "transformers": folder, "llama.cpp": file}, flags)
        result = {
            "size": size,
            "parameters": num_parameters(config_of(size).model),
            "cpu": cpu_name(), "threads": flags.threads, "torch": torch.__version__, "python": platform.python_version(),
            "tokens_per_second": {name: [round(rate, 1) for rate in found] for name, found in rates.items()},
            "one_stream_to_transformers": ratios(rates, "havoc", "transformers"),
            "one_stream_to_llama_cpp": ratios(rates, "havoc", "llama.cpp"),
            "int8_to_bfloat16": ratios(rates, "havoc int8", "havoc"),
            "16_at_once_to_transformers_one_by_one": ratios(rates, "havoc, 16 at once", "transformers"),
            "16_at_once_to_llama_cpp_16_at_once": ratios(rates, "havoc, 16 at once", "llama.cpp, 16 at once"),
        }  # fmt: skip
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
