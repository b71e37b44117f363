"""How many documents per second does one core take from text to signature, and from signatures to survivors?

    python benchmarks/near_duplicates.py [--data FOLDER] [--documents 20000] [--population 100000]

Documents of about 4 kB, made of random words and formulas or cut from the .txt, .md, .tex and .xml files of a folder.
The signatures of the second question are those of random sets of 400 shingles, every tenth one a variant of another;
they are compared and checked as they would be in a build. Times are the processor's, all threads counted, so that
other work on the machine and threads of a library alter nothing. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from havoc_data.prepare.minhash import Implementation

DOCUMENT_CHARACTERS = 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--population", type=int, default=100_000)
    args = parser.parse_args()

    from havoc_core.processor import cpu_name
    from havoc_data.prepare.minhash import rensa_is_installed
    from havoc_data.prepare.shingles import shingle_batch

    texts = documents_of(args.data, args.documents) if args.data else made_documents(args.documents)
    found: dict[str, object] = {
        "question": "documents per second on one core, text to signature and signatures to survivors",
        "documents": len(texts),
        "characters": round(statistics.mean(map(len, texts))),
        "shingles": round(len(shingle_batch(texts[:500])[0]) / len(texts[:500])),
        "shingles_only_per_s": rate(texts, None),
        "numpy_per_s": rate(texts, "numpy"),
        "rensa_per_s": rate(texts, "rensa") if rensa_is_installed() else None,
        **survivors(args.population),
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(found))


def made_documents(number: int) -> list[str]:
    """Words as frequent as those of a language, and a formula now and then."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlucmfwypvbgkjqxz", k=rng.randint(2, 10))) for _ in range(20_000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    texts = []
    for _ in range(number):
        parts = rng.choices(words, weights, k=DOCUMENT_CHARACTERS // 7)
        for place in range(0, len(parts), 25):
            parts[place] += f", $x_{{{rng.randint(1, 9)}}} = {rng.random():.3f} + {rng.randint(1, 99)}$."
        texts.append(" ".join(parts)[:DOCUMENT_CHARACTERS])
    return texts


def documents_of(folder: Path, number: int) -> list[str]:
    """The text of a folder in pieces, from the start again as often as is needed."""
    files = sorted(file for file in folder.rglob("*") if file.suffix in {".txt", ".md", ".tex", ".xml"})
    text = "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    if len(text) < DOCUMENT_CHARACTERS:
        raise SystemExit(f"{folder}: less than 4,000 characters of text in .txt, .md, .tex and .xml files")
    starts = range(0, len(text) - DOCUMENT_CHARACTERS + 1, DOCUMENT_CHARACTERS)
    return [text[start : start + DOCUMENT_CHARACTERS] for start in (starts[i % len(starts)] for i in range(number))]


def rate(texts: list[str], implementation: Implementation | None) -> int:
    """Documents per second of processor time: the median of five runs in batches of 256, as a build gives them."""
    from havoc_data.prepare.minhash import signatures
    from havoc_data.prepare.shingles import shingle_batch

    rates = []
    for attempt in range(6):
        began = time.process_time()
        for start in range(0, len(texts), 256):
            flat, offsets = shingle_batch(texts[start : start + 256])
            if implementation:
                signatures(flat, offsets, implementation=implementation)
        if attempt:  # the first warms up
            rates.append(len(texts) / (time.process_time() - began))
    return round(statistics.median(rates))


def survivors(number: int) -> dict[str, float]:
    """Time from signatures to survivors, every tenth document a variant of an earlier one at similarity 0.9."""
    import numpy as np

    from havoc_data.prepare.duplicates import near_duplicates
    from havoc_data.prepare.minhash import signatures

    rng = np.random.default_rng(0)
    sets = rng.integers(0, 2**64, (number, 400), np.uint64)
    sets[9::10, :380] = sets[8::10, :380][: len(sets[9::10])]
    sets.sort(axis=1)
    made = signatures(sets.reshape(-1), np.arange(number + 1) * 400)
    ids = rng.integers(0, 256, (number, 16)).astype(np.uint8)
    began = time.process_time()
    found = near_duplicates(made, ids, jaccard=0.75, shingles_of=lambda index: sets[index], alive=np.ones(number, bool))
    seconds = time.process_time() - began
    return {
        "population": number,
        "left_out": int((found >= 0).sum()),
        "signatures_to_survivors_s": round(seconds, 2),
        "survivors_documents_per_s": round(number / seconds),
    }


if __name__ == "__main__":
    main()
