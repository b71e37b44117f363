"""What gzip, xz and zstd make of the same held-out text: a model that predicts worse has learnt little.

Each compressor works alone, and primed with training text: what the held-out text costs once the compressor has seen
the training text, as the model has. A group's documents are compressed as one stream, so a compressor learns from
one document for the next, which the model does not: the comparison favours the compressors.
"""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import zstandard

PRIMING_BYTES = 10_000_000
"""Training text that compressors are primed with at most. xz -9e reads about 1 to 2 MB/s, once and again for each
group; with three groups that is under a minute."""

GZIP_WINDOW = 32_768
"""All that gzip can look back, in bytes: it is primed with the end of the training text."""

_MAX_XZ_DICTIONARY = 1_610_612_736
"""1.5 GiB, the format's limit."""


@dataclass(frozen=True)
class CompressorScore:
    """Size of one group of held-out text under one compressor."""

    compressor: str
    """"gzip -9", "xz -9e" or "zstd -19"."""
    group: str
    primed: bool
    """Whether it had seen the training text."""
    bits_per_byte: float
    raw_bytes: int
    compressed_bytes: int


def compare_compressors(held_out: Mapping[str, bytes], *, training: bytes = b"") -> tuple[CompressorScore, ...]:
    """Compress every group with every compressor, alone and, if there is training text, primed with it.

    Args:
        held_out: group -> its documents' UTF-8 text, one after another; empty groups are left out.
        training: text to prime with; the caller bounds it (see `even_sample`), and with it the time.

    Returns:
        One for each compressor, group and way, in that order.
    """
    groups = {group: data for group, data in sorted(held_out.items()) if data}
    sizes: list[tuple[str, bool, dict[str, int]]] = []
    for compressor, alone, primed in (
        ("gzip -9", gzip_sizes, primed_gzip_sizes),
        ("xz -9e", xz_sizes, primed_xz_sizes),
        ("zstd -19", zstd_sizes, primed_zstd_sizes),
    ):
        sizes.append((compressor, False, alone(groups)))
        if training:
            sizes.append((compressor, True, primed(groups, training)))
    return tuple(
        CompressorScore(compressor, group, primed_too, 8.0 * of_groups[group] / len(data), len(data), of_groups[group])
        for compressor, primed_too, of_groups in sizes
        for group, data in groups.items()
    )


def gzip_sizes(groups: Mapping[str, bytes]) -> dict[str, int]:
    """Bytes of each group under gzip -9."""
    return {group: len(gzip.compress(data, 9, mtime=0)) for group, data in groups.items()}


def primed_gzip_sizes(groups: Mapping[str, bytes], training: bytes) -> dict[str, int]:
    """Bytes of each group under zlib -9 with the last 32 KiB of the training text as dictionary."""
    out = {}
    for group, data in groups.items():
        packer = zlib.compressobj(9, zdict=training[-GZIP_WINDOW:])
        out[group] = len(packer.compress(data)) + len(packer.flush())
    return out


def xz_sizes(groups: Mapping[str, bytes]) -> dict[str, int]:
    """Bytes of each group under xz -9e."""
    return {group: _xz_size(data) for group, data in groups.items()}


def primed_xz_sizes(groups: Mapping[str, bytes], training: bytes) -> dict[str, int]:
    """What each group adds to the training text under xz -9e, with a window over both."""
    before = _xz_size(training)
    return {group: max(1, _xz_size(training + data) - before) for group, data in groups.items()}


def zstd_sizes(groups: Mapping[str, bytes]) -> dict[str, int]:
    """Bytes of each group under zstd -19."""
    packer = zstandard.ZstdCompressor(level=19)
    return {group: len(packer.compress(data)) for group, data in groups.items()}


def primed_zstd_sizes(groups: Mapping[str, bytes], training: bytes) -> dict[str, int]:
    """Bytes of each group under zstd -19 with the training text as raw dictionary, all of it within the window."""
    longest = len(training) + max((len(data) for data in groups.values()), default=0)
    window = min(max(longest.bit_length(), zstandard.WINDOWLOG_MIN), zstandard.WINDOWLOG_MAX)
    packer = zstandard.ZstdCompressor(
        dict_data=zstandard.ZstdCompressionDict(training, dict_type=zstandard.DICT_TYPE_RAWCONTENT),
        compression_params=zstandard.ZstdCompressionParameters.from_level(19, window_log=window),
    )
    return {group: len(packer.compress(data)) for group, data in groups.items()}


def even_sample(texts: Iterable[str], *, max_bytes: int) -> bytes:
    """Every n-th text in UTF-8, with the smallest n = 1, 2, 4 ... for which they fit; read once, in bounded memory."""
    kept: list[bytes] = []
    size, stride = 0, 1
    for number, text in enumerate(texts):
        if number % stride:
            continue
        kept.append(text.encode("utf-8", "replace"))
        size += len(kept[-1])
        while size > max_bytes and len(kept) > 1:
            kept, stride = kept[::2], stride * 2
            size = sum(len(data) for data in kept)
    return b"".join(kept)[:max_bytes]


def _xz_size(data: bytes) -> int:
    # -9's own window is 64 MiB; a longer text needs a longer one, and a shorter text less memory.
    dictionary = min(max(1 << 16, 1 << len(data).bit_length()), _MAX_XZ_DICTIONARY)
    preset = 9 | lzma.PRESET_EXTREME
    filters = [{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": dictionary}]
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, filters=filters))
