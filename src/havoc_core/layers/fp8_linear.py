"""Linear layers whose three matrix products can run on 8-bit floating-point numbers.

Micikevicius et al. 2022, arXiv:2209.05433: 4 exponent and 3 mantissa bits (e4m3) for activations and weights, which need
precision, 5 and 2 (e5m2) for gradients, which need range. Each tensor is scaled by one number, so that its largest
entry lies at the end of the format.

M tokens, I input width, O output width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from havoc_core.errors import ConfigError

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
_MULTIPLE = 16
"""What torch._scaled_mm wants every width to be a multiple of."""
_SMALLEST_PEAK = 1.0e-30
"""In place of the largest entry of a tensor of zeros, which has no scale; far below any gradient that counts."""


class Linear(nn.Linear):
    """A linear layer without bias. Weights stay in the working dtype under their usual name, with or without fp8.

    Args:
        in_features, out_features: I and O.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.fp8 = False
        """Whether products run on 8-bit numbers; `use_fp8` sets it."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O] in x's dtype."""
        return fp8_linear(x, self.weight) if self.fp8 else F.linear(x, self.weight)


def use_fp8(blocks: Iterable[nn.Module], *, row_length: int) -> None:
    """Let every linear layer inside the blocks compute on 8-bit numbers; embedding and head are not in them.

    Before blocks are compiled, and on a device that has such products: compute capability 8.9 or above.

    Args:
        blocks: of a model with bfloat16 weights.
        row_length: tokens in a row of a batch; the gradient of a weight is a sum over whole rows.

    Raises:
        ConfigError: a width or the row length is no multiple of 16, or the weights are not bfloat16; nothing is changed.
    """
    layers = [layer for block in blocks for layer in block.modules() if isinstance(layer, Linear)]
    sizes = [("data.max_sequence_length", row_length)]
    sizes += [("the width of a matrix in the blocks", width) for layer in layers for width in layer.weight.shape]
    for name, size in sizes:
        if size % _MULTIPLE:
            raise ConfigError(
                "fp8",
                f"8-bit products need multiples of {_MULTIPLE}, and {name} is {size}.",
                f"Use {size - size % _MULTIPLE + _MULTIPLE}, or `fp8: false`.",
            )
    for layer in layers:
        if layer.weight.dtype != torch.bfloat16:
            raise ConfigError(
                "fp8",
                f"8-bit products are made from bfloat16 weights, and these are {layer.weight.dtype}.",
                "Set `use_amp: true` and `amp_dtype: bfloat16`, or `fp8: false`.",
            )
    for layer in layers:
        layer.fp8 = True


def fp8_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.t() on 8-bit numbers; so are both products of its backward pass.

    Scales come from the tensors at hand and stay on the device. For the backward pass x is kept in 8 bits and the
    weight as it is. Gradients are added up with full precision, which the forward product trades for speed.

    Args:
        x: [..., I], bfloat16.
        weight: [O, I], bfloat16.

    Returns:
        [..., O], bfloat16.

    Raises:
        ValueError: a width is no multiple of 16; nor may the number of tokens be anything else where there are gradients.
    """
    num_tokens = x.numel() // x.shape[-1]
    needs_gradients = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    for size in (*weight.shape, *((num_tokens,) if needs_gradients else ())):
        if size % _MULTIPLE:
            raise ValueError(f"8-bit products need multiples of {_MULTIPLE}, not {size}")
    out: Tensor = _Product.apply(x.reshape(num_tokens, -1), weight)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], weight.shape[0])


def quantise(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(x / scale in an 8-bit dtype, scale), with the largest entry at the dtype's end.

    A NaN makes all of x NaN, an infinity itself: divergence is not hidden.

    Args:
        x: any shape and float dtype.
        dtype: float8_e4m3fn or float8_e5m2.

    Returns:
        x's shape in `dtype`; the scale, a scalar, float32, on x's device.
    """
    scale = x.abs().amax().to(torch.float32).clamp_min(_SMALLEST_PEAK) / torch.finfo(dtype).max
    return _divide(x, scale, dtype), scale


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        small_x, scale_x = quantise(x, FORWARD)
        small_weight, scale_weight = quantise(weight, FORWARD)
        ctx.save_for_backward(small_x, scale_x, weight, scale_weight)
        return _multiply((small_x, scale_x), (small_weight.t(), scale_weight), fast=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        small_x, scale_x, weight, scale_weight = ctx.saved_tensors
        small_grad, scale_grad = quantise(grad, BACKWARD)
        # Not kept from the forward pass: a copy of all weights would cost more than rounding them again.
        small_weight = _divide(weight, scale_weight, FORWARD)
        grad_x = _multiply((small_grad, scale_grad), (small_weight, scale_weight), fast=False)
        grad_weight = _multiply((small_grad.t(), scale_grad), (small_x, scale_x), fast=False)
        return grad_x, grad_weight


def _divide(x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    # The cast does not saturate: what rounding pushed beyond the end would become NaN.
    end = torch.finfo(dtype).max
    return (x.to(torch.float32) / scale).clamp(-end, end).to(dtype)


def _multiply(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], *, fast: bool) -> Tensor:
    """Product of two quantised matrices in bfloat16. Hopper multiplies rows by columns only: both are laid out like that."""
    product: Tensor = torch._scaled_mm(
        left[0].contiguous(),
        right[0].t().contiguous().t(),
        left[1],
        right[1],
        out_dtype=torch.bfloat16,
        use_fast_accum=fast,
    )
    return product
