"""Any optimizer of torch's kind on whole float32 masters; AdamW in other formats and places is `memory/flat_optimizer.py`.

Where the working weights are narrower, they are the masters rounded to nearest, ties away from zero, so that a signed
16-bit remainder can always restore the master.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from havoc_core.config import TrainingConfig
from havoc_core.errors import CheckpointError
from havoc_core.model import Decoder
from havoc_training.memory.gradients import GradientSums, SumSettings
from havoc_training.memory.stochastic_rounding import round_to_nearest
from havoc_training.parameter_groups import name_groups
from havoc_training.shelves import OPTIMIZERS


@dataclass(frozen=True)
class OptimizerSettings:
    """The shared knobs, from the page; a file on the shelf takes what it needs."""

    learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    epsilon: float

    @classmethod
    def of(cls, config: TrainingConfig) -> OptimizerSettings:
        """From the page of knobs."""
        return cls(
            config.learning_rate, config.weight_decay, (config.adam_beta1, config.adam_beta2), config.adam_epsilon
        )


@dataclass(frozen=True)
class ParameterGroup:
    """Masters that are treated alike."""

    kind: str
    """matrices (inside blocks), embeddings (and the head), or vectors (norms, biases)."""
    names: tuple[str, ...]
    masters: tuple[Tensor, ...]
    decayed: bool


class WholeOptimizer:
    """Float32 masters and the torch optimizers that update them.

    Args:
        model: its parameters are the working weights.
        masters: float32 starting values by name, None where the working weights are float32 themselves.
        config: names the optimizer and its settings.
    """

    def __init__(self, model: Decoder, masters: Mapping[str, Tensor] | None, config: TrainingConfig) -> None:
        self._working = dict(model.named_parameters())
        self.masters = {
            name: weight.detach()
            if masters is None or weight.dtype == torch.float32
            # A copy of its own: the caller may hold the values it handed in.
            else masters[name].to(device=weight.device, dtype=torch.float32, copy=True)
            for name, weight in self._working.items()
        }
        groups = parameter_groups(model, self.masters, decay_embeddings=config.decay_embeddings)
        module = OPTIMIZERS.module(config.optimizer)
        options = OPTIMIZERS.options(config.optimizer, config.optimizer_options)
        self.parts: list[torch.optim.Optimizer] = module.build(groups, OptimizerSettings.of(config), options)
        for part in self.parts:
            for group in part.param_groups:
                group["initial_lr"] = group["lr"]
        shapes = {name: weight.shape for name, weight in self._working.items()}
        self.gradients = GradientSums(shapes, SumSettings(torch.float32, config.seed, model.head.device))
        """The sums over micro-steps."""
        self.gradients.watch(model.named_parameters())
        self.publish()

    def param_groups(self) -> Iterable[dict[str, Any]]:
        """Groups of all parts; each has an `initial_lr` that the schedule multiplies."""
        for part in self.parts:
            yield from part.param_groups

    @property
    def leaves_out(self) -> bool:
        """An update is made or not: optimizers in general cannot be told on the device."""
        return False

    def begin(self) -> None:
        """Begin the sums of the next update."""
        self.gradients.start(0)

    def update(self, factor: Tensor, *, left_out: Tensor | None = None) -> None:
        """Update from the gradients' sums times `factor`.

        Raises:
            ValueError: `left_out` is given.
        """
        if left_out is not None:
            raise ValueError("this optimizer cannot leave an update out; see `leaves_out`")
        gradients = self.gradients.shaped()
        torch._foreach_mul_(list(gradients.values()), factor)
        self.step(gradients)

    def take_back(self, updates: int) -> None:
        """Nothing: an update that is left out is never asked for."""

    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """Update masters and working weights.

        Args:
            gradients: float32, by parameter name, clipped already.
        """
        for name, master in self.masters.items():
            master.grad = gradients[name]
        for part in self.parts:
            part.step()
        for master in self.masters.values():
            master.grad = None
        self.publish()

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the working weights."""
        for name, weight in self._working.items():
            master = self.masters[name]
            if weight.dtype == torch.bfloat16:
                weight.copy_(round_to_nearest(master))
            elif weight.dtype != torch.float32:
                weight.copy_(master)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Per parameter name: `master` and whatever the optimizer remembers of it; independent of grouping."""
        out: dict[str, dict[str, Tensor]] = {}
        by_identity = {id(master): name for name, master in self.masters.items()}
        for part in self.parts:
            for group in part.param_groups:
                for master in group["params"]:
                    name = by_identity[id(master)]
                    out[name] = {"master": master.detach(), **part.state.get(master, {})}
        return out

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Continue where `state_dict` left off.

        Raises:
            CheckpointError: the parameters are not the same, or another optimizer wrote it.
        """
        if set(state) != set(self.masters):
            odd = sorted(set(state) ^ set(self.masters))
            raise CheckpointError(
                "optimizer.pt", f"{odd[0]} is in one of model and file only.", "Resume with --fine-tune."
            )
        by_identity = {id(master): name for name, master in self.masters.items()}
        for part in self.parts:
            for group in part.param_groups:
                for master in group["params"]:
                    saved = dict(state[by_identity[id(master)]])
                    with torch.no_grad():
                        master.copy_(saved.pop("master"))
                    part.state[master] = {
                        # Float32, though a preset that rounds its moments may have written it.
                        key: value.to(
                            device=_home(key, master, group),
                            dtype=torch.float32 if value.is_floating_point() else None,
                            copy=True,
                        )
                        for key, value in saved.items()
                    }
        self.publish()


def _home(key: str, master: Tensor, group: Mapping[str, Any]) -> torch.device:
    """Where torch keeps a value of the state: the count of steps on the CPU, unless a fused kernel reads it."""
    return master.device if key != "step" or group.get("fused") else torch.device("cpu")


def parameter_groups(model: Decoder, masters: Mapping[str, Tensor], *, decay_embeddings: bool) -> list[ParameterGroup]:
    """Masters of matrices inside the blocks, of embedding and head, and of one-dimensional parameters."""
    return [
        ParameterGroup(group.kind, group.names, tuple(masters[name] for name in group.names), group.decayed)
        for group in name_groups(model, decay_embeddings=decay_embeddings)
    ]
