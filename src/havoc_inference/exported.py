"""A Hugging Face folder of the Qwen3 or the Llama architecture, ours or another's, as a model or as a checkpoint.

What the folder asks for and HAVOC's model does not have is refused by its name: read as if it were not there, it would
give other numbers and say nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from havoc_core import checkpoint, config_files
from havoc_core.config import ModelConfig, TrainingConfig
from havoc_core.errors import ConfigError, DataError
from havoc_core.model import place_weights
from havoc_core.models import havoc
from havoc_core.tensor_file import TensorSource
from havoc_core.tokenizer import Tokenizer
from havoc_inference.export import safetensors_file
from havoc_inference.export.hugging_face import CLASSES
from havoc_inference.export.output_folder import read_record
from havoc_inference.export.safetensors_file import StoredTensor
from havoc_inference.load import LoadedModel

IMPORTED = "imported"
"""Key of training_state.json: the checkpoint is not a run's, and only its weights can be gone on with."""
_ROPE_REMEDY = "Only plain rotary positions are read here."
_MAX_NAMED = 3


def is_exported(folder: Path) -> bool:
    """Whether a folder is a model as Hugging Face's software writes it, and no checkpoint of ours."""
    if (folder / "manifest.json").exists() or not (folder / "config.json").is_file():
        return False
    try:
        return "architectures" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def load_exported(folder: Path, *, device: torch.device, dtype: torch.dtype | None = None) -> LoadedModel:
    """Read a Hugging Face folder.

    Args:
        folder: with config.json, tokenizer and safetensors.
        device: where the weights go.
        dtype: of the matrices; None: as they were saved, float32 where that was float16.

    Raises:
        DataError: it is damaged, or asks for something that this model does not have; names it.
    """
    config, tokenizer = read_config(folder), _tokenizer(folder)
    weights = FolderWeights(folder, config)
    _require_room(folder, tokenizer, config)
    model = havoc.build(config)
    place_weights(model, weights, dtype=dtype or weights.dtype, device=device)
    model.requires_grad_(False).eval()
    step, dummy_data = _origin(folder)
    return LoadedModel(model, tokenizer, config, step, dummy_data)


def import_folder(folder: Path, target: Path) -> ModelConfig:
    """Write a Hugging Face folder as a checkpoint, tokenizer included; one tensor is in memory at a time.

    Args:
        folder: with config.json, tokenizer and safetensors.
        target: the checkpoint; must not be there yet.

    Raises:
        ConfigError: `target` is there already.
        DataError: as `load_exported`.
        CheckpointError: it cannot be written.
    """
    if target.exists():
        raise ConfigError("--out", f"{target} is there already.", "Name another folder: --out RUN.")
    config, tokenizer = read_config(folder), _tokenizer(folder)
    weights = FolderWeights(folder, config)
    _require_room(folder, tokenizer, config)
    _, dummy_data = _origin(folder)
    defaults = TrainingConfig()
    length = min(defaults.data.max_sequence_length, config.max_seq_len)
    data = defaults.data.model_copy(update={"max_sequence_length": length})
    settings = defaults.model_copy(update={"model": config, "data": data})
    with checkpoint.writing(target) as inside:
        checkpoint.save_tensors(inside / "model.pt", weights.sources())
        checkpoint.save_tensors(inside / "optimizer.pt", {})
        state: dict[str, Any] = {"step": 0, "dummy_data": dummy_data, "best_loss": None, "resolved": {}, IMPORTED: True}
        checkpoint.save_json(inside / "training_state.json", state)
        (inside / "config.json").write_text(config_files.to_json(settings), encoding="utf-8")
        tokenizer.save(inside / "tokenizer")
    return config


