"""The memory presets, as the orthogonal pieces that they are made of. Imports no torch: the planner works with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from havoc_core.config import MemoryConfig, TrainingConfig
from havoc_core.errors import ConfigError

Recompute = Literal["none", "selective", "full"]
Working = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class MemoryPlan:
    """How a run keeps what it keeps. Matrices only: one-dimensional parameters are float32 on the device throughout."""

    preset: str
    """Name of the preset it comes from."""
    working: Working
    """Of the weights that are computed with."""
    master: Literal["own", "separate", "split", "none"]
    """own: float32 working weights are the master. separate: a float32 copy beside float16 weights, and for optimizers that
    need whole tensors. split: bfloat16 weight + 16-bit remainder. none: bfloat16 weights alone, rounded stochastically."""
    moments: Literal["float32", "bfloat16", "int8"]
    gradients: Literal["float32", "bfloat16"]
    """Of the sum over micro-steps."""
    states_on: Literal["device", "host"]
    """Remainders and moments."""
    weights_on: Literal["device", "host"]
    """host: the weights of the blocks are streamed, one block ahead of the computation; embedding, head and norms stay on
    the device."""
    gradients_on: Literal["device", "host"]
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    recompute: Recompute = "none"
    """Always full where weights are streamed."""
    offload_activations: bool = False
    """The inputs of recomputed blocks are kept on the host."""

    @property
    def streams(self) -> bool:
        """Whether block weights come from the host."""
        return self.weights_on == "host"

    @property
    def exact(self) -> bool:
        """Whether an update is textbook AdamW: float32 master and float32 moments."""
        return self.master != "none" and self.moments == "float32"

    @property
    def device_state_bytes(self) -> float:
        """Bytes a matrix parameter on the device outside streamed blocks: weight, remainder or master, moments, gradient."""
        return (
            WORKING_BYTES[self.working]
            + (self.master_bytes + self.moment_bytes if self.states_on == "device" else 0.0)
            + (self.gradient_bytes if self.gradients_on == "device" else 0.0)
        )

    @property
    def master_bytes(self) -> float:
        """Bytes a parameter of what makes the working weight a float32 master."""
        return {"own": 0.0, "separate": 4.0, "split": 2.0, "none": 0.0}[self.master]

    @property
    def moment_bytes(self) -> float:
        """Bytes a parameter of both moments; int8 has a float32 scale for each block of 256."""
        return {"float32": 8.0, "bfloat16": 4.0, "int8": 2.0 * (1.0 + 4.0 / INT8_BLOCK)}[self.moments]

    @property
    def gradient_bytes(self) -> float:
        """Bytes a parameter of the gradients' sum."""
        return 4.0 if self.gradients == "float32" else 2.0


WORKING_BYTES = {"bfloat16": 2.0, "float16": 2.0, "float32": 4.0}
INT8_BLOCK = 256
"""Values that share a scale."""
UPDATE_PIECE, UPDATE_PIECE_CPU = 4_194_304, 262_144
"""Values of one parameter that are updated or rounded at once: enough to fill a GPU; on a CPU few enough for its cache."""

_FP32_MASTER = MemoryPlan(
    preset="fp32_master",
    working="bfloat16",
    master="split",
    moments="float32",
    gradients="float32",
    states_on="device",
    weights_on="device",
    gradients_on="device",
)

AUTO_ORDER = ("fp32_master", "offload", "stream", "fp32_master_bf16m")
"""What `memory: auto` tries, in this order: textbook AdamW first, then an exact master with rounded moments."""

_PIECES: dict[str, dict[str, Any]] = {
    "fp32_master": {},
    "fp32_master_bf16m": {"moments": "bfloat16"},
    "offload": {"states_on": "host"},
    "stream": {"states_on": "host", "weights_on": "host", "gradients": "bfloat16"},
    "8bit": {"master": "none", "moments": "int8", "gradients": "bfloat16"},
    "bf16_sr": {"master": "none", "moments": "bfloat16", "gradients": "bfloat16"},
}
"""What a preset has otherwise than fp32_master."""

_MAX_NEAREST_BETA2 = 0.95
"""A bfloat16 second moment that is rounded to nearest stops following above this decay."""


