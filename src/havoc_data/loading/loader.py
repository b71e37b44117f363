"""Store -> batches, as a pure function of (store, plan, seed, slot).

A slot is one row of the whole run. There is no iterator and no state: a checkpoint remembers the next slot, and any
number of ranks and any split into micro-batches see the same rows in the same order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from havoc_core.errors import ConfigError, DataError
from havoc_core.labels import IGNORE_INDEX
from havoc_data.loading.ledger import row_hash
from havoc_data.loading.pack_files import kept_plan, pack_key
from havoc_data.loading.packing import PackPlan, boundary_levels, plan_rows
from havoc_data.loading.permutation import permute, spread
from havoc_data.loading.schedule import ExactSchedule
from havoc_data.store import StoredSource, TokenStore

PLANS = ".plans"
"""Folder of the pack plans in that of the store."""
STEPS_AHEAD = 4
"""Steps whose rows are fetched before they are asked for, where the tokens lie elsewhere."""


@dataclass(frozen=True)
class MixturePlan:
    """Everything besides store and seed that decides which rows there are and when they come."""

    ratios: dict[str, float]
    """Group -> share of the learnt tokens."""
    weights: dict[str, float]
    """Source -> share inside its group; sources that are missing here share by their number of tokens."""
    row_length: int
    """T, (input, label) pairs in a row."""
    packing: str
    """"best_fit" or "concatenate"."""

    @property
    def id(self) -> str:
        """BLAKE2b-128 of the plan, in hex."""
        return hashlib.blake2b(json.dumps(asdict(self), sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Row:
    """One row: T inputs and the tokens that follow them."""

    slot: int
    source: str
    epoch: int
    position: int
    """Number of the row in its source's pack plan."""
    inputs: np.ndarray
    """int64 [T]; padding after the last document."""
    labels: np.ndarray
    """int64 [T]; IGNORE_INDEX in the padding."""
    lengths: tuple[int, ...]
    """Pairs of each document fragment."""

    def hash(self) -> bytes:
        """16 bytes that change with any token or boundary."""
        return row_hash(self.inputs, self.labels, self.lengths)


@dataclass(frozen=True)
class Batch:
    """Rows that go through the model together; B rows of T pairs."""

    inputs: np.ndarray
    """int64 [B, T]."""
    labels: np.ndarray
    """int64 [B, T]; IGNORE_INDEX where nothing is scored."""
    lengths: tuple[tuple[int, ...], ...]
    """Documents in each row."""

    @classmethod
    def of_rows(cls, rows: Sequence[Row]) -> Batch:
        """Stack rows."""
        return cls(
            np.stack([row.inputs for row in rows]),
            np.stack([row.labels for row in rows]),
            tuple(row.lengths for row in rows),
        )


class PackedSource:
    """A source cut into rows."""

    def __init__(self, source: StoredSource, plan: PackPlan, *, row_length: int, pad_id: int) -> None:
        self.name = source.name
        self.group = source.group
        self.plan = plan
        self._source = source
        self._row_length = row_length
        self._pad_id = pad_id

    def row(self, position: int) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
        """inputs, labels and document lengths of a row."""
        inputs = np.full(self._row_length, self._pad_id, dtype=np.int64)
        labels = np.full(self._row_length, IGNORE_INDEX, dtype=np.int64)
        starts, lengths = self.fragments(position)
        at = 0
        for start, length in zip(starts, lengths, strict=True):
            tokens = self._source.tokens(start, start + length + 1)
            inputs[at : at + length] = tokens[:-1]
            labels[at : at + length] = tokens[1:]
            at += length
        return inputs, labels, tuple(lengths)

    def fragments(self, position: int) -> tuple[list[int], list[int]]:
        """(first token in the source, number of pairs) of every fragment of a row."""
        begin, end = self.plan.row_starts[position : position + 2].tolist()
        return self.plan.first_token[begin:end].tolist(), self.plan.num_pairs[begin:end].tolist()

    @property
    def stored(self) -> StoredSource:
        """The source that is packed."""
        return self._source


