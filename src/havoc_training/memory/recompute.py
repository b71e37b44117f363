"""Ways through the blocks that keep less than everything for the backward pass, and compute the rest again.

Both are `BlockRunner`s for `Decoder.run_blocks_with`. Chen et al. 2016, arXiv:1604.06174.

B batch, T positions, D model width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from havoc_core.layers.attention import Sight
from havoc_core.layers.block import run_in_order
from havoc_training.memory.host_link import HostLink, Mark

Rotary = tuple[Tensor, Tensor]


class FullRecompute:
    """Keeps the input of each block and runs the block a second time when its gradients are wanted.

    Gradients are bit for bit those of `run_in_order`, compiled or not: both runs of a block build its graph, because a
    compiled block has other code without one. Under torch.no_grad it is `run_in_order`. A parameter's gradient hooks
    fire once a pass, as soon as the backward pass leaves the block. Blocks that are to be compiled are compiled
    themselves (`block.compile`).

    Args:
        offload_to: the way to the host, where the inputs are then kept, [B, T, D] a block, and come back one block
            ahead; the last one never leaves. None: they stay on the device.
    """

    def __init__(self, *, offload_to: HostLink | None = None) -> None:
        self._link = offload_to

    def __call__(self, blocks: Iterable[nn.Module], x: Tensor, rotary: Rotary, sight: Sight) -> Tensor:
        """[B, T, D] -> [B, T, D] through all blocks in order."""
        if not torch.is_grad_enabled():
            return run_in_order(blocks, x, rotary, sight)
        if not x.requires_grad:  # autograd would take the blocks, whose parameters it cannot see, for constants
            x = x.detach().requires_grad_()
        in_order = list(blocks)
        inputs = _Inputs() if self._link is None else _OffloadedInputs(self._link, len(in_order))
        for number, block in enumerate(in_order):
            run = _BlockRun(block, rotary, sight, inputs, number)
            x = _Recomputed.apply(x, run)  # type: ignore[no-untyped-call]
        return x


class SelectiveRecompute:
    """Keeps the results of matrix products and of the attention; norms, rotations and gates are computed again.

    Gradients are bit for bit those of `run_in_order` as long as nothing is compiled. What the last product of a block
    gives is kept too, though nothing asks for it: D values a token.

    Compiled, the choice is made inside the block's graph: the compiler keeps what is named here and computes again
    what lies between, in the same kernels that use it. Rounding then differs in the last bit from a compiled block
    without it, since a value that stays in a kernel is not rounded to bfloat16 on its way. The compiler computes cheap
    things again even without being asked to, so that much of what this saves when nothing is compiled is saved anyway.

    Args:
        compiled: compile the recomputed block, once for all blocks; they must not be compiled themselves.
    """

    def __init__(self, *, compiled: bool) -> None:
        self._run = torch.compile(_run_selectively, dynamic=False) if compiled else _run_selectively

    def __call__(self, blocks: Iterable[nn.Module], x: Tensor, rotary: Rotary, sight: Sight) -> Tensor:
        """[B, T, D] -> [B, T, D] through all blocks in order."""
        for block in blocks:
            x = self._run(block, x, rotary, sight)
        return x


def _run_selectively(block: nn.Module, x: Tensor, rotary: Rotary, sight: Sight) -> Tensor:
    out: Tensor
    if torch.is_grad_enabled():
        contexts = functools.partial(create_selective_checkpoint_contexts, _keep_or_not)
        out = checkpoint(block, x, rotary, sight, use_reentrant=False, context_fn=contexts)
    else:
        out = block(x, rotary, sight)
    return out


_KEPT = frozenset(
    {
        "aten::mm",
        "aten::addmm",
        "aten::linear",
        "aten::_scaled_mm",
        "aten::_scaled_dot_product_cudnn_attention",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_fused_attention_overrideable",
        "havoc::document_attention",
        "flex_attention",
    }
)
"""Operators whose results are kept, by name: not every torch has all of them."""


def _keep_or_not(_context: Any, operator: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    name = operator.name() if callable(operator.name) else operator.name
    return CheckpointPolicy.MUST_SAVE if name.split(".")[0] in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE


class _Inputs:
    """Inputs of the blocks of one pass, on the device."""

    def __init__(self) -> None:
        self._on_device: dict[int, Tensor] = {}

    def keep(self, number: int, x: Tensor) -> None:
        self._on_device[number] = x

    def fetch(self, number: int) -> Tensor:
        """Give the input of a block and forget it."""
        return self._on_device.pop(number)


class _OffloadedInputs:
    """The same on the host. Written from the first block to the last, read from the last to the first."""

    def __init__(self, link: HostLink, num_blocks: int) -> None:
        self._link = link
        self._last = num_blocks - 1
        self._on_host: dict[int, Tensor] = {}
        self._on_device: dict[int, tuple[Tensor, Mark]] = {}
        self._leaving: tuple[Tensor, Mark] | None = None

    def keep(self, number: int, x: Tensor) -> None:
        # A copy has a whole block's time. Waiting for it here costs nothing and says exactly when its source is free.
        if self._leaving is not None:
            self._link.wait(self._leaving[1])
            self._leaving = None
        if number == self._last:
            self._on_device[number] = (x, None)
            return
        on_host = torch.empty_like(x, device="cpu", pin_memory=x.is_cuda)
        self._on_host[number] = on_host
        self._leaving = (x, self._link.to_host([(on_host, x)], after=self._link.mark()))

    def fetch(self, number: int) -> Tensor:
        """Give the input of a block, forget it, and send for that of the block before it."""
        if number == self._last:
            self._link.settle()
        x, arrived = self._on_device.pop(number)
        self._link.wait(arrived)
        if number > 0:
            on_host = self._on_host.pop(number - 1)
            ahead = torch.empty_like(on_host, device=x.device)
            self._on_device[number - 1] = (ahead, self._link.to_device([(ahead, on_host)], after=self._link.mark()))
        return x


class _BlockRun:
    """One block in one pass: what is needed to run it a second time as the first."""

    def __init__(
        self, block: nn.Module, rotary: Rotary, sight: Sight, inputs: _Inputs | _OffloadedInputs, number: int
    ) -> None:
        self._block, self._rotary, self._sight = block, rotary, sight
        self._inputs, self._number = inputs, number
        self._generators: tuple[Tensor, ...] | None = None

    def first(self, x: Tensor) -> Tensor:
        x = x.detach()
        if self._block.training and any(
            isinstance(part, nn.Dropout) and part.p > 0.0 for part in self._block.modules()
        ):
            self._generators = _generators(x.device)
        self._inputs.keep(self._number, x)
        return self._forward(x)[1].detach()

    def second(self) -> tuple[Tensor, Tensor]:
        """A fresh input and what came of it, with the graph between them."""
        x = self._inputs.fetch(self._number)
        with _generators_at(self._generators, x.device):
            return self._forward(x)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            out: Tensor = self._block(x, self._rotary, self._sight)
        return x, out


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, run: _BlockRun) -> Tensor:
        ctx.run = run
        return run.first(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        x, out = ctx.run.second()
        # Not autograd.grad: the parameters' gradients go where they always go, hooks included.
        torch.autograd.backward(out, grad)
        return x.grad, None


def _generators(device: torch.device) -> tuple[Tensor, ...]:
    """Where the random numbers of the host and of the device stand."""
    if device.type == "cuda":
        return torch.get_rng_state(), torch.cuda.get_rng_state(device)
    if device.type == "mps":
        return torch.get_rng_state(), torch.mps.get_rng_state()
    return (torch.get_rng_state(),)


def _set_generators(states: tuple[Tensor, ...], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states[1])


@contextmanager
def _generators_at(states: tuple[Tensor, ...] | None, device: torch.device) -> Iterator[None]:
    """Draw the random numbers of an earlier moment; those of now go on afterwards as if nothing had been drawn."""
    if states is None:
        yield
        return
    now = _generators(device)
    _set_generators(states, device)
    try:
        yield
    finally:
        _set_generators(now, device)
