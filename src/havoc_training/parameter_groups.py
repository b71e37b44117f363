"""Which parameters are treated alike: matrices inside the blocks, embedding and head, norms."""

from __future__ import annotations

from dataclasses import dataclass

from havoc_core.model import Decoder


@dataclass(frozen=True)
class NameGroup:
    """Names of parameters that are treated alike."""

    kind: str
    """matrices (inside blocks), embeddings (and the head), or vectors (norms, biases)."""
    names: tuple[str, ...]
    decayed: bool


def name_groups(model: Decoder, *, decay_embeddings: bool) -> list[NameGroup]:
    """Matrices inside the blocks, embedding and head, and one-dimensional parameters, which never decay."""
    inside = {id(parameter) for parameter in model.blocks.parameters()}
    kinds: dict[str, list[str]] = {"matrices": [], "embeddings": [], "vectors": []}
    for name, parameter in model.named_parameters():
        kind = "vectors" if parameter.dim() < 2 else "matrices" if id(parameter) in inside else "embeddings"
        kinds[kind].append(name)
    decayed = {"matrices": True, "embeddings": decay_embeddings, "vectors": False}
    return [NameGroup(kind, tuple(names), decayed[kind]) for kind, names in kinds.items() if names]
