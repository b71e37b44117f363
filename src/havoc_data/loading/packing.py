"""Documents -> rows of T (input, label) pairs, nothing discarded.

A document of L tokens has L - 1 pairs: BOS is never a label, every other token is one exactly once. A document with
more than T pairs is cut into fragments at blank lines, line ends, or at T; a fragment begins with the token that the one before
ended with, so no label is lost. Fragments are then put into rows: best fit (each into the fullest row that still has
room, longest first), or one after another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from havoc_data.store import StoredSource

BLOCK_TOKENS = 2**27
"""Tokens that are packed together: one shard of the usual size, or many small ones."""


@dataclass(frozen=True)
class PackPlan:
    """Which fragments make up each row of a source. The arrays may lie on disk."""

    row_starts: np.ndarray
    """int64 [rows + 1]: where each row's fragments begin in the arrays below."""
    first_token: np.ndarray
    """int64 [fragments]: first token of the fragment in its source."""
    num_pairs: np.ndarray
    """int32 [fragments]: labels in the fragment; it spans one token more."""
    labels: np.ndarray
    """int32 [rows]: tokens learnt from in each row."""
    by_labels: np.ndarray
    """int64 [rows]: row numbers, those with the fewest labels first."""
    num_labels: int
    """Tokens learnt from in one epoch."""

    @property
    def num_rows(self) -> int:
        """Rows in one epoch."""
        return len(self.row_starts) - 1


def boundary_levels(token_bytes: list[bytes]) -> np.ndarray:
    """uint8 [V]: 2 if the token holds a blank line, 1 if it holds a line end, else 0."""
    return np.array([2 if b"\n\n" in piece else 1 if b"\n" in piece else 0 for piece in token_bytes], dtype=np.uint8)


def plan_rows(
    source: StoredSource, *, row_length: int, levels: np.ndarray, packing: str, block_tokens: int = BLOCK_TOKENS
) -> PackPlan:
    """The rows of one epoch. Shards are packed a few at a time, so that memory does not grow with the source.

    Args:
        source: tokens to pack.
        row_length: T.
        levels: `boundary_levels` of the tokenizer.
        packing: "best_fit" or "concatenate".
        block_tokens: shards are packed together until they have this many.
    """
    starts, first, pairs = [np.zeros(1, dtype=np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    num_fragments = 0
    for shards in _blocks(source, block_tokens):
        of_block = _plan_block(source, shards, row_length=row_length, levels=levels, packing=packing)
        starts.append(of_block[0][1:] + num_fragments)
        first.append(of_block[1])
        pairs.append(of_block[2].astype(np.int32))
        num_fragments += len(of_block[1])
    row_starts, num_pairs = np.concatenate(starts), np.concatenate(pairs)
    labels = np.add.reduceat(num_pairs, row_starts[:-1], dtype=np.int32) if len(row_starts) > 1 else num_pairs
    by_labels = np.argsort(labels, kind="stable")
    return PackPlan(row_starts, np.concatenate(first), num_pairs, labels, by_labels, int(num_pairs.sum(dtype=np.int64)))


def _blocks(source: StoredSource, block_tokens: int) -> list[range]:
    """The shards that are packed together: enough for a block, in order."""
    blocks: list[range] = []
    first, tokens = 0, 0
    for number in range(source.num_shards):
        offsets = source.offsets_of_shard(number)
        tokens += int(offsets[-1] - offsets[0])
        if tokens >= block_tokens or number == source.num_shards - 1:
            blocks.append(range(first, number + 1))
            first, tokens = number + 1, 0
    return blocks


def _plan_block(
    source: StoredSource, shards: range, *, row_length: int, levels: np.ndarray, packing: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row_starts, first_token, num_pairs) of some shards; tokens are counted in the source."""
    first, pairs = _fragments(source, shards, row_length, levels)
    if packing == "concatenate":
        first, pairs, row_of = _in_order(first, pairs, row_length)
        order = np.arange(len(first))
    else:
        row_of = _best_fit(pairs, row_length)
        order = np.lexsort((np.arange(len(first)), row_of))
    rows = row_of[order]
    num_rows = int(rows[-1]) + 1 if len(rows) else 0
    return np.searchsorted(rows, np.arange(num_rows + 1)).astype(np.int64), first[order], pairs[order]


def _fragments(
    source: StoredSource, shards: range, row_length: int, levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    parts = [source.offsets_of_shard(number).astype(np.int64) for number in shards]
    offsets = np.concatenate([parts[0][:1], *(part[1:] for part in parts)])
    lengths = np.diff(offsets) - 1
    short = (lengths > 0) & (lengths <= row_length)
    first, pairs = [offsets[:-1][short]], [lengths[short]]
    for start, stop in zip(offsets[:-1][lengths > row_length], offsets[1:][lengths > row_length], strict=True):
        cuts = _cut(source.tokens(int(start), int(stop)), row_length, levels) + start
        first.append(cuts[:-1])
        pairs.append(np.diff(cuts))
    all_first, all_pairs = np.concatenate(first), np.concatenate(pairs)
    by_place = np.argsort(all_first, kind="stable")
    return all_first[by_place], all_pairs[by_place]


def _cut(tokens: np.ndarray, row_length: int, levels: np.ndarray) -> np.ndarray:
    """Positions of the tokens at which fragments meet, the first and last token included."""
    level = levels[np.minimum(tokens, len(levels) - 1)]
    cuts = [0]
    last = len(tokens) - 1
    while last - cuts[-1] > row_length:
        # The token at the cut is the last label of one fragment and the first input of the next. Not in the first
        # half of the row: short fragments fill rows badly and see little context.
        low, high = cuts[-1] + row_length // 2, cuts[-1] + row_length
        window = level[low + 1 : high + 1]
        best = int(window.max()) if len(window) else 0
        cuts.append(low + 1 + int(np.flatnonzero(window == best)[-1]) if best else high)
    return np.array([*cuts, last], dtype=np.int64)


def _best_fit(pairs: np.ndarray, row_length: int) -> np.ndarray:
    """Row of each fragment. Open rows are kept by the room they have left; one big integer has a bit for every room."""
    row_of = np.empty(len(pairs), dtype=np.int64)
    open_rows: list[list[int]] = [[] for _ in range(row_length + 1)]
    rooms = 0
    num_rows = 0
    for fragment in np.argsort(-pairs, kind="stable").tolist():
        need = int(pairs[fragment])
        fitting = rooms >> need
        if fitting:
            room = need + (fitting & -fitting).bit_length() - 1
            row = open_rows[room].pop()
            if not open_rows[room]:
                rooms &= ~(1 << room)
        else:
            room, row = row_length, num_rows
            num_rows += 1
        row_of[fragment] = row
        left = room - need
        if left:
            open_rows[left].append(row)
            rooms |= 1 << left
    return row_of


def _in_order(first: np.ndarray, pairs: np.ndarray, row_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fragments one after another, cut once more wherever a row is full."""
    out: list[tuple[int, int, int]] = []
    row, room = 0, row_length
    for start, need in zip(first.tolist(), pairs.tolist(), strict=True):
        while need:
            part = min(need, room)
            out.append((start, part, row))
            start, need, room = start + part, need - part, room - part
            if not room:
                row, room = row + 1, row_length
    table = np.array(out, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]
