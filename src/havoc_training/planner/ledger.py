"""The memory of a training step, in closed form: bytes by moment and by part. Imports no torch."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from havoc_core.config import ModelConfig
from havoc_core.costs import LOSS_CHUNK, LOSS_CHUNK_CPU, num_parameters
from havoc_training.memory.presets import UPDATE_PIECE, WORKING_BYTES, MemoryPlan
from havoc_training.planner.block_tape import BlockTape, Kernels, NormTape, Tape, TapeShape

_CHUNK_VALUES: Mapping[Kernels, int] = {"cpu": LOSS_CHUNK_CPU, "gpu": LOSS_CHUNK}
"""Logits that the loss holds at once."""
_WIDENING, _ROUNDING, _NEAREST, _CODING = 4, 15, 7, 20
"""Bytes a value of a float32 copy, and of what comes beside it while it is rounded stochastically to bfloat16, to nearest,
or made a code of 8 bits; of the functions in `havoc_training/memory/`, as traced."""


@dataclass(frozen=True)
class Phase:
    """One moment of a step at which memory peaks."""

    name: str
    """forward, loss, backward of the last block, backward of the first block, embedding gradient, optimizer."""
    parts: Mapping[str, int]
    """Bytes by what they are for."""

    @property
    def bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Ledger:
    """The moments of a step on the device, and what lies in host memory."""

    phases: tuple[Phase, ...]
    """In the order of a step."""
    host: Mapping[str, int]
    """Bytes in host memory by what they are for."""

    @property
    def peak(self) -> Phase:
        """The phase that decides."""
        return max(self.phases, key=lambda phase: phase.bytes)

    @property
    def peak_bytes(self) -> int:
        """Bytes on the device at the worst moment."""
        return self.peak.bytes

    @property
    def host_bytes(self) -> int:
        """Bytes in host memory."""
        return sum(self.host.values())


def memory_ledger(model: ModelConfig, plan: MemoryPlan, *, rows: int, length: int, kernels: Kernels = "gpu") -> Ledger:
    """Bytes of one update, moment by moment.

    Blocks are counted as they run without torch.compile, which keeps less. What the CUDA context, the workspaces of matrix
    products and the gaps of the allocator take is not in it.

    Args:
        model: the shape.
        plan: how the run keeps what it keeps.
        rows: of a micro-step.
        length: tokens in a row.
        kernels: whose allocations are counted.
    """
    resident, host = _resident(model, plan)
    tokens = rows * length
    width = int(WORKING_BYTES[plan.working])
    shape = TapeShape(model, tokens, width, kernels, functools.partial(_addition, plan))
    resident["batch and tables"] = 20 * tokens + 8 * model.max_seq_len * (_rotary_dim(model) // 2)
    step = _Step(shape, plan)
    moments = [*step.forward(), *step.backward(), *step.update()]
    if plan.offload_activations:
        host["saved activations"] = (model.num_layers - 1) * shape.stream
    return Ledger(tuple(Phase(name, _present({**resident, **parts})) for name, parts in moments), _present(host))


def _rotary_dim(model: ModelConfig) -> int:
    return model.attention.rotary_dim or model.head_dim


def _present(parts: Mapping[str, int]) -> dict[str, int]:
    return {name: size for name, size in parts.items() if size}


def _resident(model: ModelConfig, plan: MemoryPlan) -> tuple[dict[str, int], dict[str, int]]:
    """What lies on the device and on the host throughout a run."""
    block, outside = _matrices(model)
    count, width = block * model.num_layers + outside, WORKING_BYTES[plan.working]
    norms = 2 * model.d_model + (2 * model.head_dim if model.attention.qk_norm else 0)
    device: dict[str, int] = {"vectors (norms)": 16 * (norms * model.num_layers + model.d_model)}
    host: dict[str, int] = {}
    (host if plan.streams else device)["weights"] = int(block * model.num_layers * width)
    device["weights"] = device.get("weights", 0) + int(outside * width)
    states = host if plan.states_on == "host" else device
    states["master remainder" if plan.master == "split" else "master"] = int(plan.master_bytes * count)
    states["first moment"] = states["second moment"] = int(plan.moment_bytes * count / 2)
    (host if plan.gradients_on == "host" else device)["gradient sums"] = int(plan.gradient_bytes * count)
    slots = min(2, model.num_layers) * int(block * width + 4 * norms) if plan.streams else 0
    pieces = 3 * UPDATE_PIECE * (width + plan.master_bytes + plan.moment_bytes) if plan.states_on == "host" else 0
    device["stream buffers"] = slots + int(pieces)
    return device, host


def _matrices(model: ModelConfig) -> tuple[int, int]:
    """Values of the matrices of one block, and of embedding and head."""
    attention = model.attention
    block = 2 * model.d_model * model.head_dim * (attention.num_heads + attention.num_kv_heads)
    block += 3 * model.d_model * model.mlp.hidden_dim
    return block, model.vocab_size * model.d_model * (1 if model.tie_embeddings else 2)


def _addition(plan: MemoryPlan, count: int) -> int:
    """Bytes beside a matrix's gradient while it is added to its sum."""
    near = int(plan.gradient_bytes * count) if plan.gradients_on == "host" else 0
    return near + (_WIDENING + _ROUNDING) * min(count, UPDATE_PIECE) if plan.gradients == "bfloat16" else near