class FolderWeights(Mapping[str, Tensor]):
    """The weights of a folder by name, each read when it is asked for.

    Args:
        folder: with safetensors.
        config: what they must fit.

    Raises:
        DataError: they do not; names what differs.
    """

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        stored = safetensors_file.read_folder(folder)
        model = havoc.build(config)
        wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        known = {*model.state_dict()}
        # Old versions of transformers saved the table of rotary frequencies, which is computed here.
        others = [name for name in stored if name not in known and not name.endswith("rotary_emb.inv_freq")]
        faults = [f"{name} is missing" for name in wanted if name not in stored]
        faults += [f"{name} is not part of the model" for name in others]
        faults += [
            f"{name} is {list(stored[name].shape)}, the config says {list(shape)}"
            for name, shape in wanted.items()
            if name in stored and stored[name].shape != shape
        ]
        if faults:
            more = f" and {len(faults) - _MAX_NAMED} more" if len(faults) > _MAX_NAMED else ""
            raise DataError(
                str(folder),
                f"its weights do not fit its config.json: {'; '.join(faults[:_MAX_NAMED])}{more}.",
                "Get the folder again, or name another one.",
            )
        self._stored: dict[str, StoredTensor] = {name: stored[name] for name in wanted}

    def __getitem__(self, name: str) -> Tensor:
        return self._stored[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrices; float32 where they were saved as float16, which holds the same values."""
        found = next(each.dtype for each in self._stored.values() if len(each.shape) > 1)
        return torch.float32 if found == torch.float16 else found

    def sources(self) -> dict[str, TensorSource]:
        """For `checkpoint.save_tensors`: matrices in `dtype`, norms in float32."""

        def source(stored: StoredTensor) -> TensorSource:
            def fill(out: Tensor) -> None:
                out.copy_(stored.read())

            return TensorSource(stored.shape, self.dtype if len(stored.shape) > 1 else torch.float32, fill)

        return {name: source(stored) for name, stored in self._stored.items()}


def read_config(folder: Path) -> ModelConfig:
    """config.json as our settings of a model.

    Raises:
        DataError: it cannot be read, or asks for something that this model does not have; names it.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(str(path), f"is no config of a model ({error}).", "Name a Hugging Face folder.") from None
    if not isinstance(values, dict):
        raise DataError(str(path), "is no config of a model (no mapping).", "Name a Hugging Face folder.")
    kind = values.get("model_type")
    if kind not in CLASSES or values.get("architectures", [CLASSES[kind]]) != [CLASSES[kind]]:
        raise DataError(
            str(path),
            f"is of architecture {values.get('architectures') or kind}.",
            f"Only {' and '.join(CLASSES.values())} can be read.",
        )
    refused = [f"{name} is {json.dumps(value)}" for name, value in _unrepresentable(values)]
    if refused:
        raise DataError(
            str(path),
            f"asks for what this model does not have: {'; '.join(refused)}.",
            f"{_ROPE_REMEDY} Use a model without these, or software that has them.",
        )
    try:
        return _model_config(values, kind)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the model"
        raise DataError(
            str(path), f"describes no model that can be built here ({where}: {first['msg']}).", "Name another folder."
        ) from None
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            str(path), f"lacks a width of the model, or has a wrong one ({error}).", "Get the folder again."
        ) from None


def _unrepresentable(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(setting, value) of everything that would change the numbers and cannot be followed."""
    for name in ("attention_bias", "mlp_bias", "use_sliding_window", "quantization_config"):
        if values.get(name):
            yield name, values[name]
    if values.get("hidden_act", "silu") != "silu":
        yield "hidden_act", values["hidden_act"]
    if any(kind != "full_attention" for kind in values.get("layer_types") or ()):
        yield "layer_types", sorted(set(values["layer_types"]))
    if values.get("partial_rotary_factor", 1.0) != 1.0:
        yield "partial_rotary_factor", values["partial_rotary_factor"]
    for name in ("rope_scaling", "rope_parameters"):
        rope = values.get(name) or {}
        if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default":
            yield name, rope
        elif rope.get("partial_rotary_factor", 1.0) != 1.0:
            yield f"{name}.partial_rotary_factor", rope["partial_rotary_factor"]


def _model_config(values: Mapping[str, Any], kind: str) -> ModelConfig:
    heads = values["num_attention_heads"]
    # transformers 5 writes the first, 4 the second where it writes either; they were checked to be plain.
    rope = {**(values.get("rope_scaling") or {}), **(values.get("rope_parameters") or {})}
    # What transformers takes where its file says nothing.
    head_dim = values.get("head_dim") or (128 if kind == "qwen3" else values["hidden_size"] // heads)
    return ModelConfig.model_validate(
        {
            "vocab_size": values["vocab_size"],
            "d_model": values["hidden_size"],
            "num_layers": values["num_hidden_layers"],
            "max_seq_len": values["max_position_embeddings"],
            "layer_norm_eps": values.get("rms_norm_eps", 1e-6),
            "initializer_range": values.get("initializer_range", 0.02),
            "attention": {
                "num_heads": heads,
                "head_dim": head_dim,
                "num_kv_heads": values.get("num_key_value_heads") or heads,
                "rope_theta": rope.get("rope_theta", values.get("rope_theta", 10000.0)),
                "qk_norm": kind == "qwen3",
            },
            "mlp": {"hidden_dim": values["intermediate_size"]},
            "tie_embeddings": values.get("tie_word_embeddings", False),
        }
    )


def _tokenizer(folder: Path) -> Tokenizer:
    # Beside a SentencePiece model, a tokenizer.json is its translation.
    model = folder / "tokenizer.model"
    return Tokenizer.load(model if model.is_file() else folder)


def _require_room(folder: Path, tokenizer: Tokenizer, config: ModelConfig) -> None:
    if tokenizer.vocab_size > config.vocab_size:
        raise DataError(
            str(folder),
            f"its tokenizer has {tokenizer.vocab_size:,} ids, its model only {config.vocab_size:,}.",
            "Get the folder again: they belong to two models.",
        )


def _origin(folder: Path) -> tuple[int, bool]:
    """Updates that made it, and whether it learnt from random words, where an export of ours says so."""
    record = read_record(folder) or {}
    step = record.get("step")
    return (step if isinstance(step, int) else 0), bool(record.get("dummy_data", False))
