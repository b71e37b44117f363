"""AdamW whose state lies in arenas, in the format and the place that a memory plan names.

Matrices are kept as the plan says; one-dimensional parameters are float32 on the device, state and all. An update goes
parameter by parameter and piece by piece, so that beside what is kept there is room for one piece only. State on the host
comes to the device a piece ahead of its update and goes back behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from havoc_core.config import TrainingConfig
from havoc_core.errors import CheckpointError
from havoc_core.model import Decoder, bind_weights
from havoc_core.tensor_file import TensorSource
from havoc_training.memory.adamw_update import (
    Kept,
    Rule,
    Streams,
    keep_master,
    keep_moment,
    parts_of,
    update,
    widen_master,
    widen_moment,
)
from havoc_training.memory.arena import Arena
from havoc_training.memory.gradients import GradientSums, SumSettings
from havoc_training.memory.host_link import HostLink, Mark
from havoc_training.memory.presets import UPDATE_PIECE, UPDATE_PIECE_CPU, MemoryPlan
from havoc_training.parameter_groups import name_groups

_ROOMS = 3
"""Pieces under way between host and device: one comes, one is worked on, one goes."""


@dataclass(frozen=True)
class _Piece:
    name: str
    start: int
    kept: Kept
    group: int


class FlatOptimizer:
    """Binds a model's weights and updates them.

    Args:
        model: on the meta device; its parameters are bound to the arenas.
        weights: float32 starting values by name, asked for one at a time.
        config: rates, decay, clipping, seed.
        plan: formats and places.
        device: that computes.
    """

    def __init__(
        self,
        model: Decoder,
        weights: Mapping[str, Tensor],
        config: TrainingConfig,
        plan: MemoryPlan,
        device: torch.device,
    ) -> None:
        self.plan = plan
        self.device = device
        self._seed = config.seed
        self._betas, self._epsilon = (config.adam_beta1, config.adam_beta2), config.adam_epsilon
        self._updates = 0
        self._left_out: Tensor | None = None
        self.version = 0
        """Goes up whenever weights change, so that copies of them can be told to be old."""
        parameters = dict(model.named_parameters())
        self._shapes = {name: parameter.shape for name, parameter in parameters.items()}
        streamed = {id(p) for p in model.blocks.parameters()} if plan.streams else set()
        self._streamed = {name for name, p in parameters.items() if id(p) in streamed and p.dim() > 1}
        self._kept = self._allocate()
        with torch.no_grad():
            for name, kept in self._kept.items():
                keep_master(kept, weights[name].to(device=kept.working.device, dtype=torch.float32).reshape(-1))
        bind_weights(model, {name: kept.working.view(self._shapes[name]) for name, kept in self._kept.items()})
        self.gradients = GradientSums(self._shapes, SumSettings.of(plan, seed=config.seed, device=device))
        near = ((name, p) for name, p in model.named_parameters() if name not in self._streamed)
        # The streamed blocks' own norms take no part in the computation: their copies in the slots do.
        inside = {id(p) for p in model.blocks.parameters()} if plan.streams else set()
        self.gradients.watch((name, p) for name, p in near if id(p) not in inside)
        self._groups: list[dict[str, Any]] = [
            {
                "names": group.names,
                "lr": config.learning_rate,
                "initial_lr": config.learning_rate,
                "weight_decay": config.weight_decay if group.decayed else 0.0,
            }
            for group in name_groups(model, decay_embeddings=config.decay_embeddings)
        ]
        self.link = HostLink(device)
        """The way between host and device; who streams weights shares it, so that they come after they were sent."""
        self._piece = UPDATE_PIECE_CPU if device.type == "cpu" else UPDATE_PIECE
        # On a CPU the host's memory is the device's: what lies there is worked on in place.
        staged = plan.states_on == "host" and device.type != "cpu"
        self._rooms = self._make_rooms() if staged else []

    def param_groups(self) -> Iterable[dict[str, Any]]:
        """Groups with `lr`, and the `initial_lr` that the schedule multiplies."""
        return self._groups

    @property
    def leaves_out(self) -> bool:
        """An update can be left out on the device."""
        return True

    def begin(self) -> None:
        """Begin the sums of the next update."""
        self.gradients.start(self._updates)

    @torch.no_grad()
    def update(self, factor: Tensor, *, left_out: Tensor | None = None) -> None:
        """Update every weight from the gradients' sums.

        Args:
            factor: scalar that clips the gradients.
            left_out: float32 scalar on the device; 1 leaves everything as it is. None: the gradients are known to be finite.
        """
        self._updates += 1
        if left_out is not None:
            # Once a gradient was not finite nothing is updated any more: the host hears of it only after it asked for more.
            left_out = self._left_out = left_out if self._left_out is None else torch.maximum(left_out, self._left_out)
        for piece, kept in self._staged():
            total = self.gradients[piece.name][piece.start : piece.start + kept.working.numel()]
            # Float32 sums are scaled where they lie: this is their last use.
            near = total.to(device=self.device, dtype=torch.float32, non_blocking=True).mul_(factor)
            group = self._groups[piece.group]
            rule = Rule(
                self._updates, self._betas, self._epsilon, float(group["lr"]), float(group["weight_decay"]), left_out
            )
            streams = Streams(self._seed, piece.name, self._updates, piece.start)
            update(kept, near, rule=rule, streams=streams, rounding=self.plan.rounding)
        self.link.settle()
        self.version += 1

    def take_back(self, updates: int) -> None:
        """Count no longer the last updates that were asked for and left out, and make updates again from here on."""
        self._updates -= updates
        self._left_out = None

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Per parameter name: master, exp_avg, exp_avg_sq (float32, or bfloat16 where kept so) and step.

        The same whatever the plan, so that a run can be resumed under another. Values that have to be worked out are made
        when they are written.
        """
        self.link.finish()
        return {name: self._saved(name, kept) for name, kept in self._kept.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Continue where a `state_dict`, of any plan, left off.

        Raises:
            CheckpointError: the parameters are not the same, or another optimizer wrote it.
        """
        remedy = "Resume with --fine-tune."
        if set(state) != set(self._kept):
            odd = sorted(set(state) ^ set(self._kept))
            raise CheckpointError("optimizer.pt", f"{odd[0]} is in one of model and file only.", remedy)
        for name, kept in self._kept.items():
            saved = state[name]
            keep_master(kept, saved["master"].reshape(-1).to(kept.working.device))
            if set(saved) == {"master"}:  # saved before the first update
                continue
            if not {"exp_avg", "exp_avg_sq", "step"} <= set(saved):
                raise CheckpointError("optimizer.pt", f"holds no AdamW moments of {name}.", remedy)
            home = kept.first.device
            keep_moment(kept.first, kept.first_scales, saved["exp_avg"].reshape(-1).to(home), signed=True)
            keep_moment(kept.second, kept.second_scales, saved["exp_avg_sq"].reshape(-1).to(home), signed=False)
            self._updates = int(saved["step"])
        self.version += 1

    def _allocate(self) -> dict[str, Kept]:
        """Room for every parameter: an arena for each kind of thing and each place."""
        vectors = replace(self.plan, working="float32", master="own", moments="float32", states_on="device")
        wanted: dict[tuple[str, bool, torch.dtype], dict[str, int]] = {}
        homes: dict[str, dict[str, tuple[str, bool, torch.dtype]]] = {}
        for name, shape in self._shapes.items():
            plan = self.plan if len(shape) > 1 else vectors
            homes[name] = {}
            for what, (count, dtype) in parts_of(shape.numel(), plan).items():
                on_host = name in self._streamed if what == "working" else plan.states_on == "host"
                homes[name][what] = (what, on_host, dtype)
                wanted.setdefault(homes[name][what], {})[name] = count
        arenas = {
            (what, on_host, dtype): Arena(
                counts,
                dtype=dtype,
                device=torch.device("cpu") if on_host else self.device,
                registered=on_host and self.device.type == "cuda",
            )
            for (what, on_host, dtype), counts in wanted.items()
        }
        return {name: Kept(**{what: arenas[key][name] for what, key in of.items()}) for name, of in homes.items()}

    def _pieces(self) -> Iterator[_Piece]:
        size = self._piece
        group_of = {name: number for number, group in enumerate(self._groups) for name in group["names"]}
        for name, kept in self._kept.items():
            total = kept.working.numel()
            for start in range(0, total, size):
                yield _Piece(name, start, kept.piece(start, min(size, total - start)), group_of[name])

    def _staged(self) -> Iterator[tuple[_Piece, Kept]]:
        """Every piece with its values where they can be computed with, the next one on its way."""
        if not self._rooms:
            yield from ((piece, piece.kept) for piece in self._pieces())
            return
        coming: tuple[_Piece, Kept, Mark, int] | None = None
        free: list[Mark] = [None] * _ROOMS
        for number, piece in enumerate(self._pieces()):
            room = number % _ROOMS
            near = self._near(piece, room)
            arrived = self.link.to_device(_moved(near, piece.kept), after=free[room])
            if coming is not None:
                yield from self._worked(coming, free)
            coming = (piece, near, arrived, room)
        if coming is not None:
            yield from self._worked(coming, free)

    def _worked(self, coming: tuple[_Piece, Kept, Mark, int], free: list[Mark]) -> Iterator[tuple[_Piece, Kept]]:
        piece, near, arrived, room = coming
        self.link.wait(arrived)
        yield piece, near
        copies = [(far, here) for here, far in _moved(near, piece.kept)]
        free[room] = self.link.to_host(copies, after=self.link.mark())

    def _near(self, piece: _Piece, room: int) -> Kept:
        """Tensors on the device for a piece: its own where they are there already."""
        kept = piece.kept
        if len(self._shapes[piece.name]) < 2:  # vectors are on the device, state and all
            return kept
        spare = self._rooms[room].piece(0, kept.working.numel())
        return spare if piece.name in self._streamed else replace(spare, working=kept.working)

    def _make_rooms(self) -> list[Kept]:
        parts = parts_of(self._piece, self.plan)
        return [
            Kept(**{what: torch.empty(n, dtype=dtype, device=self.device) for what, (n, dtype) in parts.items()})
            for _ in range(_ROOMS)
        ]

    def _saved(self, name: str, kept: Kept) -> dict[str, Any]:
        shape = self._shapes[name]
        out: dict[str, Any] = {"master": _source(lambda: widen_master(kept), kept.working, shape, kept.remainder)}
        if self._updates:
            first, second = (kept.first, kept.first_scales), (kept.second, kept.second_scales)
            out["exp_avg"] = _source(lambda: widen_moment(*first, signed=True), first[0], shape, first[1])
            out["exp_avg_sq"] = _source(lambda: widen_moment(*second, signed=False), second[0], shape, second[1])
            out["step"] = torch.tensor(float(self._updates))
        return out


def _source(make: Callable[[], Tensor], kept: Tensor, shape: torch.Size, beside: Tensor | None) -> TensorSource:
    """Values for a checkpoint: what is kept, or what it makes float32 together with what is kept beside it."""
    if beside is None:
        return TensorSource.of(kept.view(shape))
    return TensorSource(tuple(shape), torch.float32, lambda out: _fill(out, make()))


def _fill(out: Tensor, values: Tensor) -> None:
    out.copy_(values.view(out.shape))


def _moved(near: Kept, far: Kept) -> list[tuple[Tensor, Tensor]]:
    """(on the device, on the host) of all that is not on the device anyway."""
    pairs = zip(near.tensors(), far.tensors(), strict=True)
    return [(here, there) for here, there in pairs if here is not there]
