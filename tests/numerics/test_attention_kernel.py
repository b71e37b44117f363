"""The CPU attention kernel against softmax written out in float64: values and gradients, documents kept apart.

And the function of torch that it stands on, alone: torch does not document it and may change it (decision 0013).
"""

from __future__ import annotations

import ctypes
import math

import pytest
import torch

from havoc_core import cpu_library
from havoc_core.layers.attention_kernel import NEEDS, document_attention, is_supported, load
from havoc_core.layers.segments import Segments

# Not skipped where it could be built and was not: a torch without its matrix product is to be noticed here.
pytestmark = pytest.mark.skipif(not cpu_library.is_buildable(NEEDS), reason="no C++ compiler or no AVX512-BF16")

BRGEMM = """
#include <cstdint>
namespace c10 { struct BFloat16 { uint16_t x; }; }
namespace at::native::cpublas {
void brgemm(long, long, long, long, long, long, bool, const c10::BFloat16*, const c10::BFloat16*, float*, bool);
void brgemm(long, long, long, long, long, long, bool, const float*, const float*, float*, bool);
void brgemm_release(bool);
}
using namespace at::native::cpublas;
extern "C" void product(long m, long n, long k, long lda, long ldb, long ldc, int add, const void* a, const void* b, float* c,
                        int is_bf16) {
  if (is_bf16) brgemm(m, n, k, lda, ldb, ldc, add, (const c10::BFloat16*)a, (const c10::BFloat16*)b, c, true);
  else brgemm(m, n, k, lda, ldb, ldc, add, (const float*)a, (const float*)b, c, false);
  brgemm_release(is_bf16);
}
"""

LENGTHS = {
    64: [[64], [10, 54], [1] * 64, [63]],
    192: [[192], [100, 92], [64, 64, 64], [3, 5, 180]],
    640: [[640], [600, 39], [70] * 9, [1, 638]],
}


def problem(length, heads, kv_heads, width, dtype):
    generator = torch.Generator().manual_seed(length + heads)
    make = lambda *shape: torch.randn(*shape, generator=generator).to(dtype).requires_grad_()  # noqa: E731
    q, k, v = make(4, length, heads, width), make(4, length, kv_heads, width), make(4, length, kv_heads, width)
    upstream = torch.randn(4, length, heads, width, generator=generator).to(dtype)
    return q, k, v, Segments.of_lengths(LENGTHS[length], length), upstream


def plain(q, k, v, mask, upstream):
    q, k, v = (x.detach().double().requires_grad_() for x in (q, k, v))
    repeat = q.shape[2] // k.shape[2]
    keys, values = k.repeat_interleave(repeat, 2).transpose(1, 2), v.repeat_interleave(repeat, 2).transpose(1, 2)
    scores = (q.transpose(1, 2) @ keys.transpose(2, 3) / math.sqrt(q.shape[3])).masked_fill(~mask, -torch.inf)
    out = (scores.softmax(-1) @ values).transpose(1, 2)
    (out * upstream.double()).sum().backward()
    return out.detach(), (q.grad, k.grad, v.grad)


def error(found, wanted):
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


def test_where_there_is_a_compiler_it_is_built():
    assert load() is not None, "it does not compile, or this torch has no brgemm of this signature (decision 0013)"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("add", [False, True])
def test_torchs_undocumented_matrix_product_means_what_the_kernel_takes_it_to_mean(dtype, add, tmp_path):
    """C (+)= A B in float32; steps of rows; in bfloat16 B lies in pairs of rows, [k / 2, n, 2]."""
    source = tmp_path / "product.cpp"
    source.write_text(BRGEMM)
    library = cpu_library.load(source, needs=NEEDS, with_torch=True, cache=tmp_path)
    assert library is not None, "torch's at::native::cpublas::brgemm has gone or has another signature (decision 0013)"
    generator = torch.Generator().manual_seed(0)
    m, n, k = 64, 96, 32
    left = torch.randn(m, k + 32, generator=generator).to(dtype)  # wider than k: the step of rows counts
    right = torch.randn(k, n + 64, generator=generator).to(dtype)
    out = torch.randn(m, n + 32, generator=generator)
    before = out.clone()
    is_bf16 = dtype == torch.bfloat16
    packed = right.view(k // 2, 2, n + 64).transpose(1, 2).contiguous() if is_bf16 else right
    numbers = [ctypes.c_long(value) for value in (m, n, k, k + 32, n + 64, n + 32)]
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (left, packed, out)]
    library.product(*numbers, int(add), *pointers, int(is_bf16))
    wanted = left[:, :k].double() @ right[:, :n].double() + (before[:, :n] if add else 0)
    # Sums of 32 products in float32: rounded to bfloat16 anywhere, they would be off by 4e-3.
    assert error(out[:, :n], wanted) < 1e-6
    assert torch.equal(out[:, n:], before[:, n:])


@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(2, 1, 32), (4, 4, 64), (6, 2, 32), (2, 1, 128)])
@pytest.mark.parametrize("length", [64, 192, pytest.param(640, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_values_and_gradients_are_those_of_the_formula(heads, kv_heads, width, length, dtype, tolerance):
    q, k, v, segments, upstream = problem(length, heads, kv_heads, width, dtype)
    wanted, gradients = plain(q, k, v, segments.mask, upstream)
    out = document_attention(q, k, v, segments.starts)
    (out * upstream).sum().backward()
    assert out.dtype == dtype
    assert error(out.detach(), wanted) < tolerance
    for found, of in zip((q.grad, k.grad, v.grad), gradients, strict=True):
        assert error(found, of) < tolerance


def test_a_document_gives_the_same_bits_whatever_is_beside_it():
    q, k, v, _, _ = problem(192, 2, 1, 32, torch.float32)
    segments = Segments.of_lengths([[64, 70, 58]] * 4, 192)
    with torch.no_grad():
        one = document_attention(q, k, v, segments.starts)[:, 64:134].clone()
        for x in (q, k, v):
            x[:, :64] = 1e4
            x[:, 134:] = -7.0
        assert torch.equal(document_attention(q, k, v, segments.starts)[:, 64:134], one)


def test_heads_that_are_a_view_of_something_larger_are_read_right():
    q, k, v, segments, _ = problem(64, 2, 1, 32, torch.float32)
    with torch.no_grad():
        joined = torch.cat([q, k, v], 2)
        views = joined[:, :, :2], joined[:, :, 2:3], joined[:, :, 3:]
        assert torch.equal(document_attention(*views, segments.starts), document_attention(q, k, v, segments.starts))


@pytest.mark.parametrize(
    ("dtype", "length", "width", "fits"),
    [(torch.float32, 64, 32, True), (torch.bfloat16, 128, 64, True), (torch.float16, 64, 32, False), (torch.float32, 65, 32, False),
     (torch.float32, 64, 16, False)],
)  # fmt: skip
def test_what_it_cannot_take_is_left_to_torch(dtype, length, width, fits):
    weights, tokens = torch.zeros(2, 2, dtype=dtype), torch.zeros(1, length, dtype=torch.int64)
    assert is_supported(weights, tokens, width) is fits