class Loader:
    """Rows and batches of a run.

    Args:
        store: the tokens.
        plan: mixture and packing.
        seed: of the order.
        token_bytes: bytes of each id, for natural boundaries.
        pad_id: fills rows up.
        first_slot: the slot that is this store's first; not 0 where a run began with another store.

    Raises:
        DataError: a group of the mixture has no text in the store, or weights of 0 leave nothing of it.
        ConfigError: weights leave nothing for the sources of a group that have none.
    """

    def __init__(
        self,
        store: TokenStore,
        plan: MixturePlan,
        *,
        seed: int,
        token_bytes: list[bytes],
        pad_id: int,
        first_slot: int = 0,
    ) -> None:
        self.first_slot = first_slot
        self.store = store
        self.plan = plan
        self.seed = seed
        self._levels = boundary_levels(token_bytes)
        self._pad_id = pad_id
        self.sources = self._packed(store.training)
        self.validation = self._packed(store.validation)
        groups = {name: share for name, share in plan.ratios.items() if share > 0}
        by_group = {group: [s for s in self.sources.values() if s.group == group] for group in groups}
        for group, members in by_group.items():
            if not members:
                raise DataError(f"group {group}", "has no text in the store.", "Add text, or set its ratio to 0.")
        # A slot is a row, and rows of different sources hold different numbers of tokens: shares of tokens are turned
        # into shares of rows, first among the groups, then inside each.
        shares = {group: _token_shares(members, plan.weights) for group, members in by_group.items()}
        fill = {group: 1.0 / sum(shares[group][s.name] / _mean_labels(s) for s in by_group[group]) for group in groups}
        self._groups = ExactSchedule({group: share / fill[group] for group, share in groups.items()})
        self._planned = {
            name: share * inner / sum(groups.values())
            for group, share in groups.items()
            for name, inner in shares[group].items()
        }
        self._inside = {
            group: ExactSchedule({s.name: shares[group][s.name] / _mean_labels(s) for s in members})
            for group, members in by_group.items()
        }

    @property
    def rows_per_epoch(self) -> int:
        """Rows of all sources together."""
        return sum(source.plan.num_rows for source in self.sources.values())

    def rows(self, slots: range) -> list[Row]:
        """The rows of these slots, in order."""
        out: list[Row | None] = [None] * len(slots)
        for indices, name, epochs, positions in self._places(slots):
            source = self.sources[name]
            for index, epoch, position in zip(indices.tolist(), epochs.tolist(), positions.tolist(), strict=True):
                out[index] = Row(slots[index], name, epoch, position, *source.row(position))
        return [row for row in out if row is not None]

    def labels_by_source(self, slots: range) -> dict[str, int]:
        """Source -> tokens learnt from in these slots; counted from the plan, without reading a token."""
        out = dict.fromkeys(self.sources, 0)
        for _, name, _, positions in self._places(slots):
            out[name] += int(self.sources[name].plan.labels[positions].sum())
        return out

    def micro_batches(
        self, first_slot: int, *, rows_per_step: int, micro_batch_size: int, rank: int = 0, world_size: int = 1
    ) -> tuple[list[Batch], list[Row]]:
        """This rank's part of a step, in batches of at most `micro_batch_size` rows, and the rows themselves.

        Ranks take consecutive slices, so that their row hashes in rank order are the row hashes in slot order.
        """
        mine = rows_per_step // world_size
        start = first_slot + rank * mine
        rows = self.rows(range(start, start + mine))
        parts = [rows[i : i + micro_batch_size] for i in range(0, len(rows), micro_batch_size)]
        if self.store.is_far:
            for step in range(1, STEPS_AHEAD + 1):
                self._read_ahead(range(start + step * rows_per_step, start + step * rows_per_step + mine))
        return [Batch.of_rows(part) for part in parts], rows

    def validation_batches(self, num_rows: int, micro_batch_size: int) -> dict[str, list[Batch]]:
        """Group -> batches of held-out rows: always the same rows, shared by mixture weight, at least one batch each."""
        total = sum(self.plan.ratios.values())
        out = {}
        for group, source in self.validation.items():
            share = self.plan.ratios.get(group, 0.0) / total
            if share == 0.0:
                continue
            wanted = min(source.plan.num_rows, max(micro_batch_size, round(num_rows * share)))
            positions = permute(np.arange(wanted), source.plan.num_rows, f"{self.store.id}/{group}/validation".encode())
            rows = [Row(0, group, 0, int(p), *source.row(int(p))) for p in positions]
            out[group] = [Batch.of_rows(rows[i : i + micro_batch_size]) for i in range(0, wanted, micro_batch_size)]
        return out

    def planned_shares(self) -> dict[str, float]:
        """Source -> share of the learnt tokens that the mixture gives it; 0 for a source of a group without a share."""
        return {name: self._planned.get(name, 0.0) for name in self.sources}

    def epochs_after(self, num_slots: int) -> dict[str, float]:
        """Source -> how many times its text will have been seen after `num_slots` slots; 0 for a weight of 0."""
        num_slots = max(0, num_slots - self.first_slot)
        out = dict.fromkeys(self._planned, 0.0)
        for number, group in enumerate(self._groups.names):
            rows = _count_before(self._groups, number, num_slots)
            for inner_number, name in enumerate(self._inside[group].names):
                seen = _count_before(self._inside[group], inner_number, rows)
                out[name] = seen / self.sources[name].plan.num_rows
        return out

    def _places(self, slots: range) -> Iterator[tuple[np.ndarray, str, np.ndarray, np.ndarray]]:
        """For each source: which of the slots are its own (indices into `slots`), their epochs and row numbers."""
        numbers = np.arange(slots.start, slots.stop, slots.step, dtype=np.int64) - self.first_slot
        if len(numbers) and numbers[0] < 0:
            raise DataError(
                f"slot {slots.start}",
                f"belongs to an earlier store; the one that is open begins at slot {self.first_slot}.",
                "Open the store that the run had then.",
            )
        which, ordinals = self._groups.locate(numbers)
        for number, group in enumerate(self._groups.names):
            here = np.flatnonzero(which == number)
            inner, inner_ordinals = self._inside[group].locate(ordinals[here])
            for inner_number, name in enumerate(self._inside[group].names):
                mine = inner == inner_number
                epochs, places = np.divmod(inner_ordinals[mine], self.sources[name].plan.num_rows)
                yield here[mine], name, epochs, self._shuffled(name, epochs, places)

    def _shuffled(self, name: str, epochs: np.ndarray, places: np.ndarray) -> np.ndarray:
        positions = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            key = f"{self.seed}/{self.store.id}/{name}/{epoch}".encode()  # a new order in every epoch
            source = self.sources[name]
            positions[here] = source.plan.by_labels[spread(places[here], source.plan.num_rows, key)]
        return positions

    def _packed(self, sources: Mapping[str, StoredSource]) -> dict[str, PackedSource]:
        plan = self.plan
        return {
            name: PackedSource(
                source,
                kept_plan(
                    self.store.folder / PLANS,
                    pack_key(source.checksums(), row_length=plan.row_length, packing=plan.packing, levels=self._levels),
                    partial(plan_rows, source, row_length=plan.row_length, levels=self._levels, packing=plan.packing),
                ),
                row_length=plan.row_length,
                pad_id=self._pad_id,
            )
            for name, source in sources.items()
        }

    def _read_ahead(self, slots: range) -> None:
        """Fetch what these slots will need, where it does not lie on this machine."""
        for _, name, _, positions in self._places(slots):
            source = self.sources[name]
            for position in positions.tolist():
                starts, lengths = source.fragments(position)
                source.stored.read_ahead(
                    zip(starts, (s + n + 1 for s, n in zip(starts, lengths, strict=True)), strict=True)
                )


