"""What one block holds in memory while it runs forward and backward, tensor by tensor. Imports no torch.

The tape is the order in which autograd takes and frees the tensors of `havoc_core.layers.block.Block`, read off a trace
(`trace.py`) and checked against it by the tests. Sizes are counted per token; weights' gradients are counted whole.

B batch, T positions, D model width, H query heads, K key/value heads, E head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from havoc_core.config import ModelConfig

Kernels = Literal["gpu", "cpu"]
"""Whose kernels run. A GPU has one for a norm; a CPU composes it of many operations and keeps more for the backward pass."""


class Tape:
    """Tensors by name as they come and go, and the most bytes there ever were."""

    def __init__(self) -> None:
        self._live: dict[str, int] = {}
        self.now = 0
        """Bytes at the moment."""
        self.peak = 0
        """Most bytes since the last `rewind`."""

    def take(self, name: str, size: int) -> None:
        """Allocate; what is there already stays as it is."""
        if name not in self._live:
            self._live[name] = size
            self.now += size
            self.peak = max(self.peak, self.now)

    def free(self, *names: str) -> None:
        """Free what is there of these."""
        for name in names:
            self.now -= self._live.pop(name, 0)

    @property
    def names(self) -> frozenset[str]:
        """What is there."""
        return frozenset(self._live)

    def rewind(self) -> None:
        """Measure the peak from here on."""
        self.peak = self.now


@dataclass(frozen=True)
class TapeShape:
    """What the sizes depend on."""

    model: ModelConfig
    tokens: int
    """B x T."""
    width: int
    """Bytes of a value in the working dtype."""
    kernels: Kernels
    addition: Callable[[int], int]
    """Values of a gradient -> bytes beside it while it is added to its sum."""

    @property
    def stream(self) -> int:
        """Bytes of [B, T, D] in the working dtype."""
        return self.tokens * self.model.d_model * self.width


@dataclass(frozen=True)
class BlockBytes:
    """What one block needs, in bytes."""

    kept: int
    """From its forward to its backward pass; its input where that is kept, its output not."""
    forward: int
    """At most during the forward pass, without its input."""
    backward: int
    """At most during the backward pass, with the gradient that comes in, without what other blocks keep and without an
    input that is kept in the runner."""


class NormTape:
    """A norm's tensors on a tape.

    Args:
        tape: on which they are taken and freed.
        shape: sizes.
        name: prefix of their names.
        values, rows: of a token: D and 1, or heads x E and heads.
        keeps: whether autograd keeps what the backward pass needs.
    """

    def __init__(self, tape: Tape, shape: TapeShape, name: str, *, values: int, rows: int, keeps: bool = True) -> None:
        self._tape, self._name, self._keeps = tape, name, keeps
        self._fused, self._narrow = shape.kernels == "gpu", shape.width < 4
        self._wide, self._rows = 4 * values * shape.tokens, 4 * rows * shape.tokens
        self._out = shape.width * values * shape.tokens

    def forward(self, out: str) -> None:
        """Take the result; the input is the caller's."""
        tape, n = self._tape, self._name
        if self._narrow:
            tape.take(f"{n}.wide", self._wide)
        if not self._fused:
            tape.take(f"{n}.square", self._wide)
            tape.take(f"{n}.mean", self._rows)
        tape.take(f"{n}.scale", self._rows)
        if not self._fused:
            tape.free(f"{n}.square", f"{n}.mean")
            tape.take(f"{n}.scaled", self._wide)
        tape.take(f"{n}.result" if self._narrow else out, self._wide)
        if not self._keeps:
            tape.free(f"{n}.wide", f"{n}.scale", f"{n}.scaled")
        if self._narrow:
            tape.take(out, self._out)
            tape.free(f"{n}.result")

    def backward(self, gradient: str, *, of: str, out: str, onto: str = "") -> None:
        """Take the input's gradient `out`, free `gradient`, what was kept, and the input `of` if that was what was kept.

        With `onto`, the gradient that goes past the norm is added and freed.
        """
        tape, n = self._tape, self._name
        source = f"{n}.wide" if self._narrow else of
        if self._narrow:
            tape.take(f"{n}.g", self._wide)
            tape.free(gradient)
            gradient = f"{n}.g"
        result = f"{n}.dx" if self._narrow or (onto and self._fused) else out
        if self._fused:
            tape.take(result, self._wide)
            tape.free(gradient, source, f"{n}.scale")
        else:
            self._composed_backward(gradient, source, result, onto="" if self._narrow else onto)
        if self._narrow:
            narrow = f"{n}.narrow" if onto else out
            tape.take(narrow, self._out)
            tape.free(result)
            result = narrow
        if onto and (self._narrow or self._fused):
            tape.take(out, self._out)
            tape.free(onto, result)

    def _composed_backward(self, gradient: str, source: str, result: str, *, onto: str) -> None:
        tape, n, wide = self._tape, self._name, self._wide
        tape.take(f"{n}.a", wide)
        tape.take(f"{n}.b", wide)
        tape.free(f"{n}.a", gradient, f"{n}.scaled")
        tape.take(f"{n}.c", wide)
        tape.take(f"{n}.d", wide)
        tape.free(f"{n}.d", f"{n}.b")
        if onto:
            tape.take(f"{n}.s", wide)
            tape.free(onto, f"{n}.c")
        tape.take(f"{n}.f", wide)
        tape.free(f"{n}.scale")
        for name in "pqr":
            tape.take(f"{n}.{name}", wide)
        tape.free(f"{n}.p", f"{n}.q", f"{n}.f", source)
        tape.take(result, wide)
        tape.free(f"{n}.c", f"{n}.s", f"{n}.r")


