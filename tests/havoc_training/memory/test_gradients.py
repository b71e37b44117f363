"""Sums of gradients over the micro-steps of an update."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from havoc_core.config import TrainingConfig
from havoc_core.distributed import World
from havoc_training.memory.gradients import GradientSums, SumSettings
from havoc_training.memory.presets import plan_memory
from havoc_training.memory.stochastic_rounding import round_stochastically, seed_of

CPU = torch.device("cpu")
SHAPES = {"matrix": torch.Size([7, 11]), "vector": torch.Size([5]), "other": torch.Size([3, 2])}


def sums_of(dtype=torch.float32, *, shapes=SHAPES, seed=1, on_host=False):
    return GradientSums(shapes, SumSettings(dtype, seed, CPU, on_host))


def draws(count, *, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [
        {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}
        for _ in range(count)
    ]


def add_all(sums, gradients, *, step=0):
    sums.start(step)
    for each in gradients:
        for name, gradient in each.items():
            sums.add(name, gradient)


@settings(deadline=None)  # the first example pays for torch's first use
@given(count=st.integers(1, 9), seed=st.integers(0, 1000))
def test_sums_over_micro_batches_are_those_of_float64(count, seed):
    gradients = draws(count, seed=seed)
    sums = sums_of()
    add_all(sums, gradients)
    norm = sums.finish(World())
    wanted = {name: sum(each[name].double() for each in gradients) for name in SHAPES}
    for name, total in sums.shaped().items():
        assert total.shape == SHAPES[name]
        # Each of count additions is off by half of the last bit of a number below count * 6.
        torch.testing.assert_close(total.double(), wanted[name], rtol=0, atol=count * count * 6 * 2.0**-24)
    expected = math.sqrt(sum(float(total.square().sum()) for total in wanted.values()))
    assert norm.dtype == torch.float32
    assert float(norm) == pytest.approx(expected, rel=1e-5)


def test_bfloat16_gradients_are_summed_in_float32():
    sums = sums_of()
    add_all(sums, [{name: torch.full(shape, 1.0, dtype=torch.bfloat16) for name, shape in SHAPES.items()}] * 300)
    assert all(torch.equal(total, torch.full_like(total, 300.0)) for total in sums.shaped().values())


def test_bfloat16_sums_are_right_on_average_and_vectors_are_exact():
    """300 times 1: past 256, where bfloat16 counts in twos, rounding to nearest would stay for ever."""
    shapes = {"matrix": torch.Size([100, 100]), "vector": torch.Size([8])}
    sums = sums_of(torch.bfloat16, shapes=shapes)
    sums.start(0)
    for _ in range(300):
        for name, shape in shapes.items():
            sums.add(name, torch.full(shape, 1.0, dtype=torch.bfloat16))
    assert sums["matrix"].dtype == torch.bfloat16
    assert sums["vector"].tolist() == [300.0] * 8
    # 44 roundings by 1 up or down, over 10,000 values: the mean's deviation is sqrt(44 / 10,000) = 0.066.
    assert float(sums["matrix"].float().mean()) == pytest.approx(300.0, abs=4 * 0.066)
    assert len(sums["matrix"].unique()) > 3, "they are rounded each for itself"


def test_the_first_gradient_of_an_update_is_kept_as_it_is():
    gradients = draws(1, dtype=torch.bfloat16)
    sums = sums_of(torch.bfloat16)
    add_all(sums, gradients)
    for name, total in sums.shaped().items():
        assert torch.equal(total.to(torch.bfloat16), gradients[0][name])


def test_rounding_depends_on_run_update_and_name_alone():
    def rounded(**other):
        step = other.pop("step", 0)
        sums = sums_of(torch.bfloat16, **other)
        add_all(sums, draws(3, dtype=torch.bfloat16), step=step)
        return sums["matrix"].clone()

    first = rounded()
    assert torch.equal(first, rounded())
    assert torch.equal(first, rounded(on_host=True))
    assert not torch.equal(first, rounded(seed=2))
    assert not torch.equal(first, rounded(step=1))


def test_a_large_sum_is_rounded_in_pieces_as_in_one_go():
    shapes = {"matrix": torch.Size([2049, 2050])}  # more than one piece of 4,194,304 values
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(shapes["matrix"], generator=generator).bfloat16() for _ in range(2))
    sums = sums_of(torch.bfloat16, shapes=shapes)
    add_all(sums, [{"matrix": first}, {"matrix": second}], step=4)
    seed = seed_of(1, "matrix", 4, "gradient 1")
    wanted = round_stochastically((first.float() + second.float()).view(-1), seed=seed)
    assert torch.equal(sums["matrix"], wanted)


def test_a_parameter_without_a_gradient_is_named():
    sums = sums_of()
    sums.start(0)
    for name in ("matrix", "vector"):
        sums.add(name, torch.ones(SHAPES[name]))
    with pytest.raises(AssertionError, match="other got no gradient: it does not take part in the loss"):
        sums.finish(World())


def test_nothing_of_an_update_that_was_given_up_is_left():
    poisoned = {name: torch.full(shape, math.nan) for name, shape in SHAPES.items()}
    for dtype in (torch.float32, torch.bfloat16):
        sums, fresh = sums_of(dtype), sums_of(dtype)
        add_all(sums, [poisoned, poisoned])
        add_all(sums, draws(2), step=1)
        add_all(fresh, draws(2), step=1)
        assert all(torch.equal(sums[name], fresh[name]) for name in SHAPES)


def test_one_that_was_given_up_does_not_stand_in_for_a_gradient_that_is_missing():
    sums = sums_of()
    add_all(sums, draws(1))
    sums.start(1)
    with pytest.raises(AssertionError, match="matrix got no gradient"):
        sums.finish(World())


def test_a_scale_is_taken_out_of_the_sums_and_of_the_norm():
    plain, scaled = sums_of(), sums_of()
    add_all(plain, draws(1))
    add_all(scaled, [{name: gradient * 1024 for name, gradient in draws(1)[0].items()}])
    norm = plain.finish(World())
    assert torch.equal(scaled.finish(World(), scale=1 / 1024), norm)  # a power of two: no rounding
    assert all(torch.equal(scaled[name], plain[name]) for name in SHAPES)


@pytest.mark.parametrize("poison", [math.inf, math.nan])
def test_the_norm_is_finite_where_all_gradients_are(poison):
    sums = sums_of()
    gradients = draws(1)
    add_all(sums, gradients)
    assert bool(torch.isfinite(sums.finish(World())))
    gradients[0]["vector"][2] = poison
    add_all(sums, gradients)
    assert not bool(torch.isfinite(sums.finish(World())))


def test_gradients_are_taken_as_they_come_and_freed():
    """The second one's hook fires before the backward pass reaches the first: its gradient is gone by then."""
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
    names = {"first": first.weight, "second": second.weight, "bias": second.bias}
    sums = sums_of(shapes={name: p.shape for name, p in names.items()})
    sums.watch(names.items())
    held = []
    first.weight.register_hook(lambda _: held.append([p.grad is None for p in names.values()]))
    plain = {}
    for step in range(2):
        sums.start(step)
        for seed in range(3):
            x = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
            loss = second(first(x)).square().sum()
            for name, gradient in zip(
                names, torch.autograd.grad(loss, list(names.values()), retain_graph=True), strict=True
            ):
                plain[name] = gradient + (plain[name] if seed else 0)
            loss.backward()
            assert all(p.grad is None for p in names.values())
    assert all(all(each) for each in held)
    assert all(torch.allclose(total, plain[name]) for name, total in sums.shaped().items())


