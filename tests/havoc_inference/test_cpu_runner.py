"""The compiled decoder: what the plain model gives, in any company, and int8 near it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core.config import ModelConfig
from havoc_core.model import first_weights, place_weights
from havoc_core.models import havoc
from havoc_inference.cpu_runner import CpuRunner, is_supported, quantise_rows
from havoc_inference.runner import Chunk, Runner, TorchRunner

NUM_PAGES = 40


def make(dtype: torch.dtype = torch.float32, *, attention: dict[str, object] | None = None, **shape: object):
    """A model with 521 ids and 128 tokens of context; wide weights, so that mistakes show."""
    heads = {"num_heads": 6, "num_kv_heads": 2, "head_dim": 32, **(attention or {})}
    config = ModelConfig.model_validate(
        {"vocab_size": 521, "d_model": 48, "num_layers": 3, "max_seq_len": 128, "initializer_range": 0.15,
         "mlp": {"hidden_dim": 112}, "attention": heads, **shape}
    )  # fmt: skip
    model = havoc.build(config)
    place_weights(model, first_weights(model, seed=3), dtype=dtype, device=torch.device("cpu"))
    model = model.requires_grad_(False).eval()
    if not is_supported(model, config):
        pytest.skip("no compiler here")
    return model, config


def draw(count: int, seed: int = 0) -> list[int]:
    return torch.randint(0, 521, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def through(runner: Runner, ids: list[int], sizes: Iterator[int], pages: list[int]) -> torch.Tensor:
    """Logits of every token of a text that is read in chunks of these sizes."""
    out, at = [], 0
    while at < len(ids):
        size = next(sizes)
        part = ids[at : at + size]
        out.append(runner.logits([Chunk(part, at, pages, range(len(part)))]))
        at += size
    return torch.cat(out)


def forever(*sizes: int) -> Iterator[int]:
    while True:
        yield from sizes


SHAPES = {
    "qwen3": {},
    "llama": {"attention": {"qk_norm": False}},
    "tied": {"tie_embeddings": True},
    "one head each": {"attention": {"num_heads": 2}},
    "half rotated": {"attention": {"rotary_dim": 16}},
    "geglu": {"mlp": {"hidden_dim": 112, "activation": "geglu"}},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_the_model_in_float64(shape: str) -> None:
    model, config = make(**SHAPES[shape])
    ids = draw(100)
    got = CpuRunner(model, config, num_pages=NUM_PAGES).logits([Chunk(ids, 0, list(range(9)), range(100))])
    exact = model.double()
    wanted = exact.logits(exact(torch.tensor([ids])))[0]
    # float32 sums over at most 112 terms, in another order than torch's
    assert (got - wanted).abs().max() < 2e-5 * wanted.abs().max()


def test_bfloat16_weights_are_read_as_they_are_and_computed_with_in_float32() -> None:
    model, config = make(torch.bfloat16)
    ids = draw(100)
    runner = CpuRunner(model, config, num_pages=NUM_PAGES)
    got = runner.logits([Chunk(ids, 0, list(range(9)), range(100))])
    with torch.no_grad():
        rounded = model.logits(model(torch.tensor([ids])))[0].float()
        exact = model.float()
        wanted = exact.logits(exact(torch.tensor([ids])))[0]
    # Only keys and values are rounded on the way, to 8 bits; torch rounds every activation.
    assert (got - wanted).abs().mean() < 0.5 * (rounded - wanted).abs().mean()
    assert (got - wanted).abs().max() < 0.03 * wanted.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("int8", [False, True])
def test_chunks_pages_threads_and_company_change_no_bit(dtype: torch.dtype, int8: bool) -> None:
    model, config = make(dtype)
    ids, others = draw(100), [draw(n, seed=n) for n in (1, 2, 3, 17, 40)]
    pages = list(range(30, 37))
    alone = CpuRunner(model, config, num_pages=NUM_PAGES, int8=int8, threads=1)
    wanted = alone.logits([Chunk(ids, 0, pages, range(100))])
    for sizes in ((1,), (16, 5, 64), (99, 1)):
        other = CpuRunner(model, config, num_pages=NUM_PAGES, int8=int8, threads=2)
        assert torch.equal(through(other, ids, forever(*sizes), [7, 3, 11, 20, 5, 0, 9]), wanted)
    together = CpuRunner(model, config, num_pages=NUM_PAGES, int8=int8, threads=2)
    places = iter(range(NUM_PAGES))
    company = [Chunk(one, 0, [next(places) for _ in range(3)], [len(one) - 1]) for one in others]
    assert torch.equal(together.logits([*company, Chunk(ids, 0, pages, range(100))])[5:], wanted)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_number_of_rows_gives_each_its_own_bits(data: st.DataObject) -> None:
    """Tiles of one to four rows of tokens and one to eight of weights all sum in the same order."""
    model, config = make(d_model=32, num_layers=1)
    texts = data.draw(st.lists(st.lists(st.integers(0, 520), min_size=1, max_size=9), min_size=1, max_size=8))
    runner = CpuRunner(model, config, num_pages=NUM_PAGES)
    together = runner.logits([Chunk(ids, 0, [at], [len(ids) - 1]) for at, ids in enumerate(texts)])
    for at, ids in enumerate(texts):
        assert torch.equal(together[at : at + 1], runner.logits([Chunk(ids, 0, [20], [len(ids) - 1])]))


def test_only_what_is_wanted_comes_back_in_order() -> None:
    model, config = make()
    runner = CpuRunner(model, config, num_pages=NUM_PAGES)
    first, second = draw(20), draw(9, seed=1)
    both = [Chunk(first, 0, [0, 1], [3, 19]), Chunk(second, 0, [2], [])]
    got = runner.logits(both)
    assert torch.equal(got, runner.logits([Chunk(first, 0, [5, 6], range(20))])[[3, 19]])


def test_torch_gives_the_same_to_rounding_and_in_blocks_to_the_bit() -> None:
    model, config = make()
    ids, pages = draw(100), list(range(7))
    compiled = CpuRunner(model, config, num_pages=NUM_PAGES).logits([Chunk(ids, 0, pages, range(100))])
    torch_runner = TorchRunner(model, config, num_pages=NUM_PAGES)
    wanted = torch_runner.logits([Chunk(ids, 0, pages, range(100))])
    assert (compiled - wanted).abs().max() < 2e-5 * wanted.abs().max()
    company = Chunk(draw(30, seed=2), 0, [20, 21], [29])
    first = torch_runner.logits([company, Chunk(ids[:64], 0, pages, range(64))])[1:]
    rest = torch_runner.logits([Chunk(ids[64:], 64, pages, range(36)), company])[:36]
    assert torch.equal(torch.cat([first, rest]), wanted)


def test_int8_stays_near_the_weights_it_was_made_of() -> None:
    model, config = make()
    ids = draw(100)
    chunk = Chunk(ids, 0, list(range(7)), range(100))
    exact = CpuRunner(model, config, num_pages=NUM_PAGES).logits([chunk]).log_softmax(-1)
    coarse = CpuRunner(model, config, num_pages=NUM_PAGES, int8=True).logits([chunk]).log_softmax(-1)
    divergence = (exact.exp() * (exact - coarse)).sum(-1).mean()
    assert 0.0 < divergence < 0.02  # nats; the entropy of these predictions is above 3


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=20, deadline=None)
def test_rows_are_rounded_to_the_nearest_of_255_levels(seed: int) -> None:
    values = torch.randn(5, 64, generator=torch.Generator().manual_seed(seed)) * torch.tensor(
        [[1e-3], [1], [1e3], [0], [1e-30]]
    )
    codes, scales = quantise_rows(values)
    assert codes.dtype == torch.int8
    assert (codes.float() * scales[:, None] - values).abs().le(0.5001 * scales[:, None]).all()
    assert codes[:3].abs().amax(1).tolist() == [127, 127, 127]


def test_a_model_on_another_device_of_another_dtype_or_of_odd_widths_is_left_to_torch() -> None:
    model, config = make()
    assert not is_supported(havoc.build(config), config)  # on the meta device
    assert not is_supported(model.half(), config)
    odd = config.model_copy(update={"d_model": 44})
    assert not is_supported(model.float(), odd)