class BlockTape:
    """One block on a tape.

    Args:
        shape: sizes.
        recompute: none, selective or full.
    """

    def __init__(self, shape: TapeShape, *, recompute: str) -> None:
        self._tape = Tape()
        self._shape = shape
        self._recompute = recompute
        model, attention = shape.model, shape.model.attention
        self._d, self._hidden = model.d_model, model.mlp.hidden_dim
        self._q, self._kv = attention.num_heads * model.head_dim, attention.num_kv_heads * model.head_dim
        self._heads, self._kv_heads = attention.num_heads, attention.num_kv_heads
        self._has_qk_norm, self._drops = attention.qk_norm, model.dropout > 0.0
        self._narrow = shape.width < 4

    def measure(self) -> BlockBytes:
        """Play the forward and the backward pass."""
        tape, x = self._tape, self._shape.stream
        outside = x if self._recompute == "full" else 0
        tape.take("x", x)
        self._forward(keeps=self._recompute != "selective")
        forward = tape.peak - x
        if self._recompute == "none" and self._narrow:
            tape.free("x")
        tape.free("out")
        kept = tape.now
        if self._recompute == "full":
            tape = self._tape = Tape()
            tape.take("x", x)
            kept = x
        tape.take("g", x)
        tape.rewind()
        if self._recompute != "none":
            self._forward(keeps=True, stops_early=self._recompute == "selective")
        self._backward()
        return BlockBytes(kept, forward, tape.peak - outside)

    @property
    def left(self) -> frozenset[str]:
        """What is there after `measure`: what the block gives back, and what its caller still holds."""
        return self._tape.names

    def _forward(self, *, keeps: bool, stops_early: bool = False) -> None:
        tape, narrow = self._tape, self._narrow
        self._norm("n1", keeps).forward("y1")
        self._take("q", self._q)
        self._take("k", self._kv)
        self._take("v", self._kv)
        normed = self._has_qk_norm
        if normed:
            self._norm("nq", keeps).forward("qn")
            self._norm("nk", keeps).forward("kn")
            if keeps and narrow:
                tape.free("q", "k")
        self._rotate("qr", self._q)
        self._rotate("kr", self._kv)
        tape.free("qn", "kn")
        if keeps and not normed:
            tape.free("q", "k")
        self._take("attended", self._q)
        tape.take("sums", 4 * self._heads * self._shape.tokens)
        if not keeps:
            tape.free("qr", "kr")
        self._take("o", self._d)
        if not keeps:
            tape.free("y1")
        self._drop("o", "drop1", keeps)
        self._take("x1", self._d)
        tape.free("o.dropped")
        if keeps:
            tape.free("o")
        self._norm("n2", keeps).forward("y2")
        self._take("gate", self._hidden)
        self._take("silu", self._hidden)
        self._take("up", self._hidden)
        self._take("product", self._hidden)
        if stops_early:
            if narrow:
                tape.free("x1")
            return
        if not keeps:
            tape.free("silu")
        self._take("down", self._d)
        if not keeps:
            tape.free("product", "y2")
        self._drop("down", "drop2", keeps)
        self._take("out", self._d)
        tape.free("down.dropped")
        if keeps:
            tape.free("down")
        if narrow or not keeps:
            tape.free("x1")

    def _backward(self) -> None:
        tape, held = self._tape, self._recompute == "full"
        g = "g"
        if held:  # the recomputation holds what it was given until it is done
            tape.take("g.held", self._shape.stream)
            tape.free("g")
            g = "g.held"
        self._undrop(g, "drop2")
        self._linear("down", self._hidden, self._d, gradient=f"{g}.dropped" if self._drops else "", frees=("product",))
        self._take("dsilu", self._hidden)
        self._take("dup", self._hidden)
        tape.free("d.down", "up", "silu")
        self._linear("up", self._d, self._hidden, gradient="dup")
        self._take("dgate", self._hidden)
        tape.free("dsilu", "gate")
        self._linear("gate", self._d, self._hidden, gradient="dgate", frees=("y2",), onto="d.up")
        self._norm("n2", True).backward("d.gate", of="x1", out="g1", onto="" if held else g)
        if held:
            tape.take("g1.sum", self._shape.stream)
            tape.free("g1")
            g = "g1.sum"
        else:
            g = "g1"
        self._undrop(g, "drop1")
        self._linear("o", self._q, self._d, gradient=f"{g}.dropped" if self._drops else "")
        self._take("dqr", self._q)
        self._take("dkr", self._kv)
        self._take("dv", self._kv)
        tape.free("d.o", "qr", "kr", "v", "attended", "sums")
        self._unrotate("dkr", "dkn", self._kv)
        self._unrotate("dqr", "dqn", self._q)
        dk, dq = "dkn", "dqn"
        if self._has_qk_norm:
            self._norm("nk", True).backward("dkn", of="k", out="dk")
            self._norm("nq", True).backward("dqn", of="q", out="dq")
            dk, dq = "dk", "dq"
        self._linear("v", self._d, self._kv, gradient="dv")
        self._linear("k", self._d, self._kv, gradient=dk, onto="d.v")
        self._linear("q", self._d, self._q, gradient=dq, frees=("y1",), onto="d.k")
        self._norm("n1", True).backward("d.q", of="" if held else "x", out="dx", onto=g)

    def _norm(self, name: str, keeps: bool) -> NormTape:
        values, rows = {"nq": (self._q, self._heads), "nk": (self._kv, self._kv_heads)}.get(name, (self._d, 1))
        return NormTape(self._tape, self._shape, name, values=values, rows=rows, keeps=keeps)

    def _take(self, name: str, values: int) -> None:
        self._tape.take(name, values * self._shape.width * self._shape.tokens)

    def _linear(
        self, name: str, ins: int, outs: int, *, gradient: str = "", frees: tuple[str, ...] = (), onto: str = ""
    ) -> None:
        """Gradients of weight and input ("d." + name); with `onto`, the input's is added to one that is there already."""
        tape, shape = self._tape, self._shape
        tape.take("weight", ins * outs * shape.width)
        self._take("d" if onto else f"d.{name}", ins)
        tape.free(gradient, *frees)
        if onto:
            self._take(f"d.{name}", ins)
            tape.free("d", onto)
        tape.take("addition", shape.addition(ins * outs))
        tape.free("addition", "weight")

    def _rotate(self, out: str, values: int) -> None:
        """Four halves in float32, then the whole."""
        self._tape.take(f"{out}.halves", 8 * values * self._shape.tokens)
        self._tape.free(f"{out}.halves")
        self._take(out, values)

    def _unrotate(self, gradient: str, out: str, values: int) -> None:
        """A wide copy and its halves, widened and narrowed; then two whole ones that are added."""
        tape, tokens = self._tape, self._shape.tokens
        tape.take(f"{out}.wide", (4 if self._narrow else 0) * values * tokens)
        if self._narrow:
            tape.free(gradient)
        tape.take(
            f"{out}.halves", (4 if self._narrow else 8) * values * tokens + self._shape.width * values * tokens // 2
        )
        tape.free(f"{out}.halves", f"{out}.wide", gradient)
        tape.take(f"{out}.parts", 2 * self._shape.width * values * tokens)
        self._take(out, values)
        tape.free(f"{out}.parts")

    def _drop(self, name: str, mask: str, keeps: bool) -> None:
        if self._drops:
            self._tape.take(mask, self._mask_bytes)
            self._take(f"{name}.dropped", self._d)
            if not keeps:
                self._tape.free(mask)
            else:
                self._tape.free(name)

    def _undrop(self, gradient: str, mask: str) -> None:
        if self._drops:
            self._take(f"{gradient}.dropped", self._d)
            self._tape.free(mask)

    @property
    def _mask_bytes(self) -> int:
        """A GPU's kernel keeps a byte a value, the CPU's a factor."""
        return self._shape.tokens * self._d * (1 if self._shape.kernels == "gpu" else self._shape.width)
