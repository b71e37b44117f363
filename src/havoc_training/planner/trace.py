"""The memory of a step as torch itself allocates it: a micro-step with tensors that have shapes and no contents.

Everything is fake (`FakeTensorMode`), so a 7B model is traced on a laptop. Fake tensors on the meta device stand for the
accelerator, fake tensors on the CPU for the host: the code of a run tells the two apart by the same test as in a run. Two
and three blocks are traced and every moment of the step is extrapolated by itself, linearly in the number of blocks.
"""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from havoc_core.config import ModelConfig
from havoc_core.distributed import World
from havoc_core.layers.attention import Sight
from havoc_core.layers.block import BlockRunner, run_in_order
from havoc_core.loss import cross_entropy_sum
from havoc_core.model import bind_weights
from havoc_core.models.havoc import build
from havoc_training.memory.adamw_update import Kept, Rule, Streams, parts_of, update
from havoc_training.memory.gradients import GradientSums, SumSettings
from havoc_training.memory.host_link import HostLink
from havoc_training.memory.presets import UPDATE_PIECE, MemoryPlan
from havoc_training.memory.recompute import FullRecompute, SelectiveRecompute
from havoc_training.planner.block_tape import Kernels

ACCELERATOR = torch.device("meta")
"""What stands for the GPU in a trace."""
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_LAST, _MIDDLE, _FIRST = (f"backward of {which} block" for which in ("the last", "a middle", "the first"))
_MICRO_STEPS = 2
"""The second is like all that follow: it rounds when it adds to the sums, and begins with the first one's hidden states."""


@dataclass(frozen=True)
class TracedPeaks:
    """What a step needs on the device, moment by moment."""

    compute: Mapping[str, int]
    """Moment -> most bytes of activations, gradients and temporaries during it."""
    registered: Mapping[str, int]
    """Bytes that lie on the device from the start to the end of a run, by what they are."""
    host: Mapping[str, int]
    """Bytes in arenas on the host, by what they are."""

    @property
    def phases(self) -> Mapping[str, int]:
        """Moment -> bytes on the device in all."""
        throughout = sum(self.registered.values())
        return {name: throughout + size for name, size in self.compute.items()}

    @property
    def peak_bytes(self) -> int:
        """Bytes on the device at the worst moment."""
        return max(self.phases.values())


