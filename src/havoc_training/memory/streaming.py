"""Blocks whose weights lie on the host and come to the device one ahead of the computation.

There are two slots, each a whole block on the device. While one computes, the weights of the next block are copied into the
other. Every block is computed again in the backward pass, so that nothing of it is kept but its input.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from havoc_core.layers.attention import Sight
from havoc_core.layers.block import BlockRunner
from havoc_core.model import Decoder
from havoc_training.memory.flat_optimizer import FlatOptimizer
from havoc_training.memory.host_link import Mark

_SLOTS = 2


@dataclass
class _Slot:
    """A block on the device and whose weights it holds."""

    block: nn.Module
    holds: tuple[int, int] | None = None
    """(layer, version of the weights)."""
    arrived: Mark = None
    """When they are all there."""
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)


def make_slots(model: Decoder, *, dtype: torch.dtype, device: torch.device) -> list[nn.Module]:
    """Blocks like the model's first, with room for their weights on the device.

    Args:
        model: still on the meta device.
        dtype: of matrices; vectors are float32.
        device: that computes.
    """
    slots = []
    for _ in range(min(_SLOTS, len(model.blocks))):
        block = copy.deepcopy(model.blocks[0])
        for name, parameter in list(block.named_parameters()):
            owner = block.get_submodule(name.rpartition(".")[0])
            kind = dtype if parameter.dim() > 1 else torch.float32
            room = torch.empty(parameter.shape, dtype=kind, device=device)
            setattr(owner, name.rpartition(".")[2], nn.Parameter(room))
        slots.append(block)
    return slots


class _Layer(nn.Module):
    """One layer of the model, computed by the block of a slot; a module, so that it can be asked what it contains."""

    def __init__(self, run: Callable[[Tensor, tuple[Tensor, Tensor], Sight], Tensor], block: nn.Module) -> None:
        super().__init__()
        self._run = run
        self.block = block

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], sight: Sight) -> Tensor:
        return self._run(x, rotary, sight)


class StreamedBlocks:
    """A runner of blocks that lie on the host.

    Args:
        model: its blocks' matrices are on the host, its other parameters on the device.
        optimizer: sums the gradients, and says when weights have changed.
        slots: from `make_slots`, compiled or not.
        recompute: a runner that computes every block again in the backward pass and keeps only its input.
    """

    def __init__(
        self, model: Decoder, optimizer: FlatOptimizer, slots: Sequence[nn.Module], *, recompute: BlockRunner
    ) -> None:
        self._optimizer = optimizer
        self._recompute = recompute
        self._link = optimizer.link
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._sources: list[Mapping[str, nn.Parameter]] = [dict(block.named_parameters()) for block in model.blocks]
        self._names = [{inner: names[id(p)] for inner, p in block.items()} for block in self._sources]
        self._slots = [_Slot(block, parameters=dict(block.named_parameters())) for block in slots]
        self._last = -1
        for slot in self._slots:
            for inner, parameter in slot.parameters.items():
                hook = functools.partial(self._take, slot, inner)
                parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        self._layers = [
            _Layer(functools.partial(self._run, layer), slots[layer % len(slots)]) for layer in range(len(model.blocks))
        ]

    def __call__(self, blocks: Iterable[nn.Module], x: Tensor, rotary: tuple[Tensor, Tensor], sight: Sight) -> Tensor:
        """[B, T, D] -> [B, T, D] through the streamed blocks; `blocks`, where their weights lie, are not run themselves."""
        for layer in self._layers:
            layer.train(torch.is_grad_enabled())
        return self._recompute(self._layers, x, rotary, sight)

    def _run(self, layer: int, x: Tensor, rotary: tuple[Tensor, Tensor], sight: Sight) -> Tensor:
        # Whatever used the slots before, backward passes included, has been asked for by now.
        before = self._link.mark()
        slot = self._slot(layer, before)
        # Forward passes rise through the layers, backward passes fall: the next one is known.
        following = layer + 1 if layer > self._last or layer == 0 else layer - 1
        self._last = layer
        if 0 <= following < len(self._sources):
            self._slot(following, before)
        self._link.wait(slot.arrived)
        out: Tensor = slot.block(x, rotary, sight)
        return out

    def _slot(self, layer: int, after: Mark) -> _Slot:
        """The slot that holds a layer, or will when the copies that were started are done."""
        slot = self._slots[layer % len(self._slots)]
        wanted = (layer, self._optimizer.version)
        if slot.holds != wanted:
            copies = [(slot.parameters[inner].data, source.data) for inner, source in self._sources[layer].items()]
            slot.arrived = self._link.to_device(copies, after=after)
            slot.holds = wanted
        return slot

    def _take(self, slot: _Slot, inner: str, parameter: Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None and slot.holds is not None, "a block that was run has weights and gets gradients"
        parameter.grad = None
        self._optimizer.gradients.add(self._names[slot.holds[0]][inner], gradient)
