"""A checkpoint that takes no time, of either architecture, to be exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from havoc_core import checkpoint, config_files
from havoc_core.config import ModelConfig, TrainingConfig
from havoc_core.model import first_weights
from havoc_core.models import havoc
from havoc_core.tokenizer import Tokenizer
from havoc_inference.load import CheckpointContents, open_checkpoint


@pytest.fixture
def make(tmp_path: Path, tokenizer: Tokenizer) -> Callable[..., CheckpointContents]:
    """Writes a checkpoint and opens it. Norms that are not one would show if they were not applied."""

    def write(
        *, dtype: torch.dtype = torch.float32, tokenizer: Tokenizer = tokenizer, name: str = "run", **changes: Any
    ) -> CheckpointContents:
        attention = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "rope_theta": 5e5}
        shape = {
            "size": "nano", "vocab_size": 640, "d_model": 64, "num_layers": 2, "max_seq_len": 96, "initializer_range": 0.15,
            **changes, "attention": {**attention, **changes.get("attention", {})}, "mlp": {"hidden_dim": 96, **changes.get("mlp", {})},
        }  # fmt: skip
        model = ModelConfig.model_validate(shape)
        weights = {
            key: values * torch.linspace(0.5, 1.5, len(values)) if values.dim() == 1 else values.to(dtype)
            for key, values in first_weights(havoc.build(model), seed=5).items()
        }
        settings = TrainingConfig.model_validate({"model": model, "data": {"max_sequence_length": 32}})
        folder = tmp_path / name / "checkpoints" / "checkpoint_step_7"
        with checkpoint.writing(folder) as inside:
            checkpoint.save_tensors(inside / "model.pt", weights)
            checkpoint.save_json(inside / "training_state.json", {"step": 7, "dummy_data": True, "scored_tokens": 1234})
            (inside / "config.json").write_text(config_files.to_json(settings), encoding="utf-8")
            tokenizer.save(inside / "tokenizer")
        return open_checkpoint(folder)

    return write
