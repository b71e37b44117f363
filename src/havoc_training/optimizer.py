"""From gradients to weights: float32 masters, parameter groups, clipping, and the rounding back.

The optimizer works on float32 masters. Where the working weights are narrower, they are the masters rounded to nearest,
ties away from zero, so that a signed 16-bit remainder can always restore the master.
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


class Optimizer:
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
        self.publish()

    def param_groups(self) -> Iterable[dict[str, Any]]:
        """Groups of all parts; each has an `initial_lr` that the schedule multiplies."""
        for part in self.parts:
            yield from part.param_groups

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
                weight.copy_(round_to_bfloat16(master))
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
                        key: value.to(_home(key, master, group), copy=True) for key, value in saved.items()
                    }
        self.publish()


def _home(key: str, master: Tensor, group: Mapping[str, Any]) -> torch.device:
    """Where torch keeps a value of the state: the count of steps on the CPU, unless a fused kernel reads it."""
    return master.device if key != "step" or group.get("fused") else torch.device("cpu")


def parameter_groups(model: Decoder, masters: Mapping[str, Tensor], *, decay_embeddings: bool) -> list[ParameterGroup]:
    """Matrices inside the blocks, embedding and head, and one-dimensional parameters, which never decay."""
    inside = {id(parameter) for parameter in model.blocks.parameters()}
    kinds: dict[str, list[str]] = {"matrices": [], "embeddings": [], "vectors": []}
    for name, parameter in model.named_parameters():
        kind = "vectors" if parameter.dim() < 2 else "matrices" if id(parameter) in inside else "embeddings"
        kinds[kind].append(name)
    decayed = {"matrices": True, "embeddings": decay_embeddings, "vectors": False}
    return [
        ParameterGroup(kind, tuple(names), tuple(masters[name] for name in names), decayed[kind])
        for kind, names in kinds.items()
        if names
    ]


def round_to_bfloat16(values: Tensor) -> Tensor:
    """Float32 -> bfloat16, to nearest, ties away from zero (torch's own conversion takes ties to even).

    Half of the last kept bit is added to the magnitude and the lower 16 bits are dropped. NaN and infinity pass as they are.
    """
    bits = values.view(torch.int32)
    rounded = ((bits + 0x8000) >> 16).to(torch.int16).view(torch.bfloat16)
    return torch.where(values.isfinite(), rounded, values.to(torch.bfloat16))


def gradient_norm(gradients: Iterable[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together, float32 scalar."""
    norm: Tensor = torch.stack(torch._foreach_norm(list(gradients))).norm()
    return norm


def clip(gradients: Mapping[str, Tensor], norm: Tensor, max_norm: float) -> None:
    """Scale all gradients, in place, so that their norm is at most `max_norm`; 0: leave them."""
    if max_norm > 0:
        torch._foreach_mul_(list(gradients.values()), torch.clamp(max_norm / (norm + 1e-6), max=1.0))
