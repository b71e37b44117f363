"""State on the host comes to the device a piece ahead and goes back behind; on a CPU the same code is made to do it."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from havoc_core.config import TrainingConfig
from havoc_core.model import first_weights
from havoc_core.models import havoc
from havoc_training.memory.flat_optimizer import FlatOptimizer
from havoc_training.memory.presets import plan_memory

SMALL = {
    "size": "nano", "vocab_size": 640, "d_model": 32, "num_layers": 2, "max_seq_len": 32,
    "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 16}, "mlp": {"hidden_dim": 40},
}  # fmt: skip
OPTIONS = ({}, {"moments": "bfloat16"}, {"moments": "int8"}, {"master": "none"}, {"gradients_on": "host"})


def make(preset, options, device="cpu"):
    config = TrainingConfig.model_validate(
        {"model": SMALL, "data": {"max_sequence_length": 32}, "memory_options": options}
    )
    model = havoc.build(config.model)
    plan = plan_memory(config, preset=preset, working="bfloat16")
    weights = first_weights(model, seed=1)
    if device != "cpu":
        weights = {name: torch.empty(p.shape) for name, p in model.named_parameters()}
    return FlatOptimizer(model, weights, config, plan, torch.device(device))


def update(optimizer, seed):
    optimizer.begin()
    generator = torch.Generator().manual_seed(seed)
    for name, shape in optimizer._shapes.items():
        optimizer.gradients.add(name, torch.randn(shape, generator=generator).to(optimizer.gradients[name].dtype))
    optimizer.update(torch.tensor(0.5))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("preset", ["offload", "stream"])
def test_pieces_that_travel_give_the_bits_of_those_that_stay(preset, options):
    """Regression: where the device's number was not said, pieces were updated in uninitialised rooms."""
    if preset == "offload" and "gradients_on" in options:
        options = {}
    stay, travel = make(preset, options), make(preset, options)
    travel._piece = 512  # many pieces, the last of a matrix shorter
    travel._rooms = travel._make_rooms()
    for room in travel._rooms:
        for tensor in room.tensors():
            tensor.fill_(77)  # what a room held before must not matter
    for seed in range(3):
        update(stay, seed)
        update(travel, seed)
    for (name, one), (other, two) in zip(stay.state_dict().items(), travel.state_dict().items(), strict=True):
        assert name == other
        for key, value in one.items():
            first, second = (v if isinstance(v, torch.Tensor) else v.made() for v in (value, two[key]))
            assert torch.equal(first, second), (name, key)


@pytest.mark.parametrize("preset", ["fp32_master", "offload", "8bit", "bf16_sr"])
def test_no_update_mixes_tensors_of_two_devices(preset):
    """On a fake device, where such a mistake is an error as on a GPU."""
    with FakeTensorMode():
        optimizer = make(preset, {}, "meta")
        optimizer.begin()
        for name, shape in optimizer._shapes.items():
            dtype = optimizer.gradients[name].dtype
            for _ in range(2):
                optimizer.gradients.add(name, torch.empty(shape, dtype=dtype, device="meta"))
        optimizer.update(torch.empty((), device="meta"), left_out=torch.empty((), device="meta"))
        assert bool(optimizer._rooms) == (preset == "offload")