def plan_memory(config: TrainingConfig, *, preset: str, working: Working) -> MemoryPlan:
    """The pieces of a preset under a config's `memory_options`.

    Args:
        config: the run; its recompute counts where it is not "auto" (then none, and full where weights are streamed).
        preset: a name other than auto.
        working: of the weights that are computed with: bfloat16, float16 or float32.

    Raises:
        ConfigError: the pieces do not go together.
    """
    pieces = dict(_PIECES[preset])
    options = config.memory_options
    for name in ("moments", "gradients", "gradients_on", "master"):
        if (value := getattr(options, name)) is not None:
            pieces[name] = value
    if working != "bfloat16":
        _refuse_for_other_formats(preset, pieces, options, working)
    whole_tensors = config.optimizer != "adamw" or working == "float16"
    if whole_tensors and (preset != "fp32_master" or len(pieces) > 0):
        why = "float16 weights need" if working == "float16" else f"the optimizer '{config.optimizer}' needs"
        raise ConfigError(
            "memory",
            f"'{preset}' and its options are made for AdamW on bfloat16 or float32 weights; {why} whole float32 masters.",
            "Use `memory: fp32_master` without memory_options.",
        )
    master = "own" if working == "float32" else "separate" if whole_tensors else pieces.get("master", "split")
    if working != "bfloat16":
        pieces["gradients"] = "float32"
    plan = replace(
        _FP32_MASTER,
        **(pieces | {"master": master}),
        preset=preset,
        working=working,
        rounding=options.rounding,
        recompute="none" if config.recompute == "auto" else config.recompute,
        offload_activations=options.offload_activations,
    )
    _refuse_lost_updates(plan, beta2=config.adam_beta2)
    return _with_what_streaming_needs(plan, config)


def _refuse_for_other_formats(preset: str, pieces: dict[str, Any], options: MemoryConfig, working: str) -> None:
    asked = options.master is not None or options.gradients == "bfloat16"
    if preset in {"bf16_sr", "8bit"} or asked or pieces.get("gradients_on") == "host":
        raise ConfigError(
            "memory",
            f"'{preset}' with these memory_options is made for bfloat16 weights; this run computes in {working}.",
            "Set `use_amp: true` and `amp_dtype: bfloat16`, or use `memory: fp32_master`.",
        )


def _refuse_lost_updates(plan: MemoryPlan, *, beta2: float) -> None:
    if plan.rounding == "stochastic":
        return
    if plan.master == "none":
        raise ConfigError(
            "memory_options.rounding",
            "bfloat16 weights without a master, rounded to nearest, stop learning at low rates: an update smaller than "
            "half of the last bit is lost, 83 % of the progress at a rate of 3e-5.",
            "Use `rounding: stochastic`, or `master: split`.",
        )
    if plan.moments == "int8" or (plan.moments == "bfloat16" and beta2 > _MAX_NEAREST_BETA2):
        raise ConfigError(
            "memory_options.rounding",
            f"{plan.moments} moments rounded to nearest stop following the gradients at adam_beta2 {beta2:g}.",
            f"Use `rounding: stochastic`, or bfloat16 moments with adam_beta2 up to {_MAX_NEAREST_BETA2:g}.",
        )


def _with_what_streaming_needs(plan: MemoryPlan, config: TrainingConfig) -> MemoryPlan:
    if plan.gradients_on == "host" and not plan.streams:
        raise ConfigError(
            "memory_options.gradients_on",
            f"'host' goes with streamed weights; `memory: {plan.preset}` keeps them on the device.",
            "Use `memory: stream`, or leave gradients_on out.",
        )
    if plan.streams:
        if config.recompute not in {"auto", "full"}:
            raise ConfigError(
                "recompute",
                f"'{config.recompute}' would keep the streamed weights of every block for the backward pass.",
                "Use `recompute: full` or auto with `memory: stream`.",
            )
        plan = replace(plan, recompute="full")
    if plan.offload_activations and plan.recompute != "full":
        raise ConfigError(
            "memory_options.offload_activations",
            f"moves the inputs of recomputed blocks, and with `recompute: {plan.recompute}` there are none.",
            "Add `recompute: full`.",
        )
    return plan
