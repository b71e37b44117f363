"""A tiny model learns what is in its text, and nothing where there is nothing to learn."""

from __future__ import annotations

import json
import math
import random
from collections import Counter

import numpy as np
import pytest

from havoc_data.store import TokenStore

SENTENCES = (
    "The mean of a sample is the sum over the size.",
    "A prime has two divisors and no more.",
    "The derivative of a constant is zero.",
    "Every river ends in a sea or in a lake.",
    "The variance is the mean of the squares less the square of the mean.",
    "A beam bends more when it is longer.",
    "The rank of a matrix is at most its width.",
    "Half of the values lie below the median.",
)


def unigram_entropy(store):
    """Nats a token: what a model that knows the frequencies and no more would pay."""
    counts = Counter()
    for source in store.training.values():
        for start, stop in zip(source.offsets()[:-1].tolist(), source.offsets()[1:].tolist(), strict=True):
            ids, times = np.unique(source.tokens(start, stop), return_counts=True)
            counts.update(dict(zip(ids.tolist(), times.tolist(), strict=True)))
    total = sum(counts.values())
    return -sum(times / total * math.log(times / total) for times in counts.values())


def losses(run):
    lines = [json.loads(line) for line in (run / "logs" / "metrics.jsonl").read_text().splitlines()]
    train = [line["loss"] for line in lines if line["kind"] == "train"]
    validation = [line["loss"] for line in lines if line["kind"] == "validation"]
    return train, validation


@pytest.mark.slow
def test_on_repetitive_text_the_loss_falls_far_below_the_entropy_of_the_tokens(here, havoc, config):
    draw = random.Random(3)
    folder = here / "data" / "math"
    folder.mkdir(parents=True)
    for number in range(40):
        (folder / f"{number}.txt").write_text("\n".join(draw.choice(SENTENCES) for _ in range(90)))
    path = config(
        "run", max_steps=120, batch_size=8, optimizer="muon", learning_rate=1e-2, min_learning_rate=1e-4,
        lr_scheduler_type="wsd", warmup_steps=5, eval_every_n_steps=60, save_every_n_steps=120, model={"vocab_size": 640},
        data={"deduplication": {"domain": "off"}},
    )  # fmt: skip
    said = havoc("train", "--config", path)
    assert said.code == 0, said.err
    entropy = unigram_entropy(TokenStore(here / "run" / "store"))
    train, validation = losses(here / "run")
    assert train[0] == pytest.approx(math.log(640), rel=0.1), "the first loss is that of guessing among all ids"
    # Which sentence comes next is log(8) = 2.1 nats a sentence of some ten tokens; all the rest can be learnt.
    assert sum(train[-10:]) / 10 < 0.4 * entropy
    assert validation[-1] < 0.4 * entropy
    written = havoc(
        "generate", here / "run", "--prompt", "The rank of a", "--temperature", "0", "--max-new-tokens", "12"
    )
    assert written.out.startswith("The rank of a matrix is at most")


@pytest.mark.slow
def test_on_random_words_the_loss_never_falls_below_what_the_letters_carry(here, havoc, config, dummy_sources):
    path = config("run", max_steps=40, batch_size=8, data={"sources": dummy_sources}, learning_rate=1e-2)
    assert havoc("train", "--config", path).code == 0
    lines = [json.loads(line) for line in (here / "run" / "logs" / "metrics.jsonl").read_text().splitlines()]
    bits = [line["bits_per_byte"] for line in lines if line["kind"] == "validation"]
    # Words of 2 to 7 letters out of 12: 4.5 log2(12) bits of letters and log2(6) of length in 5.5 bytes.
    floor = (4.5 * math.log2(12) + math.log2(6)) / 5.5
    assert min(bits) > 0.98 * floor
