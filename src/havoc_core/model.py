"""What a decoder is: tokens -> hidden states, a head, its blocks.

The model returns hidden states and not logits: the loss owns the head, so that [B, T, V] is never held at once.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from havoc_core.layers.block import BlockRunner
from havoc_core.layers.kv_cache import KVCache
from havoc_core.layers.segments import Segments


class Decoder(nn.Module, ABC):
    """A decoder-only language model. A file in havoc_core/models/ gives one."""

    @abstractmethod
    def forward(self, tokens: Tensor, *, segments: Segments | None = None, cache: KVCache | None = None) -> Tensor:
        """Hidden states before the head.

        Args:
            tokens: [B, T] int64.
            segments: documents in the rows; None: every row is one text.
            cache: keys and values of what came before, extended by these tokens; None when training.

        Returns:
            [B, T, D] in the working dtype.
        """

    @property
    @abstractmethod
    def head(self) -> nn.Parameter:
        """[V, D], the weights that turn hidden states into logits."""

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The blocks in order; each can be compiled or sharded by itself."""

    @abstractmethod
    def run_blocks_with(self, runner: BlockRunner) -> None:
        """Send batches through the blocks with this runner from now on; generation with a cache goes in order."""

    @abstractmethod
    def init_std(self, name: str) -> float | None:
        """Standard deviation of a parameter's first values; None: ones."""

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., V] in the working dtype."""
        return hidden @ self.head.t()


class FirstWeights(Mapping[str, Tensor]):
    """Float32 starting values of every parameter, on the CPU, made when they are asked for.

    Each parameter draws from a generator of its own, seeded by hash(seed, name): the values do not depend on device,
    dtype, sharding, or on which other parameters exist. Nothing is kept: a 7B model's values never lie in memory at once.

    Args:
        model: for names, shapes and spreads.
        seed: of the run.
    """

    def __init__(self, model: Decoder, *, seed: int) -> None:
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self._stds = {name: model.init_std(name) for name in self._shapes}
        self._seed = seed

    def __getitem__(self, name: str) -> Tensor:
        shape, std = self._shapes[name], self._stds[name]
        if std is None:
            return torch.ones(shape)
        digest = hashlib.blake2b(f"{self._seed}/{name}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        return torch.empty(shape).normal_(0.0, std, generator=generator)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def first_weights(model: Decoder, *, seed: int) -> dict[str, Tensor]:
    """All starting values at once; see `FirstWeights`."""
    return dict(FirstWeights(model, seed=seed))


def place_weights(model: Decoder, weights: Mapping[str, Tensor], *, dtype: torch.dtype, device: torch.device) -> None:
    """Give a model that was built on the meta device its weights, in place.

    Matrices take `dtype`; norms and other one-dimensional parameters stay float32. Names and shapes must be the
    model's own; the caller has compared them.
    """
    kinds = {name: dtype if parameter.dim() > 1 else torch.float32 for name, parameter in model.named_parameters()}
    bind_weights(model, {name: weights[name].to(device=device, dtype=kind, copy=True) for name, kind in kinds.items()})


def bind_weights(model: Decoder, values: Mapping[str, Tensor]) -> None:
    """Make these tensors the parameters of a model, as they are; a tied pair stays tied."""
    tied: dict[int, nn.Parameter] = {}
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        owner = model.get_submodule(name.rpartition(".")[0])
        if id(parameter) not in tied:
            tied[id(parameter)] = nn.Parameter(values[name], requires_grad=parameter.requires_grad)
        setattr(owner, name.rpartition(".")[2], tied[id(parameter)])


def count_parameters(parameters: Iterable[Tensor]) -> int:
    """Number of values in all of them."""
    return sum(p.numel() for p in parameters)