def test_a_tied_parameter_is_counted_once_with_both_its_uses():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(6, 3), nn.Linear(3, 6, bias=False)
            self.head.weight = self.embed.weight

    model = Tied()
    shapes = {name: p.shape for name, p in model.named_parameters()}
    assert list(shapes) == ["embed.weight"]
    sums = sums_of(shapes=shapes)
    sums.watch(model.named_parameters())
    loss = model.head(model.embed(torch.tensor([1, 4]))).square().sum()
    wanted = torch.autograd.grad(loss, model.embed.weight, retain_graph=True)[0]
    sums.start(0)
    loss.backward()
    assert torch.allclose(sums.shaped()["embed.weight"], wanted)
    assert float(sums.finish(World())) == pytest.approx(float(wanted.norm()))


@pytest.mark.parametrize(
    ("preset", "options", "dtype", "on_host"),
    [
        ("fp32_master", {}, torch.float32, False),
        ("bf16_sr", {}, torch.bfloat16, False),
        ("stream", {"gradients_on": "host"}, torch.bfloat16, True),
    ],
)
def test_format_and_place_are_those_of_the_plan(preset, options, dtype, on_host):
    config = TrainingConfig.model_validate({"memory_options": options})
    plan = plan_memory(config, preset=preset, working="bfloat16")
    assert SumSettings.of(plan, seed=7, device=CPU) == SumSettings(dtype, 7, CPU, on_host)


RANK = """
import os, sys
import torch
import torch.distributed as dist
from havoc_core.distributed import World
from havoc_training.memory.gradients import GradientSums, SumSettings

world = World.start(torch.device("cpu"))
shapes = {"matrix": torch.Size([40, 50]), "vector": torch.Size([5])}
for dtype in (torch.float32, torch.bfloat16):
    sums = GradientSums(shapes, SumSettings(dtype, 1, torch.device("cpu")))
    sums.start(0)
    for name, shape in shapes.items():
        sums.add(name, torch.full(shape, 256.0 if world.rank == 0 else 1.0))
    norm = float(sums.finish(world))
    assert sums["vector"].tolist() == [257.0] * 5, sums["vector"]
    if dtype == torch.float32:
        assert sums["matrix"].tolist() == [257.0] * 2000
        assert abs(norm - 257.0 * 2005 ** 0.5) < 0.1, norm
    else:  # 256 or 258, each half of the time: to nearest it would be 258 for all
        assert set(sums["matrix"].tolist()) == {256.0, 258.0}
        assert abs(float(sums["matrix"].float().mean()) - 257.0) < 4 / 2000 ** 0.5
        everywhere = sums["matrix"].float().clone()
        dist.all_reduce(everywhere)
        assert torch.equal(everywhere, 2 * sums["matrix"].float()), "ranks rounded differently"
world.close()
"""


@pytest.mark.slow
def test_two_ranks_have_the_same_sum_rounded_alike():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen([sys.executable, "-c", RANK], env={**shared, "RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    said = [child.communicate(timeout=150)[1].decode() for child in children]
    assert [child.returncode for child in children] == [0, 0], said
