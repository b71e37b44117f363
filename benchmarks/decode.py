"""How many tokens a second does the engine write on this CPU, one stream and 16 at once, against transformers and llama.cpp?

    python benchmarks/decode.py [--sizes 30m 300m] [--rounds 5] [--new-tokens 64] [--threads N]

The same random weights in bfloat16 for all: a checkpoint is written, exported by `havoc export` to a Hugging Face folder and to
a bfloat16 GGUF file, and each reads its own form. Every text begins with 16 tokens and goes on greedily for the same number of
tokens, ends ignored. All live in one process and take turns (A B C D, A B C D, ...), so that drift of the machine hits all
alike; what is reported is the median over rounds of ratios, with the least and the largest. Times are from the call to the last
token, the prompt included. transformers is `generate` with its default cache; llama.cpp (xllamacpp, asked through its own
server on this machine) runs with its defaults: float16 keys and values, flash attention where it likes. One JSON line for
each size.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
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


def measure(entries: dict[str, tuple[Write, int]], rounds: int) -> dict[str, list[float]]:
    """Tokens a second of each entry in each round, all entries in turn."""
    for write, texts in entries.values():
        write(min(texts, 2))
    rates: dict[str, list[float]] = {name: [] for name in entries}
    for _ in range(rounds):
        for name, (write, texts) in entries.items():
            begin = time.perf_counter()
            made = write(texts)
            rates[name].append(made / (time.perf_counter() - begin))
    return rates


def ratios(rates: dict[str, list[float]], mine: str, theirs: str) -> dict[str, float]:
    """Of one entry to another, round by round."""
    each = [a / b for a, b in zip(rates[mine], rates[theirs], strict=True)]
    return {"median": round(statistics.median(each), 3), "least": round(min(each), 3), "largest": round(max(each), 3)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["30m", "300m"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    for size in flags.sizes:
        with tempfile.TemporaryDirectory() as temporary:
            run = make_checkpoint(Path(temporary) / "run", size)
            folder = export(run, Path(temporary) / "hf", "--to", "hf")
            file = next(export(run, Path(temporary) / "gguf", "--to", "gguf", "--dtype", "bf16").glob("*.gguf"))
            engine, peer = ours(run, flags.new_tokens, int8=False), transformers(folder, flags.new_tokens)
            llama = llama_cpp(file, flags.new_tokens, flags.threads)
            entries = {
                "havoc": (engine, 1), "havoc int8": (ours(run, flags.new_tokens, int8=True), 1),
                "transformers": (peer, 1), "llama.cpp": (llama, 1),
                "havoc, 16 at once": (engine, STREAMS), "llama.cpp, 16 at once": (llama, STREAMS),
            }  # fmt: skip
            rates = measure(entries, flags.rounds)
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
