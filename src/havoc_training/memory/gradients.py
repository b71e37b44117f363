"""The sum of the gradients over the micro-steps of an update.

Every gradient is added as soon as autograd has produced it, and freed: beside the sums there is never more than what one
block's backward pass holds.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from havoc_core.distributed import World
from havoc_training.memory.arena import Arena
from havoc_training.memory.presets import UPDATE_PIECE, MemoryPlan
from havoc_training.memory.stochastic_rounding import round_stochastically, seed_of


@dataclass(frozen=True)
class SumSettings:
    """How gradients are summed."""

    dtype: torch.dtype
    """Of matrices' sums: float32, or bfloat16 rounded stochastically. Vectors' are float32."""
    seed: int
    """Of the run."""
    device: torch.device
    """Of the computation."""
    on_host: bool = False
    """Whether matrices' sums lie in host memory; each is brought over to be added to."""

    @classmethod
    def of(cls, plan: MemoryPlan, *, seed: int, device: torch.device) -> SumSettings:
        """As a memory plan has it."""
        dtype = torch.float32 if plan.gradients == "float32" else torch.bfloat16
        return cls(dtype, seed, device, plan.gradients_on == "host")


class GradientSums:
    """Sums by parameter name, in one arena for matrices and one for vectors.

    Args:
        shapes: name -> shape of each parameter.
        settings: format and place.
    """

    def __init__(self, shapes: Mapping[str, torch.Size], settings: SumSettings) -> None:
        self._settings = settings
        self._shapes = dict(shapes)
        matrices = {name: shape.numel() for name, shape in shapes.items() if len(shape) > 1}
        vectors = {name: shape.numel() for name, shape in shapes.items() if len(shape) <= 1}
        home = torch.device("cpu") if settings.on_host else settings.device
        registered = settings.on_host and settings.device.type == "cuda"
        self._matrices = Arena(matrices, dtype=settings.dtype, device=home, registered=registered)
        self._vectors = Arena(vectors, dtype=torch.float32, device=settings.device)
        self._step = 0
        self._added: dict[str, int] = {}

    def watch(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Take the gradient of each of these parameters from now on, whenever autograd has produced it."""
        for name, parameter in parameters:
            hook = functools.partial(self._take, name)
            parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def start(self, step: int) -> None:
        """Begin the sums of update number `step`, counted from 0."""
        self._step = step
        self._added = dict.fromkeys(self._shapes, 0)

    @torch.no_grad()
    def add(self, name: str, gradient: Tensor) -> None:
        """Add one gradient, of the parameter's shape."""
        times = self._added[name]
        self._added[name] = times + 1
        total = self[name]
        if total.device != gradient.device:  # the sums are on the host
            near = total.to(gradient.device, non_blocking=True)
            self._add(near, gradient, name, times)
            total.copy_(near, non_blocking=True)
        else:
            self._add(total, gradient, name, times)

    def __getitem__(self, name: str) -> Tensor:
        """[n] the sum of one parameter, flat."""
        return (self._matrices if name in self._matrices else self._vectors)[name]

    def shaped(self) -> dict[str, Tensor]:
        """The sums by name in the shapes of their parameters."""
        return {name: self[name].view(shape) for name, shape in self._shapes.items()}

    @torch.no_grad()
    def finish(self, world: World, *, scale: float = 1.0) -> Tensor:
        """Add up over all ranks, multiply by `scale`, and give the norm of all of them together.

        Returns:
            Euclidean norm, a float32 scalar on the device.
        """
        norms = []
        for name in self._shapes:
            assert self._added[name], f"{name} got no gradient: it does not take part in the loss"
            total = self[name]
            if world.size > 1:
                self._sum_over_ranks(name, world)
            if scale != 1.0:
                total.mul_(scale)
            near = total.to(self._settings.device, non_blocking=True)
            norms.append(torch.linalg.vector_norm(near, dtype=torch.float32))
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        return norm

    def _take(self, name: str, parameter: Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None, "the hook is called after a gradient came"
        parameter.grad = None
        self.add(name, gradient)

    def _add(self, total: Tensor, gradient: Tensor, name: str, times: int) -> None:
        shaped = total.view(self._shapes[name])
        if times == 0:
            shaped.copy_(gradient)
        elif total.dtype == torch.float32:
            shaped.add_(gradient)
        else:
            seed = seed_of(self._settings.seed, name, self._step, f"gradient {times}")
            flat = gradient.reshape(-1)
            # In pieces: what rounding holds beside the values is ten times their size.
            for start in range(0, len(total), UPDATE_PIECE):
                piece = total[start : start + UPDATE_PIECE]
                wide = piece.float().add_(flat[start : start + UPDATE_PIECE])
                piece.copy_(round_stochastically(wide, seed=seed, first=start))

    def _sum_over_ranks(self, name: str, world: World) -> None:
        total = self[name]
        wide = total.to(device=self._settings.device, dtype=torch.float32)
        world.sum(wide)
        if total.dtype == torch.float32:
            total.copy_(wide)
        else:
            seed = seed_of(self._settings.seed, name, self._step, "gradient over ranks")
            total.copy_(round_stochastically(wide, seed=seed))
