"""The compiled decoder on a CPU: `decoder_cpu.cpp`, built at first use (`havoc_core/cpu_library.py`).

A row of weights is read once for all texts that grow, which is what a step costs; nothing between is torch's.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from havoc_core import cpu_library
from havoc_core.config import ModelConfig
from havoc_core.layers.rope import rotary_table
from havoc_core.model import Decoder
from havoc_inference.runner import PAGE_SIZE, Chunk, Runner

_WEIGHTS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
_CACHE = {torch.float32: 0, torch.bfloat16: 1}
_LEVELS = 127
"""int8 from -127 to 127: symmetric, so that no weight changes its sign."""


class _Matrix(ctypes.Structure):
    _fields_ = [("values", ctypes.c_void_p), ("scales", ctypes.c_void_p)]


class _Layer(ctypes.Structure):
    _fields_ = (
        ("input_norm", ctypes.c_void_p), ("post_norm", ctypes.c_void_p),
        ("q_norm", ctypes.c_void_p), ("k_norm", ctypes.c_void_p),
        ("q", _Matrix), ("k", _Matrix), ("v", _Matrix), ("o", _Matrix),
        ("gate", _Matrix), ("up", _Matrix), ("down", _Matrix),
    )  # fmt: skip


class _Model(ctypes.Structure):
    _fields_ = (
        ("layers", ctypes.POINTER(_Layer)), ("embedding", ctypes.c_void_p), ("head", _Matrix),
        ("norm", ctypes.c_void_p), ("cos", ctypes.c_void_p), ("sin", ctypes.c_void_p),
        ("num_layers", ctypes.c_long), ("D", ctypes.c_long), ("H", ctypes.c_long), ("K", ctypes.c_long),
        ("E", ctypes.c_long), ("F", ctypes.c_long), ("V", ctypes.c_long), ("R", ctypes.c_long),
        ("eps", ctypes.c_float), ("weights", ctypes.c_int), ("cache", ctypes.c_int), ("gelu", ctypes.c_int),
    )  # fmt: skip


class _Step(ctypes.Structure):
    _fields_ = (
        [(name, ctypes.c_void_p) for name in ("tokens", "positions", "texts", "pages", "keys", "values", "wanted")]
        + [(name, ctypes.c_void_p) for name in ("logits", "hidden", "scratch")]
        + [(name, ctypes.c_long) for name in ("M", "max_pages", "num_pages", "page_size", "num_wanted", "max_length")]
        + [("threads", ctypes.c_int)]
    )


@functools.cache
def load() -> Any:
    """The compiled library, built if need be; None where it cannot be built. Says nothing: the caller does."""
    library = cpu_library.load(Path(__file__).with_name("decoder_cpu.cpp"), needs=None, contract=False)
    if library is None:
        return None
    library.vector_width.restype = ctypes.c_long
    library.scratch_floats.argtypes = [ctypes.POINTER(_Model), ctypes.c_long, ctypes.c_long, ctypes.c_long]
    library.scratch_floats.restype = ctypes.c_long
    library.forward.argtypes = [ctypes.POINTER(_Model), ctypes.POINTER(_Step)]
    library.forward.restype = None
    return library


def is_supported(model: Decoder, config: ModelConfig) -> bool:
    """Whether the compiled decoder takes a model: its device, its dtype, and widths of whole vectors."""
    if model.head.device.type != "cpu" or model.head.dtype not in _CACHE or (library := load()) is None:
        return False
    width = library.vector_width()
    return all(size % width == 0 for size in (config.d_model, config.head_dim, config.mlp.hidden_dim))


class CpuRunner(Runner):
    """Computes with the compiled decoder. A text's numbers never depend on its company, on chunks, or on shared pages.

    Args:
        model: on the CPU, float32 or bfloat16; its weights are used where they lie.
        config: its shape; `is_supported` has been asked.
        num_pages: of keys and values.
        int8: read the matrices as int8 with one scale for each row; half the bytes of bfloat16, and close to its answers.
        threads: None: as many as torch uses.
    """

    alignment = PAGE_SIZE
    grows_exactly = True

    def __init__(
        self, model: Decoder, config: ModelConfig, *, num_pages: int, int8: bool = False, threads: int | None = None
    ) -> None:
        self.num_pages = num_pages
        self._config = config
        self._threads = threads or torch.get_num_threads()
        self._library = load()
        dtype = model.head.dtype
        shape = (config.num_layers, num_pages, config.attention.num_kv_heads, PAGE_SIZE, config.head_dim)
        self._keys, self._values = (torch.empty(shape, dtype=dtype) for _ in range(2))
        self._alive: list[Tensor] = []
        self._model = self._describe(model, int8=int8)
        self._scratch = torch.empty(0)

    def logits(self, chunks: Sequence[Chunk]) -> Tensor:
        """[total of wanted, V] float32, in order."""
        rows = _Rows.of(chunks)
        out = torch.empty(len(rows.wanted), self._config.vocab_size)
        step = _Step()
        step.tokens, step.positions, step.texts = (
            array.ctypes.data for array in (rows.tokens, rows.positions, rows.texts)
        )
        step.pages, step.wanted = rows.pages.ctypes.data, rows.wanted.ctypes.data
        step.keys, step.values, step.logits = self._keys.data_ptr(), self._values.data_ptr(), out.data_ptr()
        step.M, step.num_wanted, step.max_length = len(rows.tokens), len(rows.wanted), int(rows.positions.max()) + 1
        step.max_pages, step.num_pages, step.page_size = rows.pages.shape[1], self.num_pages, PAGE_SIZE
        step.threads = self._threads
        step.scratch = self._scratch_for(len(rows.tokens))
        self._library.forward(ctypes.byref(self._model), ctypes.byref(step))
        return out

    def _scratch_for(self, num_tokens: int) -> int:
        # With room for the longest text: it would otherwise be made anew with every page that a text grows by.
        longest = self._config.max_seq_len
        needed = self._library.scratch_floats(ctypes.byref(self._model), num_tokens, longest, self._threads)
        if self._scratch.numel() < needed:
            self._scratch = torch.empty(needed)
        return self._scratch.data_ptr()

    def _describe(self, model: Decoder, *, int8: bool) -> _Model:
        config, weights = self._config, dict(model.named_parameters(remove_duplicate=False))
        attention = config.attention

        def matrix(name: str) -> _Matrix:
            values = weights[name].detach()
            if not int8:
                return _Matrix(self._keep(values), None)
            codes, scales = quantise_rows(values)
            return _Matrix(self._keep(codes), self._keep(scales))

        def vector(name: str) -> int | None:
            return self._keep(weights[name].detach().float()) if name in weights else None

        layers = (_Layer * config.num_layers)()
        for number, layer in enumerate(layers):
            inside = f"model.layers.{number}"
            layer.input_norm = vector(f"{inside}.input_layernorm.weight")
            layer.post_norm = vector(f"{inside}.post_attention_layernorm.weight")
            for part in "qk":
                setattr(layer, f"{part}_norm", vector(f"{inside}.self_attn.{part}_norm.weight"))
            for part in "qkvo":
                setattr(layer, part, matrix(f"{inside}.self_attn.{part}_proj.weight"))
            for part in ("gate", "up", "down"):
                setattr(layer, part, matrix(f"{inside}.mlp.{part}_proj.weight"))
        rotary_dim = attention.rotary_dim or config.head_dim
        cos, sin = rotary_table(config.max_seq_len, rotary_dim, attention.rope_theta)
        described = _Model(layers=layers, embedding=self._keep(weights["model.embed_tokens.weight"].detach()))
        described.head, described.norm = matrix("lm_head.weight"), vector("model.norm.weight")
        described.cos, described.sin = self._keep(cos), self._keep(sin)
        described.num_layers, described.D, described.F = config.num_layers, config.d_model, config.mlp.hidden_dim
        described.H, described.K, described.E = attention.num_heads, attention.num_kv_heads, config.head_dim
        described.V, described.R, described.eps = config.vocab_size, rotary_dim, config.layer_norm_eps
        described.weights = _WEIGHTS[torch.int8 if int8 else model.head.dtype]
        described.cache, described.gelu = _CACHE[model.head.dtype], int(config.mlp.activation == "geglu")
        return described

    def _keep(self, values: Tensor) -> int:
        """Where the values lie; they stay as long as the runner."""
        self._alive.append(values.contiguous())
        return self._alive[-1].data_ptr()


@dataclass(frozen=True)
class _Rows:
    """The tokens of all chunks, one after the other."""

    tokens: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int32]
    texts: npt.NDArray[np.int32]
    """Number of each token's chunk."""
    pages: npt.NDArray[np.int32]
    """[chunks, most pages]."""
    wanted: npt.NDArray[np.int32]

    @classmethod
    def of(cls, chunks: Sequence[Chunk]) -> _Rows:
        sizes = [len(chunk.ids) for chunk in chunks]
        firsts = [0, *itertools.accumulate(sizes)]
        pages = np.zeros((len(chunks), max(len(chunk.pages) for chunk in chunks)), dtype=np.int32)
        for row, chunk in enumerate(chunks):
            pages[row, : len(chunk.pages)] = chunk.pages
        places = [range(chunk.start, chunk.start + size) for chunk, size in zip(chunks, sizes, strict=True)]
        wanted = [first + at for first, chunk in zip(firsts, chunks, strict=False) for at in chunk.wanted]
        return cls(
            tokens=np.fromiter(itertools.chain.from_iterable(chunk.ids for chunk in chunks), np.int64, firsts[-1]),
            positions=np.fromiter(itertools.chain.from_iterable(places), np.int32, firsts[-1]),
            texts=np.repeat(np.arange(len(chunks), dtype=np.int32), sizes),
            pages=pages,
            wanted=np.asarray(wanted, dtype=np.int32),
        )


def quantise_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to int8 with the largest magnitude of each row as 127.

    Args:
        values: [out, in], any float dtype.

    Returns:
        [out, in] int8 and [out] float32: values are about codes * scales.
    """
    wide = values.float()
    scales = wide.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / _LEVELS
    return (wide / scales[:, None]).round_().to(torch.int8), scales
