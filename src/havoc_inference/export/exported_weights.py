"""The weights of a checkpoint as an export holds them: under Hugging Face's names, rounded to the export's dtype."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from havoc_core.models import havoc
from havoc_core.tensor_file import TensorSource
from havoc_inference.load import CheckpointContents

HEAD = "lm_head.weight"


class ExportedWeights(Mapping[str, Tensor]):
    """Name -> the values that an export holds. Nothing is kept: each is made when it is asked for.

    Matrices take the export's dtype, rounded to nearest where it is narrower; norms stay as they were saved, float32.
    A tied head is left out.

    Args:
        contents: the checkpoint.
        dtype: of the matrices.
    """

    def __init__(self, contents: CheckpointContents, dtype: torch.dtype) -> None:
        self.stored: Mapping[str, Tensor] = contents.weights
        """As the checkpoint holds them."""
        # Of a tied pair the model names the embedding alone; a file may hold both.
        self._names = tuple(name for name, _ in havoc.build(contents.config).named_parameters())
        self.dtype = dtype
        """Of the matrices, in the export."""

    def __getitem__(self, name: str) -> Tensor:
        return self.stored[name].to(self.dtype_of(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def dtype_of(self, name: str) -> torch.dtype:
        """The dtype that a tensor has in the export."""
        return self.dtype if self.stored[name].dim() > 1 else torch.float32

    def sources(self) -> dict[str, TensorSource]:
        """For writers that make one tensor at a time."""

        def source(name: str) -> TensorSource:
            stored = self.stored[name]

            def fill(out: Tensor) -> None:
                out.copy_(stored)

            return TensorSource(tuple(stored.shape), self.dtype_of(name), fill)

        return {name: source(name) for name in self}
