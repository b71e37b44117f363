"""datatrove's local executor on a folder of JSON lines: MinHash deduplication, then tokenization.

    python benchmarks/peers/datatrove_build.py TEXT TOKENIZER_JSON OUT

Runs in a Python of its own that has datatrove[processing] and spacy (its English word splitter). Defaults throughout; two
workers, one task a file.
"""

from __future__ import annotations

import sys

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer

FILES = 10


def main() -> None:
    text, tokenizer, out = sys.argv[1:]
    config = MinhashConfig()
    signatures = MinhashDedupSignature(f"{out}/signatures", config=config, language="eng")
    buckets = MinhashDedupBuckets(f"{out}/signatures", f"{out}/buckets", config=config)
    tokens = DocumentTokenizer(
        f"{out}/tokens", tokenizer_name_or_path=tokenizer, eos_token="<|eos|>", shuffle_documents=False
    )
    run([JsonlReader(text), signatures], FILES, f"{out}/logs/1")
    run([buckets], config.num_buckets, f"{out}/logs/2")
    run([MinhashDedupCluster(f"{out}/buckets", f"{out}/remove", config=config)], 1, f"{out}/logs/3")
    run([JsonlReader(text), MinhashDedupFilter(f"{out}/remove"), tokens], FILES, f"{out}/logs/4")


def run(pipeline: list[object], tasks: int, logs: str) -> None:
    """One stage."""
    LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=2, logging_dir=logs).run()


if __name__ == "__main__":
    main()
