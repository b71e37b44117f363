"""How long does a whole data build take, beside the time that the `tokenizers` library alone needs to encode the text?

    python benchmarks/data_build.py [--megabytes 200] [--data FOLDER] [--rounds 3] [--datatrove PYTHON]

Text: sentences of the documentation of installed packages, and of the .txt, .md, .tex and .xml files of --data, shuffled into
new documents of about 4 kB, so that none is a near-duplicate of another; JSON lines, ten files. Interleaved in every round:

    tokenizers   encode_batch of all documents in this process, all cores, texts already in memory
    tokenize     our stage alone: corpus on disk -> token store on disk
    build        everything: files -> read, rules, personal data, exam questions, MinHash, ledger, a tokenizer trained, store
    given        the same with a tokenizer that is there already (as `tokenizers` has one)
    datatrove    its local executor, two workers: MinHash (signatures, buckets, cluster, filter), then tokenize; in the
                 Python that --datatrove names

Ratios are medians over the rounds, each to `tokenizers` of the same round. Memory is the largest sum over all processes of a
build, sampled every 50 ms: proportional set size where the system tells it, so that shared pages count once. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

DOCUMENT_CHARACTERS = 4000
VOCABULARY = 8192
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n\s*\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=200.0)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--datatrove", type=Path, default=None, help="a Python that has datatrove and spacy")
    args = parser.parse_args()

    from havoc_core.processor import cpu_name

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text" / "domain"
        num_documents, num_bytes = write_text(text, int(args.megabytes * 1e6), args.data)
        trained = folder / "trained"
        build(folder, trained, tokenizer=None)  # once, for the tokenizer that the others are given
        tokenizer = trained / "tokenizer" / "tokenizer.json"
        ways: dict[str, Callable[[], tuple[float, float]]] = {
            "tokenizers": lambda: encode_alone(text, tokenizer),
            "tokenize": lambda: tokenize_again(trained),
            "build": lambda: build(folder, folder / "run", tokenizer=None),
            "given": lambda: build(folder, folder / "run", tokenizer=tokenizer),
        }
        if args.datatrove:
            ways["datatrove"] = lambda: datatrove(args.datatrove, text, tokenizer, folder / "datatrove")
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        memory: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(args.rounds):
            for way, run in ways.items():
                took, peak = run()
                seconds[way].append(took)
                memory[way].append(peak)
    base = seconds["tokenizers"]
    ratios = {way: statistics.median(a / b for a, b in zip(took, base, strict=True)) for way, took in seconds.items()}
    print(
        json.dumps(
            {
                "question": "whole data build, seconds as a multiple of what the tokenizers library needs to encode the text",
                "date": datetime.now(UTC).date().isoformat(),
                "hardware": f"{cpu_name()}, {os.cpu_count()} cores",
                "megabytes": round(num_bytes / 1e6, 1),
                "documents": num_documents,
                "rounds": args.rounds,
                "seconds": {way: [round(each, 1) for each in took] for way, took in seconds.items()},
                "ratio_to_tokenizers": {way: round(ratio, 2) for way, ratio in ratios.items()},
                "megabytes_per_s": {
                    way: round(num_bytes / 1e6 / statistics.median(took), 2) for way, took in seconds.items()
                },
                "peak_memory_gb": {way: round(max(peaks) / 1e9, 2) for way, peaks in memory.items() if max(peaks)},
            }
        )
    )


def write_text(folder: Path, num_bytes: int, data: Path | None) -> tuple[int, int]:
    """Write the documents; gives how many, and their bytes."""
    folder.mkdir(parents=True)
    sentences = list(sentences_of(data))
    draw = random.Random(0)
    written = documents = 0
    for number in range(10):
        with (folder / f"{number}.jsonl").open("w", encoding="utf-8") as file:
            while written < num_bytes * (number + 1) / 10:
                parts: list[str] = []
                size = 0
                while size < DOCUMENT_CHARACTERS:
                    parts.append(draw.choice(sentences))
                    size += len(parts[-1])
                text = " ".join(parts)
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                written += len(text.encode())
                documents += 1
    return documents, written


def sentences_of(data: Path | None) -> Iterator[str]:
    """Sentences of 20 to 1,000 characters."""
    from havoc_core.config import DataMixtureConfig
    from havoc_data.discovery import discover
    from havoc_data.document import Document

    texts = [
        item.text
        for entry in discover(DataMixtureConfig(fallback="package_docs"), Path("no such folder")).entries
        if entry.config.kind == "package_docs"
        for part in entry.source.parts()
        for item in part.documents()
        if isinstance(item, Document)
    ]
    if data is not None:
        texts += [
            path.read_text(encoding="utf-8", errors="replace")
            for path in sorted(data.rglob("*"))
            if path.suffix in {".txt", ".md", ".tex", ".xml"}
        ]
    for text in texts:
        yield from (sentence for sentence in SENTENCE.split(text) if 20 <= len(sentence) <= 1000)


def encode_alone(text: Path, tokenizer: Path) -> tuple[float, float]:
    """The library by itself; reading and starting are not counted."""
    from tokenizers import Tokenizer

    lines = (line for path in sorted(text.iterdir()) for line in path.open(encoding="utf-8"))
    texts = [json.loads(line)["text"] for line in lines]
    library = Tokenizer.from_file(str(tokenizer))
    began = time.perf_counter()
    for i in range(0, len(texts), 1000):
        library.encode_batch_fast(texts[i : i + 1000], add_special_tokens=False)
    return time.perf_counter() - began, 0.0


def build(folder: Path, run_dir: Path, *, tokenizer: Path | None) -> tuple[float, float]:
    """`havoc data build` from nothing."""
    shutil.rmtree(run_dir, ignore_errors=True)
    config = folder / "config.yaml"
    config.write_text(
        json.dumps(
            {
                "model": {"size": "nano", "vocab_size": VOCABULARY},
                "data": {"data_dir": str(folder / "text"), "max_sequence_length": 512},
                "tokenizer": {} if tokenizer is None else {"kind": "huggingface", "path": str(tokenizer)},
            }
        )
    )
    command = [
        sys.executable,
        "-c",
        "from havoc_cli.main import entry; entry()",
        "data",
        "build",
        "--config",
        str(config),
        "--run-dir",
        str(run_dir),
    ]
    return measured(command)


def tokenize_again(run_dir: Path) -> tuple[float, float]:
    """The store of a corpus that is there."""
    from havoc_core.config import DataMixtureConfig
    from havoc_data.prepare.corpus import open_corpus
    from havoc_data.prepare.tokenize import build_store

    shutil.rmtree(run_dir / "store")
    corpus = open_corpus(run_dir / "corpus")
    assert corpus is not None, "it was built before"
    began = time.perf_counter()
    build_store(corpus, run_dir / "tokenizer", folder=run_dir / "store", data=DataMixtureConfig())
    return time.perf_counter() - began, 0.0


def datatrove(python: Path, text: Path, tokenizer: Path, out: Path) -> tuple[float, float]:
    """The peer, in its own Python."""
    shutil.rmtree(out, ignore_errors=True)
    script = Path(__file__).parent / "peers" / "datatrove_build.py"
    return measured([str(python), str(script), str(text), str(tokenizer), str(out)])


def measured(command: list[str]) -> tuple[float, float]:
    """(seconds, largest memory of all its processes together, in bytes) of a command."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    peaks = [0]
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(process.pid, peaks, done))
    watcher.start()
    out, _ = process.communicate()
    took = time.perf_counter() - began
    done.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{out.decode(errors='replace')[-3000:]}")
    return took, float(peaks[0])


def watch(pid: int, peaks: list[int], done: threading.Event) -> None:
    while not done.wait(0.05):
        peaks[0] = max(peaks[0], sum(memory_of(each) for each in family(pid)))


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


def memory_of(pid: int) -> int:
    """Bytes; shared pages in equal shares where the system tells them."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return 0


if __name__ == "__main__":
    main()