class PeakLog(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live tensors on one device and remembers the most of every moment.

    Args:
        device: whose tensors count.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self._sizes: dict[int, int] = {}
        self.now = 0
        """Bytes alive."""
        self._moment = ""
        self.peaks: dict[str, int] = {}

    def leave_out(self, tensors: Iterator[Tensor]) -> None:
        """Never count these: they are counted elsewhere."""
        for tensor in tensors:
            self._sizes[tensor.untyped_storage()._cdata] = 0

    def begin(self, moment: str) -> None:
        """What happens from now on belongs to this moment, until another begins."""
        self._moment = moment
        self.peaks[moment] = max(self.peaks.get(moment, 0), self.now)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it leaves behind."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device == self._device:
                self._count(tensor.untyped_storage())
        self.peaks[self._moment] = max(self.peaks.get(self._moment, 0), self.now)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += self._sizes[key]
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


class GpuKernels(TorchFunctionMode):
    """Puts what a GPU's fused kernels allocate in the place of what the CPU composes of many operations."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function, norms and dropout by their GPU kernels."""
        given = kwargs or {}
        if func is F.rms_norm:
            return _FusedNorm.apply(args[0], given["weight"])  # type: ignore[no-untyped-call]
        if func is F.dropout and given["p"] > 0.0:
            return torch.native_dropout(args[0], given["p"], True)[0]
        return func(*args, **given)


class _FusedNorm(torch.autograd.Function):
    """Tensors of `aten::_fused_rms_norm`: the input and one number a row are kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        out, scale = torch.empty_like(x), torch.empty((*x.shape[:-1], 1), dtype=x.dtype, device=x.device)
        ctx.save_for_backward(x, weight, scale)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)


def trace_peaks(
    model: ModelConfig, plan: MemoryPlan, *, rows: int, length: int, kernels: Kernels = "gpu"
) -> TracedPeaks:
    """Peaks of a step, traced with up to three blocks and extrapolated to the model's depth.

    Args:
        model: the shape.
        plan: how the run keeps what it keeps.
        rows: of a micro-step.
        length: tokens in a row.
        kernels: whose allocations are counted.
    """
    shape = _Shape(plan, rows, length, kernels)
    if model.num_layers <= 3:
        compute = _compute(model, shape)
    else:
        two, three = (_compute(model.model_copy(update={"num_layers": depth}), shape) for depth in (2, 3))
        compute = {name: two[name] + (three[name] - two[name]) * (model.num_layers - 2) for name in two}
    compute.pop(_MIDDLE, None)
    compute["optimizer"] = compute.pop("after the micro-steps") + _update_bytes(model, plan)
    registered, host = registered_bytes(model, plan)
    registered["batch"] = rows * length * (8 + 8 + 4)
    return TracedPeaks(compute, registered, host)


def memtracker_peak(model: ModelConfig, plan: MemoryPlan, *, rows: int, length: int, kernels: Kernels = "gpu") -> int:
    """The largest traced peak of computation, in bytes, as torch's own MemTracker sees it, at the model's full depth."""
    tracker = MemTracker()
    with FakeTensorMode(), warnings.catch_warnings():
        # It looks at gradients after they were added to their sums and freed, and at modules after they are gone.
        for message in ("Expected a tensor or a traceable", "Module is None"):
            warnings.filterwarnings("ignore", message, UserWarning)
        step = _FakeStep(model, _Shape(plan, rows, length, kernels))
        tracker.track_external(*step.resident())
        resident = tracker.get_tracker_snapshot()[ACCELERATOR]["Total"]
        for _ in range(_MICRO_STEPS):
            with tracker:
                # Its hooks on modules tie the graph of a block's first run into a circle.
                step.run(lambda _: gc.collect())
            tracker.reset_mod_stats()
    return tracker.get_tracker_snapshot("peak")[ACCELERATOR]["Total"] - resident


@dataclass(frozen=True)
class _Shape:
    plan: MemoryPlan
    rows: int
    length: int
    kernels: Kernels


def _compute(model: ModelConfig, shape: _Shape) -> dict[str, int]:
    log = PeakLog(ACCELERATOR)
    with FakeTensorMode():
        step = _FakeStep(model, shape)
        log.leave_out(step.resident())
        with log:
            for _ in range(_MICRO_STEPS):
                step.run(log.begin)
            step.finish(log.begin)
    return dict(log.peaks)


class _WithKernels(nn.Module):
    def __init__(self, block: nn.Module, kernels: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__()
        self.block = block
        self._kernels = kernels

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], sight: Sight) -> Tensor:
        with self._kernels():
            out: Tensor = self.block(x, rotary, sight)
        return out


class _FakeStep:
    """A model, its sums of gradients and a batch, all fake, and the micro-step of a run.

    Must be made and run under a FakeTensorMode.
    """

    def __init__(self, model: ModelConfig, shape: _Shape) -> None:
        self._kernels = GpuKernels if shape.kernels == "gpu" else nullcontext
        self._model = build(model).train()
        dtype = _DTYPES[shape.plan.working]
        bind_weights(
            self._model,
            {
                name: torch.empty(p.shape, dtype=dtype if p.dim() > 1 else torch.float32, device=ACCELERATOR)
                for name, p in self._model.named_parameters()
            },
        )
        self._parameters = dict(self._model.named_parameters())
        shapes = {name: parameter.shape for name, parameter in self._parameters.items()}
        self._sums = GradientSums(shapes, SumSettings.of(shape.plan, seed=0, device=ACCELERATOR))
        self._sums.watch(self._parameters.items())
        self._sums.start(0)
        size = (shape.rows, shape.length)
        self._tokens, self._labels = (torch.empty(size, dtype=torch.int64, device=ACCELERATOR) for _ in range(2))
        self._sight = Sight(starts=torch.empty(size, dtype=torch.int32, device=ACCELERATOR))
        self._recompute = _runner(shape.plan)
        self._model.run_blocks_with(self._run_blocks)
        self._hidden: Tensor | None = None
        self._begin: Callable[[str], object] = _ignore
        self._in_backward = False
        self._watch()

    def resident(self) -> Iterator[Tensor]:
        """What is registered: weights and sums of gradients."""
        for name, parameter in self._parameters.items():
            yield parameter
            yield self._sums[name]

    def run(self, begin: Callable[[str], object]) -> None:
        """One micro-step; `begin` hears of every moment."""
        self._begin, self._in_backward = begin, False
        begin("forward")
        with self._kernels():
            # As in a run, the hidden states stay until the next micro-step has its own.
            self._hidden = hidden = self._model(self._tokens)
        hidden.register_hook(self._marker(_LAST))
        begin("loss")
        loss = cross_entropy_sum(hidden, self._model.head, self._labels)
        begin("head gradient")
        self._in_backward = True
        (loss * 1.0).backward()  # type: ignore[no-untyped-call]
        begin("after the micro-steps")

    def finish(self, begin: Callable[[str], object]) -> None:
        """What comes between the last micro-step and the update."""
        begin("gradient norm")
        self._sums.finish(World(rank=0, size=1))

    def _run_blocks(
        self, blocks: Iterable[nn.Module], x: Tensor, rotary: tuple[Tensor, Tensor], sight: Sight
    ) -> Tensor:
        # The sight of the GPU's attention, which needs no mask; the model works one out for other kernels.
        sight = self._sight
        # A function mode does not reach into a backward pass, so every block brings its own.
        return self._recompute([_WithKernels(block, self._kernels) for block in blocks], x, rotary, sight)

    def _watch(self) -> None:
        """Marks go to the gradient of a block's result, or where the block is run again, to the start of that."""
        last = len(self._model.blocks) - 1
        for number, block in enumerate(self._model.blocks):
            marker = self._marker(_LAST if number == last else _FIRST if number == 0 else _MIDDLE)
            block.register_forward_pre_hook(lambda *_, marker=marker: marker(None) if self._in_backward else None)
            block.register_forward_hook(lambda _, __, out, marker=marker: _mark_gradient(out, marker))
        marker = self._marker("embedding gradient")
        self._model.model.embed_tokens.register_forward_hook(lambda _, __, out: _mark_gradient(out, marker))

    def _marker(self, moment: str) -> Callable[[Any], None]:
        def mark(_: Any) -> None:
            self._begin(moment)

        return mark


def _mark_gradient(out: Tensor, marker: Callable[[Any], None]) -> None:
    if out.requires_grad:
        out.register_hook(marker)  # type: ignore[no-untyped-call]


def _ignore(_: str) -> None:
    """For a listener who does not care."""


def _runner(plan: MemoryPlan) -> BlockRunner:
    if plan.recompute == "full":
        return FullRecompute(offload_to=HostLink(ACCELERATOR) if plan.offload_activations else None)
    return SelectiveRecompute(compiled=False) if plan.recompute == "selective" else run_in_order


def _update_bytes(model: ModelConfig, plan: MemoryPlan) -> int:
    """Most bytes that the update of one piece takes beside what is kept."""
    if plan.master == "separate":
        return 0
    # Not fake: tables that the codes need are made once and kept, and would stay fake.
    count = min(UPDATE_PIECE, max(p.numel() for p in build(model).parameters()))
    parts = parts_of(count, plan)
    kept = Kept(**{what: torch.empty(n, dtype=dtype, device=ACCELERATOR) for what, (n, dtype) in parts.items()})
    dtype = torch.float32 if plan.gradients == "float32" else torch.bfloat16
    total = torch.empty(count, dtype=dtype, device="cpu" if plan.gradients_on == "host" else ACCELERATOR)
    rule, streams = Rule(1, (0.9, 0.95), 1e-8, 1e-4, 0.1), Streams(0, "weight", 1, 0)
    log = PeakLog(ACCELERATOR)
    log.leave_out(iter((*kept.tensors(), total)))
    with log:
        log.begin("update")
        gradient = total.to(device=ACCELERATOR, dtype=torch.float32).mul_(1.0)
        update(kept, gradient, rule=rule, streams=streams, rounding=plan.rounding)
    return log.peaks["update"]


def registered_bytes(model: ModelConfig, plan: MemoryPlan) -> tuple[dict[str, int], dict[str, int]]:
    """What lies on the device and on the host throughout a run, from the parameters' shapes alone."""
    built = build(model)
    inside = {id(p) for p in built.blocks.parameters()}
    on: dict[str, dict[str, int]] = {"device": {}, "host": {}}

    def put(place: str, what: str, size: float) -> None:
        on[place][what] = on[place].get(what, 0) + int(size)

    moment, master = (
        {"float32": 4, "bfloat16": 2, "int8": 1}[plan.moments],
        {"split": 2, "separate": 4}.get(plan.master, 0),
    )
    for p in built.parameters():
        count = p.numel()
        if p.dim() < 2:
            put("device", "vectors", count * (4 + 4 + 4 + 4))
            continue
        put(plan.weights_on if id(p) in inside else "device", "weights", count * _DTYPES[plan.working].itemsize)
        put(plan.states_on, "master", count * master)
        scales = -(-count // 256) * 4 if plan.moments == "int8" else 0
        put(plan.states_on, "first moment", count * moment + scales)
        put(plan.states_on, "second moment", count * moment + scales)
        put(plan.gradients_on, "gradient sums", count * (4 if plan.gradients == "float32" else 2))
    for block in built.blocks[:2] if plan.streams else []:
        for p in block.parameters():
            put("device", "slots", p.numel() * (_DTYPES[plan.working].itemsize if p.dim() > 1 else 4))
    if plan.states_on == "host":
        for n, dtype in parts_of(UPDATE_PIECE, plan).values():
            put("device", "pieces on their way", 3 * n * dtype.itemsize)
    return on["device"], on["host"]