class _Step:
    """The moments of an update and what is there in each beside what is always there."""

    def __init__(self, shape: TapeShape, plan: MemoryPlan) -> None:
        self._shape, self._plan = shape, plan
        self._layers, self._stream = shape.model.num_layers, shape.stream
        self._block = BlockTape(shape, recompute=plan.recompute).measure()
        self._table = shape.model.vocab_size * shape.model.d_model
        self._tape = Tape()
        self._tape.take("x", self._stream)
        self._norm = NormTape(self._tape, shape, "norm", values=shape.model.d_model, rows=1)
        self._norm.forward("hidden")
        self._norm_forward = self._tape.peak
        if shape.width < 4:
            self._tape.free("x")
        self._kept = self._tape.now - self._stream
        """By the last norm."""

    def _saved(self, blocks: int) -> int:
        """What so many blocks keep."""
        return self._block.kept * (min(blocks, 1) if self._plan.offload_activations else blocks)

    def forward(self) -> Iterator[tuple[str, dict[str, int]]]:
        """The hidden states of the micro-step before are still there until this one has its own."""
        saved, block = self._saved(self._layers), self._block
        # The caller of the blocks holds what the first one is given, kept or not.
        is_extra = self._plan.offload_activations or (self._plan.recompute == "none" and self._shape.width < 4)
        first = self._stream if is_extra and self._layers > 1 else 0
        if self._plan.recompute == "full":
            in_block = {"saved activations": saved + first, "block at work": block.forward}
        else:
            in_block = {
                "saved activations": self._saved(self._layers - 1) + self._stream + first,
                "block at work": block.forward,
            }
        in_norm = {"saved activations": saved, "last norm": self._norm_forward}
        worst = max(in_block, in_norm, key=lambda parts: sum(parts.values()))
        yield "forward", {**worst, "hidden states": self._stream}
        logits, head = self._loss()
        yield (
            "loss",
            {
                "saved activations": saved + self._kept,
                "hidden states": 2 * self._stream,
                "logits of a chunk": logits,
                "head gradient": head,
            },
        )

    def _loss(self) -> tuple[int, int]:
        """Bytes of a chunk of logits with what is worked out of it, and of the head's gradient with what is added to it."""
        width, model, vocab = self._shape.width, self._shape.model, self._shape.model.vocab_size
        size = max(64, _CHUNK_VALUES[self._shape.kernels] // vocab)
        first, later = min(size, self._shape.tokens), max(0, min(size, self._shape.tokens - size))
        hidden = first * model.d_model * width
        if width == 4:
            # Old logits and log-probabilities are still there when a chunk's new ones come.
            return max(8 * first * vocab + hidden, (4 * first + 8 * later) * vocab), 4 * self._table
        turning = (4 + width) * first * vocab + (width + 8) * later * vocab
        first_one = (width + 8) * first * vocab
        working = (2 * width + 4) * first * vocab
        with_product = working + max(hidden, width * self._table)
        chunk = max(turning, first_one, with_product)
        added = width * self._table if chunk == with_product and hidden < width * self._table else 0
        return chunk - added, 4 * self._table + added

    def backward(self) -> Iterator[tuple[str, dict[str, int]]]:
        """From the head's gradient to the embedding's."""
        plan, shape, stream = self._plan, self._shape, self._stream
        tied = shape.width * self._table if shape.model.tie_embeddings else 0
        narrow = shape.width * self._table if shape.width < 4 else 0
        head = 4 * self._table
        adding = (narrow or head) + (0 if tied else shape.addition(self._table))
        kept = {"hidden states": stream}
        yield (
            "head gradient",
            kept
            | {
                "saved activations": self._saved(self._layers) + self._kept + stream,
                "head gradient": max(head + narrow, adding),
            },
        )
        self._tape.free("hidden")
        self._tape.take("g", stream)
        self._tape.rewind()
        self._norm.backward("g", of="x", out="dx")
        full = plan.recompute == "full"
        for name, below in (("last", self._layers - 1), ("first", 0)):
            inputs = below + 1 if full else below
            if plan.offload_activations:
                inputs = min(2, inputs)
            work = {"saved activations": self._block.kept * inputs, "block at work": self._block.backward}
            if name == "last":
                in_norm = {"saved activations": self._saved(self._layers), "last norm": self._tape.peak}
                work = max(work, in_norm, key=lambda parts: sum(parts.values()))
            if name == "last" or self._layers > 1:
                yield f"backward of the {name} block", kept | work | {"head gradient": tied}
        values = shape.tokens * shape.model.d_model
        summing = 4 * self._table + max(4 * values if shape.width < 4 else 0, narrow) + stream
        gradient = shape.width * self._table
        # A tied head's gradient waits for the embedding's, and both are there when they are added.
        adding = max(2 * gradient, shape.addition(self._table)) if tied else gradient + shape.addition(self._table)
        yield "embedding gradient", kept | {"embedding gradient": max(summing, adding), "head gradient": tied}

    def update(self) -> Iterator[tuple[str, dict[str, int]]]:
        """The norm of all gradients, then the update of a piece."""
        plan, kept = self._plan, {"hidden states": self._stream}
        largest = max(
            self._table, self._shape.model.d_model * max(self._shape.model.mlp.hidden_dim, self._heads_values)
        )
        near = int(plan.gradient_bytes * largest) if plan.gradients_on == "host" else 0
        yield "gradient norm", kept | {"gradient sums on their way": near}
        piece = min(UPDATE_PIECE, largest)
        yield "optimizer", kept | {"update scratch": int(piece * _scratch_bytes(plan))}

    @property
    def _heads_values(self) -> int:
        return self._shape.model.attention.num_heads * self._shape.model.head_dim


def _scratch_bytes(plan: MemoryPlan) -> float:
    """Bytes a value of a piece that is being updated, beside what is kept."""
    if plan.master == "separate":
        return 0.0
    gradient = 4.0 if plan.gradients == "bfloat16" or plan.gradients_on == "host" else 0.0
    wide = gradient + (0.0 if plan.master == "own" else 4.0) + (0.0 if plan.moments == "float32" else 8.0)
    rounding = _ROUNDING if plan.rounding == "stochastic" else _NEAREST
    narrowing = {"split": _NEAREST, "none": rounding}.get(plan.master, 0)
    return wide + max(narrowing, {"bfloat16": rounding, "int8": _CODING}.get(plan.moments, 0))


def checkpoint_bytes(model: ModelConfig, plan: MemoryPlan) -> int:
    """Bytes of `model.pt` and `optimizer.pt` on disk: working weights, masters, both moments, canonical per parameter.

    Masters and moments are written as float32; bfloat16 moments, and bfloat16 weights that are their own master, as they are.
    """
    block, outside = _matrices(model)
    matrices = block * model.num_layers + outside
    vectors = num_parameters(model) - matrices
    master = 2 if plan.master == "none" else 4
    moment = 2 if plan.moments == "bfloat16" else 4
    return matrices * (int(WORKING_BYTES[plan.working]) + master + 2 * moment) + vectors * (4 + 4 + 8)