def _mean_labels(source: PackedSource) -> float:
    return source.plan.num_labels / source.plan.num_rows


def _token_shares(members: Sequence[PackedSource], weights: Mapping[str, float]) -> dict[str, float]:
    """Source -> share of its group's tokens: as the weights say; those without one share the rest by their tokens."""
    named = {s.name: weights[s.name] for s in members if s.name in weights}
    unnamed = {s.name: float(s.plan.num_labels) for s in members if s.name not in weights}
    rest = 1.0 - sum(named.values()) if unnamed else 0.0
    if unnamed and rest < 1e-9:  # 0.7 + 0.2 + 0.1 is a little less than 1
        names = ", ".join(unnamed)
        raise ConfigError(
            "data.weights",
            f"those of {', '.join(named)} add up to {sum(named.values()):g}, so {names} would get nothing of the group.",
            f"Lower the named weights below 1 in sum, or give {names} a weight (0 leaves it out).",
        )
    total = sum(unnamed.values())
    shares = named | {name: rest * tokens / total for name, tokens in unnamed.items()}
    whole = sum(shares.values())
    if whole <= 0:
        raise DataError(
            "data.weights", "leave nothing for the sources of a group.", "Give at least one a weight above 0."
        )
    return {name: share / whole for name, share in shares.items()}


def _count_before(schedule: ExactSchedule, number: int, num_slots: int) -> int:
    """Slots of one name among the first `num_slots`."""
    if num_slots == 0:
        return 0
    which, ordinals = schedule.locate(np.arange(max(0, num_slots - 4096), num_slots))
    mine = ordinals[which == number]
    # A name with any share at all has a slot in every period, and a period is at most 4096 slots.
    return int(mine[-1]) + 1 if len(mine) else 0
