"""The parts that `one_gpu.py` measures: what each row trains, and a model with its optimizer as `build.py` makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from havoc_core.config import TrainingConfig
from havoc_core.model import Decoder, first_weights
from havoc_core.models import havoc
from havoc_data.loading.loader import Batch
from havoc_training.memory.presets import plan_memory
from havoc_training.placement import choose_compilation, place
from havoc_training.updater import Updater

LLAMA_8B = {
    "vocab_size": 128256, "d_model": 4096, "num_layers": 32, "max_seq_len": 4096, "mlp": {"hidden_dim": 14336},
    "attention": {"num_heads": 32, "num_kv_heads": 8, "head_dim": 128, "qk_norm": False},
}  # fmt: skip
QWEN_1_5B = {
    "vocab_size": 151936, "d_model": 1536, "num_layers": 28, "max_seq_len": 1024, "mlp": {"hidden_dim": 8960},
    "attention": {"num_heads": 12, "num_kv_heads": 2, "head_dim": 128, "qk_norm": False}, "tie_embeddings": True,
}  # fmt: skip
HAVOC_7B = {"size": "havoc_7b"}
MODEL_100M = {"size": "100m"}
TINY = {
    "vocab_size": 512, "d_model": 64, "num_layers": 3, "max_seq_len": 128, "mlp": {"hidden_dim": 128},
    "attention": {"num_heads": 4, "num_kv_heads": 2, "head_dim": 16},
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A row about speed and memory."""

    model: Mapping[str, Any]
    length: int
    memory: str
    tries: tuple[tuple[str, int], ...]
    """(recompute, rows of a micro-step), the fastest first; the first that fits is measured."""
    options: Mapping[str, str] = field(default_factory=dict)
    """`memory_options`."""
    fp8: bool = False
    cap_gib: float | None = None
    steps: int = 8
    step_tokens: int = 32_768
    asked: float | None = None
    """Tokens a second at least."""


_NO_FULL = (("none", 2), ("none", 1), ("selective", 4), ("selective", 2), ("selective", 1))
CASES = {
    "8b-bf16": Case(LLAMA_8B, 4096, "fp32_master_bf16m", _NO_FULL, asked=11_500),
    "8b-fp8": Case(LLAMA_8B, 4096, "fp32_master_bf16m", _NO_FULL, fp8=True, asked=16_000),
    "7b-bf16": Case(HAVOC_7B, 4096, "fp32_master_bf16m", _NO_FULL, asked=13_000),
    "7b-fp8": Case(HAVOC_7B, 4096, "fp32_master_bf16m", _NO_FULL, fp8=True),
    "1.5b-1024": Case(QWEN_1_5B, 1024, "fp32_master", (("none", 32), ("none", 16), ("none", 8)), asked=59_000),
    "uncapped-7b": Case(HAVOC_7B, 2048, "fp32_master", (("none", 2), ("selective", 4), ("selective", 2), ("full", 8))),
    "cap-24": Case(HAVOC_7B, 2048, "stream", (("full", 8), ("full", 4), ("full", 2)), cap_gib=22.6, steps=4),
    "cap-40": Case(HAVOC_7B, 2048, "offload", (("full", 4), ("full", 2)), {"gradients": "bfloat16"}, cap_gib=38.7, steps=4),
    "cap-80": Case(
        HAVOC_7B, 2048, "fp32_master_bf16m", (("selective", 2), ("full", 8), ("full", 4)), {"gradients": "bfloat16"},
        cap_gib=78.3, steps=4,
    ),
}  # fmt: skip
CHECKS = ("fidelity", "link")


@dataclass(frozen=True)
class Bench:
    """How rows are measured."""

    device: torch.device
    small: bool
    whole_rows: bool

    @property
    def total_bytes(self) -> int | None:
        """Of the device; None for a CPU."""
        return torch.cuda.get_device_properties(self.device).total_memory if self.device.type == "cuda" else None

    def shrunk(self, case: Case) -> Case:
        """The case itself, or a tiny one like it."""
        if not self.small:
            return case
        tries = tuple((recompute, min(rows, 2)) for recompute, rows in case.tries[:1])
        return Case(TINY, 64, case.memory, tries, case.options, case.fp8, case.cap_gib, steps=3, step_tokens=256)


def config_of(case: Case, recompute: str, rows: int, device: torch.device) -> TrainingConfig:
    """Settings of a run of this case."""
    return TrainingConfig.model_validate(
        {
            "model": dict(case.model), "data": {"max_sequence_length": case.length}, "device": device.type,
            "batch_size": rows, "gradient_accumulation_steps": max(1, case.step_tokens // (rows * case.length)),
            "memory": case.memory, "memory_options": dict(case.options), "recompute": recompute, "fp8": case.fp8,
            "compile": "on" if device.type == "cuda" else "off", "learning_rate": 3e-4, "seed": 0,
        }
    )  # fmt: skip


class DeviceWeights(Mapping[str, Tensor]):
    """Starting values made on the device: `first_weights` takes minutes for eight billion of them."""

    def __init__(self, model: Decoder, device: torch.device) -> None:
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self._stds = {name: model.init_std(name) for name in self._shapes}
        self._device = device

    def __getitem__(self, name: str) -> Tensor:
        std, shape = self._stds[name], self._shapes[name]
        return torch.ones(shape) if std is None else torch.empty(shape, device=self._device).normal_(0.0, std)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def put_together(config: TrainingConfig, device: torch.device, *, exact_start: bool = False) -> tuple[Decoder, Updater]:
    """Model and optimizer as `build_trainer` makes them."""
    torch.manual_seed(config.seed)
    model = havoc.build(config.model)
    updater = place(
        model,
        first_weights(model, seed=config.seed) if exact_start else DeviceWeights(model, device),
        config=config,
        memory=plan_memory(config, preset=config.memory, working="bfloat16"),
        device=device,
        compilation=choose_compilation(config.compile, device=device, total_flops=0.0),
    )
    return model, updater


def batches(config: TrainingConfig, *, seed: int, whole_rows: bool) -> list[Batch]:
    """The micro-batches of a step. Three tokens in four follow from the one before, so that there is something to learn."""
    rows, length, vocab = config.batch_size, config.data.max_sequence_length, config.model.vocab_size
    generator = np.random.default_rng(seed)
    follower = np.random.default_rng(0).permutation(vocab)
    out = []
    for _ in range(config.gradient_accumulation_steps):
        tokens = generator.integers(vocab, size=(rows, length + 1))
        known = generator.random((rows, length + 1)) < 0.75
        for at in range(1, length + 1):
            tokens[:, at] = np.where(known[:, at], follower[tokens[:, at - 1]], tokens[:, at])
        lengths = tuple((length,) if whole_rows else document_lengths(length, generator) for _ in range(rows))
        out.append(Batch(tokens[:, :-1].astype(np.int64), tokens[:, 1:].astype(np.int64), lengths))
    return out


def document_lengths(length: int, generator: np.random.Generator) -> tuple[int, ...]:
    """Lengths that fill a row: log-uniform from 32 tokens to the whole row."""
    out: list[int] = []
    while (left := length - sum(out)) > 0:
        out.append(min(left, int(32 * (length / 32) ** generator.random())))
    return tuple(out)
