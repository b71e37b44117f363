"""How many tokens per second does the loader give on one core, and how long does it take to find slot 10^12?

    python benchmarks/loader.py [--length 2048]

Rows from a warm store of the documentation of installed packages, 60/30/10 mixture, hashes included in the second
figure. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=2000)
    args = parser.parse_args()

    import torch

    from havoc_core.config_files import resolve
    from havoc_core.processor import cpu_name
    from havoc_data.prepare.build import prepare
    from havoc_training.data_stages import make_loader

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        values = {
            "run_dir": name,
            "data": {"fallback": "package_docs", "data_dir": "data", "max_sequence_length": args.length},
            "model": {"size": "nano", "max_seq_len": args.length},
        }
        config = resolve(values, {}, file_name=str(Path(name))).config
        loader = make_loader(config, prepare(config))
        loader.rows(range(args.rows))  # warm
        plain, hashed, seek = [], [], []
        for attempt in range(5):
            first = attempt * args.rows
            began = time.perf_counter()
            loader.micro_batches(first, rows_per_step=args.rows, micro_batch_size=8)
            plain.append(args.rows * args.length / (time.perf_counter() - began))
            began = time.perf_counter()
            _, rows = loader.micro_batches(first, rows_per_step=args.rows, micro_batch_size=8)
            for row in rows:
                row.hash()
            hashed.append(args.rows * args.length / (time.perf_counter() - began))
            began = time.perf_counter()
            loader.rows(range(10**12 + attempt, 10**12 + attempt + 1))
            seek.append(time.perf_counter() - began)
    print(
        json.dumps(
            {
                "question": "tokens per second of the loader on one core",
                "length": args.length,
                "tokens_per_s": round(statistics.median(plain)),
                "tokens_per_s_with_hashes": round(statistics.median(hashed)),
                "seek_to_slot_1e12_ms": round(1e3 * statistics.median(seek), 3),
                "date": datetime.now(UTC).date().isoformat(),
                "cpu": cpu_name(),
                "cores": os.cpu_count(),
            }
        )
    )


if __name__ == "__main__":
    main()
