"""Sizes are those of the compressors themselves; priming helps where the training text does."""

from __future__ import annotations

import gzip
import lzma
import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from havoc_eval.compression import compare_compressors, even_sample, primed_gzip_sizes, primed_xz_sizes

WORDS = [f"word{n}" for n in range(3000)]


def text(seed: int, num_words: int) -> bytes:
    """Words at random: hard to compress, unless they have been seen."""
    generator = random.Random(seed)
    return " ".join(generator.choice(WORDS) for _ in range(num_words)).encode()


def test_alone_they_are_the_sizes_of_the_compressors_themselves() -> None:
    data = text(1, 20_000)
    found = {score.compressor: score for score in compare_compressors({"domain": data})}
    assert found["gzip -9"].compressed_bytes == len(gzip.compress(data, 9))
    assert found["xz -9e"].compressed_bytes == len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    assert found["zstd -19"].compressed_bytes == len(zstandard.compress(data, 19))
    for score in found.values():
        assert score.bits_per_byte == pytest.approx(8 * score.compressed_bytes / len(data))
        assert (score.raw_bytes, score.group, score.primed) == (len(data), "domain", False)


def test_text_that_was_in_the_training_text_costs_next_to_nothing() -> None:
    held_out, rest = text(2, 3_000), text(3, 100_000)
    found = compare_compressors({"domain": held_out}, training=held_out + rest)
    primed = {score.compressor: score.bits_per_byte for score in found if score.primed}
    assert primed["xz -9e"] < 0.1
    assert primed["zstd -19"] < 0.1
    alone = {score.compressor: score.bits_per_byte for score in found if not score.primed}
    # The repetition lies 700 kB back, and gzip looks back 32 KiB: it gains words, not the text.
    assert 0.5 * alone["gzip -9"] < primed["gzip -9"] < alone["gzip -9"]


def test_gzip_is_primed_with_the_end_of_the_training_text() -> None:
    held_out, filling = text(2, 500), b"x" * 40_000
    near, far = (primed_gzip_sizes({"a": held_out}, t)["a"] for t in (filling + held_out, held_out + filling))
    assert near < 0.1 * far


def test_xz_is_charged_what_the_text_adds_to_the_training_text() -> None:
    held_out, training = text(6, 2_000), text(7, 20_000)
    preset = 9 | lzma.PRESET_EXTREME
    wanted = len(lzma.compress(training + held_out, preset=preset)) - len(lzma.compress(training, preset=preset))
    assert primed_xz_sizes({"a": held_out}, training) == {"a": wanted}


def test_every_group_is_primed_by_the_training_text_alone() -> None:
    """Not by the group before it, though both may go through one compressor."""
    first, training = text(4, 4_000), text(5, 4_000)
    scores = compare_compressors({"a": first, "b": first}, training=training)
    sizes = {(s.compressor, s.primed, s.group): s.compressed_bytes for s in scores}
    for compressor in ("gzip -9", "xz -9e", "zstd -19"):
        for primed in (False, True):
            assert sizes[compressor, primed, "a"] == sizes[compressor, primed, "b"]


def test_groups_without_text_are_left_out() -> None:
    assert compare_compressors({"domain": b""}, training=b"abc") == ()
    assert [score.group for score in compare_compressors({"b": b"x", "a": b"y", "c": b""})] == ["a", "b"] * 3


@given(st.lists(st.text(max_size=5), max_size=40), st.integers(1, 60))
def test_a_sample_is_every_nth_text_and_within_the_bound(texts: list[str], max_bytes: int) -> None:
    sample = even_sample(iter(texts), max_bytes=max_bytes)
    assert len(sample) <= max_bytes
    strided = ["".join(texts[:: 2**k]).encode() for k in range(8)]
    assert sample in [joined[:max_bytes] for joined in strided]
    if len(strided[0]) <= max_bytes:
        assert sample == strided[0]
