"""A few seconds of real work on the device, to say beforehand how fast a run will be.

B rows, T positions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch
from torch import Tensor, nn

from havoc_core import loss_kernel
from havoc_core.config import ModelConfig, TrainingConfig
from havoc_core.costs import hardware_flops_per_token, num_parameters
from havoc_core.device import memory_bytes
from havoc_core.layers import attention_kernel
from havoc_core.layers.attention import Sight
from havoc_core.layers.block import BlockRunner, run_in_order
from havoc_core.layers.fp8_linear import use_fp8
from havoc_core.layers.segments import Segments
from havoc_core.loss import cross_entropy_sum
from havoc_core.model import place_weights
from havoc_core.models import havoc
from havoc_training.memory.gradients import GradientSums, SumSettings
from havoc_training.memory.presets import WORKING_BYTES, MemoryPlan
from havoc_training.memory.recompute import FullRecompute, SelectiveRecompute
from havoc_training.planner.device_rates import (
    measure_link_rate,
    measure_matmul_rate,
    measure_update,
    num_updated_values,
    seconds_of,
)

_MOST_ROUNDS = 5
_SHORTEST_ROW = 64
_WRITE_BYTES_PER_S = 1.5e9
"""What a CPU fills fresh memory with, at the least."""
_SHARE_OF_MATMUL_RATE = 0.4
"""What a run reaches of the rate of matrix products, where nothing better is known."""


@dataclass(frozen=True)
class Probe:
    """A speed that was extrapolated from a few seconds of work: a prediction, not a measurement of the run."""

    tokens_per_s: float
    """Of the steady state: no validation, no checkpoint, no wait for data."""
    micro_step_s: float
    """Forward, loss, backward and the sum of the gradients, of the whole model and micro-batch."""
    update_s: float
    """Norm, clipping and update of all parameters."""
    how: str
    """What was timed and what was extrapolated from it, in words."""
    source: Literal["probe"] = "probe"


def probe_tokens_per_s(
    config: TrainingConfig,
    memory: MemoryPlan,
    *,
    micro_batch_size: int,
    device: torch.device,
    budget_s: float = 8.0,
) -> Probe:
    """Time real micro-steps of the model with 2 and with 3 blocks and a piece of an update; extrapolate to the whole.

    Rows hold one document each, which costs attention most. On a CPU blocks are never compiled here, since compiling takes
    longer than the probe; on a GPU they are, and the run finds the compiled code again.

    Args:
        config: model, row length, rows a step, compile, fp8.
        memory: formats, recomputation, places.
        micro_batch_size: B.
        device: that computes.
        budget_s: what it may take. Building the CPU's kernels, once a machine, and compiling on a GPU are not in it.
    """
    kernels = device.type == "cpu" and config.compile != "off"
    kernels = kernels and attention_kernel.load() is not None and loss_kernel.load() is not None
    ends = time.perf_counter() + budget_s
    working = getattr(torch, memory.working)
    rate = measure_matmul_rate(device, working, model=config.model, budget_s=min(0.4, 0.1 * budget_s))
    length = config.data.max_sequence_length
    sizes = _Sizes(config.model, memory, length, micro_batch_size)
    if not _can_be_run(sizes, device, rate, ends - time.perf_counter()):
        return _from_matmul_rate(config, sizes, rate)
    update_s = measure_update(memory, device) * num_parameters(config.model)
    timed = _time_blocks(_Bench(config, memory, device=device, kernels=kernels), sizes, ends)
    block_s, rest_s = timed.scaled_to(sizes)
    notes = [
        timed.words(sizes),
        f"the update on {num_updated_values(device):,} of {num_parameters(config.model):,} parameters",
    ]
    if memory.streams or memory.states_on == "host":
        block_s, update_s = _with_transfers(config.model, memory, device, block_s, update_s)
    if config.optimizer != "adamw":
        notes.append(f"AdamW in place of {config.optimizer}")
    if device.type == "cpu" and config.compile == "on":
        notes.append("blocks not compiled")
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    micro_step_s = block_s * config.model.num_layers + rest_s
    return _probe(config, micro_batch_size, micro_step_s, update_s, "; ".join(notes))


def _probe(config: TrainingConfig, micro_batch_size: int, micro_step_s: float, update_s: float, how: str) -> Probe:
    rows = config.rows_per_step or config.batch_size * config.gradient_accumulation_steps
    step_s = math.ceil(rows / micro_batch_size) * micro_step_s + update_s
    return Probe(rows * config.data.max_sequence_length / step_s, micro_step_s, update_s, how)


@dataclass(frozen=True)
class _Sizes:
    """A micro-batch of the whole model."""

    model: ModelConfig
    memory: MemoryPlan
    length: int
    rows: int

    @property
    def high(self) -> int:
        """The larger of the two numbers of blocks that are timed; the other is one less."""
        return min(3, self.model.num_layers)

    def flops(self, *, blocks: int, rows: int, length: int) -> float:
        """With so many blocks; 0 blocks: the head alone."""
        part = self.model.model_copy(update={"num_layers": blocks})
        return rows * length * hardware_flops_per_token(part, length, self.memory.recompute)

    def block_flops(self, *, rows: int, length: int) -> float:
        """Of one block."""
        one, none = (self.flops(blocks=blocks, rows=rows, length=length) for blocks in (1, 0))
        return one - none


def _can_be_run(sizes: _Sizes, device: torch.device, rate: float, budget_s: float) -> bool:
    """Whether 3 blocks fit the memory and their shortest row the budget."""
    values = num_parameters(sizes.model.model_copy(update={"num_layers": sizes.high}))
    needed = values * (2 * WORKING_BYTES[sizes.memory.working] + sizes.memory.gradient_bytes)
    if device.type == "cuda":
        return needed < 0.7 * torch.cuda.mem_get_info(device)[0]
    whole = memory_bytes(device)
    shortest = sizes.flops(blocks=sizes.high, rows=1, length=min(sizes.length, _SHORTEST_ROW))
    # Weights are written, then read by two micro-steps at least and by their gradients; short rows reach little of the rate.
    seconds = 3 * needed / _WRITE_BYTES_PER_S + 4 * shortest / (_SHARE_OF_MATMUL_RATE * rate)
    return (whole is None or needed < 0.4 * whole) and seconds < 0.6 * budget_s


def _from_matmul_rate(config: TrainingConfig, sizes: _Sizes, rate: float) -> Probe:
    flops = sizes.flops(blocks=sizes.model.num_layers, rows=sizes.rows, length=sizes.length)
    how = (
        f"from the rate of matrix products alone, {rate / 1e9:,.0f} GFLOP/s, of which {_SHARE_OF_MATMUL_RATE:.0%} were taken: "
        "three blocks of this model do not fit the probe"
    )
    return _probe(config, sizes.rows, flops / (_SHARE_OF_MATMUL_RATE * rate), 0.0, how)


class _RandomWeights(Mapping[str, Tensor]):
    """Numbers of the size of first weights, made when they are asked for: one short pattern, over and over."""

    def __init__(self, model: havoc.HavocModel, device: torch.device) -> None:
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        generator = torch.Generator(device).manual_seed(0)
        # Of prime length, so that no two rows of a matrix are equal.
        self._pattern = torch.randn(1_000_003, device=device, generator=generator).mul_(0.02)

    def __getitem__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        if len(shape) < 2:
            return torch.ones(shape, device=self._pattern.device)
        times = -(-shape.numel() // len(self._pattern))
        return self._pattern.repeat(times)[: shape.numel()].view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


class _Bench:
    """A model of up to 3 blocks that learns from random rows and is never updated."""

    def __init__(self, config: TrainingConfig, memory: MemoryPlan, *, device: torch.device, kernels: bool) -> None:
        self.device = device
        self._kernels = kernels
        shape = config.model.model_copy(update={"num_layers": min(3, config.model.num_layers)})
        self._model = havoc.build(shape)
        place_weights(
            self._model, _RandomWeights(self._model, device), dtype=getattr(torch, memory.working), device=device
        )
        if config.fp8 and device.type == "cuda":
            use_fp8(self._model.blocks, row_length=config.data.max_sequence_length)
        if kernels:
            self._model.use_cpu_kernel()
        compiled = device.type == "cuda" and config.compile != "off"
        if compiled and memory.recompute != "selective":
            for block in self._model.blocks:
                block.compile(dynamic=False)
        runners: dict[str, Callable[[], BlockRunner]] = {
            "none": lambda: run_in_order,
            "selective": lambda: SelectiveRecompute(compiled=compiled),
            "full": FullRecompute,
        }
        self._inner = runners[memory.recompute]()
        self._num_blocks = shape.num_layers
        self._model.run_blocks_with(self._run_blocks)
        self._model.train()
        parameters = dict(self._model.named_parameters())
        settings = SumSettings.of(memory, seed=0, device=device)
        self._sums = GradientSums({name: each.shape for name, each in parameters.items()}, settings)
        self._sums.watch(parameters.items())
        self._sums.start(0)

    def seconds(self, *, blocks: int, rows: int, length: int) -> float:
        """Of one micro-step through the first `blocks` blocks."""
        self._num_blocks = blocks
        generator = torch.Generator().manual_seed(rows)
        tokens = torch.randint(self._model.config.vocab_size, (rows, length + 1), generator=generator).to(self.device)
        inputs, labels = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        segments = Segments.of_lengths([[length]] * rows, length).to(self.device)

        def micro_step() -> None:
            hidden = self._model(inputs, segments=segments)
            loss = cross_entropy_sum(hidden, self._model.head, labels, kernel=self._kernels)
            (loss / (rows * length)).backward()  # type: ignore[no-untyped-call]

        return seconds_of(micro_step, self.device)

    def _run_blocks(
        self, blocks: Iterable[nn.Module], x: Tensor, rotary: tuple[Tensor, Tensor], sight: Sight
    ) -> Tensor:
        return self._inner(list(blocks)[: self._num_blocks], x, rotary, sight)


@dataclass(frozen=True)
class _Timed:
    """Seconds of one block and of everything else, of a micro-batch that may be smaller than the real one."""

    block_s: float
    rest_s: float
    rows: int
    length: int
    fixed: float
    """Share of the time that does not grow with the tokens: reading weights, summing gradients."""
    shared_by_flops: bool
    """Whether the two were too noisy to be told apart."""

    def scaled_to(self, sizes: _Sizes) -> tuple[float, float]:
        """The same of the real micro-batch: what grows, grows with the operations."""
        tokens = sizes.rows * sizes.length / (self.rows * self.length)
        flops = sizes.block_flops(rows=sizes.rows, length=sizes.length)
        flops /= sizes.block_flops(rows=self.rows, length=self.length)
        block, rest = (self.fixed + (1.0 - self.fixed) * ratio for ratio in (flops, tokens))
        return self.block_s * block, self.rest_s * rest

    def words(self, sizes: _Sizes) -> str:
        """What was timed."""
        told = ", told apart by operations" if self.shared_by_flops else ""
        of = f"micro-batches of {sizes.rows} x {sizes.length} tokens"
        if (self.rows, self.length) != (sizes.rows, sizes.length):
            of += f", timed with {self.rows} x {self.length} and scaled by operations"
        return f"{sizes.high - 1} and {sizes.high} of {sizes.model.num_layers} blocks{told}; {of}"


def _time_blocks(bench: _Bench, sizes: _Sizes, ends: float) -> _Timed:
    """Choose a micro-batch that the time left allows, then time it with both numbers of blocks, several times."""
    choose = _largest_that_fits if bench.device.type == "cuda" else _grown_as_far_as_time_allows
    rows, length, seconds, fixed = choose(bench, sizes, ends)
    if bench.device.type == "cuda":  # the code that was compiled meanwhile is the run's own
        ends = max(ends, time.perf_counter() + 2.0)
    pairs: list[tuple[float, float]] = []
    # The last round begins only if it will be over in time.
    while not pairs or (len(pairs) < _MOST_ROUNDS and ends - time.perf_counter() > 2.2 * seconds):
        low, high = (bench.seconds(blocks=b, rows=rows, length=length) for b in (sizes.high - 1, sizes.high))
        pairs.append((low, high))
    whole = median(high for _, high in pairs)
    block_s = median(high - low for low, high in pairs)
    share = sizes.block_flops(rows=rows, length=length) / sizes.flops(blocks=sizes.high, rows=rows, length=length)
    # Operations say about how much of the time a block has; a difference far from it is noise.
    noisy = not 0.5 * share < block_s / whole < min(2.0 * share, 1.0 / sizes.high)
    block_s = share * whole if noisy else block_s
    return _Timed(block_s, whole - sizes.high * block_s, rows, length, fixed, noisy)


def _largest_that_fits(bench: _Bench, sizes: _Sizes, ends: float) -> tuple[int, int, float, float]:
    """The real micro-batch or half of it or …: another shape would be compiled for the probe alone.

    Raises:
        torch.OutOfMemoryError: not even one row fits.
    """
    rows = sizes.rows
    while True:
        try:
            bench.seconds(blocks=sizes.high, rows=rows, length=sizes.length)  # allocates and compiles
            return rows, sizes.length, bench.seconds(blocks=sizes.high, rows=rows, length=sizes.length), 0.0
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            rows //= 2
            torch.cuda.empty_cache()


def _grown_as_far_as_time_allows(bench: _Bench, sizes: _Sizes, ends: float) -> tuple[int, int, float, float]:
    """(rows, length, seconds, share of them that did not grow), from one short row up by doubling."""
    rows, length = 1, min(sizes.length, _SHORTEST_ROW)
    bench.seconds(blocks=sizes.high, rows=rows, length=length)  # the first call allocates
    seconds, fixed = bench.seconds(blocks=sizes.high, rows=rows, length=length), 0.0
    while (rows, length) != (sizes.rows, sizes.length):
        larger = (1, min(2 * length, sizes.length)) if length < sizes.length else (min(2 * rows, sizes.rows), length)
        work, more = (sizes.flops(blocks=sizes.high, rows=r, length=n) for r, n in ((rows, length), larger))
        predicted = seconds * more / work
        # It is timed once to know it, and then at least once with each number of blocks.
        if 3.3 * predicted > ends - time.perf_counter():
            break
        rows, length = larger
        grown = bench.seconds(blocks=sizes.high, rows=rows, length=length)
        growing = max(0.0, grown - seconds) / (more - work) * more
        seconds, fixed = grown, min(0.9, max(0.0, 1.0 - growing / grown))
    return rows, length, seconds, fixed


def _with_transfers(
    model: ModelConfig, memory: MemoryPlan, device: torch.device, block_s: float, update_s: float
) -> tuple[float, float]:
    """Block and update where they wait for the link to the host: whichever of computing and copying takes longer."""
    rate = measure_link_rate(device)
    if rate is None:
        return block_s, update_s
    one, none = (num_parameters(model.model_copy(update={"num_layers": blocks})) for blocks in (1, 0))
    if memory.streams:  # the weights come for the forward pass and once more for the backward pass
        block_s = max(block_s, 2 * (one - none) * WORKING_BYTES[memory.working] / rate)
    kept = memory.master_bytes + memory.moment_bytes + (WORKING_BYTES[memory.working] if memory.streams else 0.0)
    return block_s, max(update_s, num_parameters(model) * kept / rate)
