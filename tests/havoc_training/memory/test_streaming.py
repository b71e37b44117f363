"""Blocks whose weights come one ahead of the computation, in both directions, and never late."""

from __future__ import annotations

import pytest
import torch

from havoc_core.config import TrainingConfig
from havoc_core.distributed import World
from havoc_core.layers.segments import Segments
from havoc_core.model import first_weights
from havoc_core.models import havoc
from havoc_training.memory.flat_optimizer import FlatOptimizer
from havoc_training.memory.presets import plan_memory
from havoc_training.memory.recompute import FullRecompute
from havoc_training.memory.streaming import StreamedBlocks, make_slots

CPU = torch.device("cpu")
LENGTH = 16


def config_of(layers, dropout=0.0):
    model = {
        "size": "nano", "vocab_size": 512, "d_model": 16, "num_layers": layers, "max_seq_len": LENGTH, "dropout": dropout,
        "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 8}, "mlp": {"hidden_dim": 24},
    }  # fmt: skip
    return TrainingConfig.model_validate({"model": model, "data": {"max_sequence_length": LENGTH}})


class Streamed:
    """A model with streamed blocks, and what was seen whenever a block ran."""

    def __init__(self, layers, *, working="float32", dropout=0.0):
        config = config_of(layers, dropout)
        self.model = havoc.build(config.model)
        self.slots = make_slots(self.model, dtype=getattr(torch, working), device=CPU)
        plan = plan_memory(config, preset="stream", working=working)
        self.optimizer = FlatOptimizer(self.model, first_weights(self.model, seed=3), config, plan, CPU)
        self.runner = StreamedBlocks(self.model, self.optimizer, self.slots, recompute=FullRecompute())
        self.model.run_blocks_with(self.runner)
        self.ran, self.ahead, self.copies, self.training = [], [], 0, []
        self._held = [None] * len(self.slots)
        self.fail_at = None
        for number, slot in enumerate(self.slots):
            slot.register_forward_pre_hook(lambda block, _, number=number: self._look(number))

    def _look(self, number):
        """A block is about to run: are its weights there, and the next ones?"""
        held = [self.layer_in(slot) for slot in range(len(self.slots))]
        self.copies += sum(now != before for now, before in zip(held, self._held, strict=True))
        self._held = held
        self.ran.append(held[number])
        self.training.append(self.slots[number].training)
        others = [layer for slot, layer in enumerate(held) if slot != number]
        self.ahead.append(others[0] if others else None)
        if self.fail_at is not None and len(self.ran) == self.fail_at:
            raise torch.OutOfMemoryError("as if")

    def layer_in(self, slot):
        """The layer whose weights, as they are now, lie in a slot; told by their bits, since no two layers are alike."""
        values = dict(self.slots[slot].named_parameters())
        for layer, block in enumerate(self.model.blocks):
            if all(torch.equal(values[name], parameter) for name, parameter in block.named_parameters()):
                return layer, self.optimizer.version
        return None

    def layers(self, entries):
        return [None if entry is None else entry[0] for entry in entries]

    def forward(self, seed=0):
        inputs = torch.randint(0, 512, (2, LENGTH), generator=torch.Generator().manual_seed(seed))
        return self.model(inputs, segments=Segments.of_lengths(((LENGTH,), (7, 9)), LENGTH))

    def learn(self, seed=0, *, micro_batches=1):
        self.optimizer.begin()
        for number in range(micro_batches):
            self.model.logits(self.forward(seed + number)).float().square().mean().backward()

    def update(self):
        norm = self.optimizer.gradients.finish(World())
        self.optimizer.update(1.0 / (norm + 1.0))


@pytest.mark.parametrize("layers", [2, 3, 4, 5])
def test_the_next_block_is_there_before_this_one_runs_up_and_down(layers):
    streamed = Streamed(layers)
    streamed.learn()
    up, down = list(range(layers)), list(reversed(range(layers)))
    assert streamed.layers(streamed.ran) == up + down
    # At the top the one below is still there; at the bottom the one above, where the next pass will want it.
    assert streamed.layers(streamed.ahead) == [*up[1:], layers - 2, *down[1:], 1]


@pytest.mark.parametrize(("layers", "copies"), [(1, 1), (2, 2), (3, 3 + 1), (5, 5 + 3)])
def test_each_block_is_fetched_as_often_as_two_slots_make_necessary(layers, copies):
    """Up once each; down all but the two that are still there."""
    streamed = Streamed(layers)
    streamed.learn()
    assert streamed.copies == copies


@pytest.mark.parametrize(("layers", "copies"), [(1, 1), (2, 2), (5, 5 + 3 + 3 + 3)])
def test_a_second_micro_batch_begins_with_what_the_first_has_left_there(layers, copies):
    streamed = Streamed(layers)
    streamed.learn(micro_batches=2)
    assert streamed.copies == copies


def test_there_are_never_more_blocks_on_the_device_than_two():
    assert [len(Streamed(layers).slots) for layers in (1, 2, 5)] == [1, 2, 2]


def test_a_single_block_streams_through_a_single_slot():
    streamed = Streamed(1)
    streamed.learn()
    assert streamed.layers(streamed.ran) == [0, 0]
    streamed.update()
    streamed.learn()
    assert streamed.ran[2] == (0, streamed.optimizer.version)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("working", ["float32", "bfloat16"])
def test_no_block_ever_runs_with_weights_of_before_an_update(layers, working):
    streamed = Streamed(layers, working=working)
    for seed in range(3):
        streamed.ran.clear()
        streamed.learn(seed)
        assert streamed.ran == [
            (layer, streamed.optimizer.version) for layer in [*range(layers), *reversed(range(layers))]
        ]
        streamed.update()


def test_a_checkpoint_that_is_loaded_is_seen_too():
    streamed, other = Streamed(3), Streamed(3)
    streamed.learn()
    streamed.update()
    other.learn()
    state = {
        name: {key: value.clone() if isinstance(value, torch.Tensor) else made(value) for key, value in kept.items()}
        for name, kept in streamed.optimizer.state_dict().items()
    }
    other.optimizer.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(other.forward(), streamed.forward())


def made(source):
    out = torch.empty(source.shape, dtype=source.dtype)
    source.fill(out)
    return out


def test_values_and_gradients_are_those_of_blocks_that_stay():
    """In float32, bit for bit: every gradient arrives under the name of its own layer."""
    config = config_of(4)
    streamed = Streamed(4)
    resident = havoc.build(config.model)
    plan = plan_memory(config, preset="fp32_master", working="float32")
    optimizer = FlatOptimizer(resident, first_weights(resident, seed=3), config, plan, CPU)
    optimizer.begin()
    streamed.learn(micro_batches=3)
    for seed in range(3):
        inputs = torch.randint(0, 512, (2, LENGTH), generator=torch.Generator().manual_seed(seed))
        hidden = resident(inputs, segments=Segments.of_lengths(((LENGTH,), (7, 9)), LENGTH))
        (hidden @ resident.head.t()).square().mean().backward()
    ours, theirs = streamed.optimizer.gradients.shaped(), optimizer.gradients.shaped()
    assert list(ours) == list(theirs)
    for name, total in theirs.items():
        assert torch.equal(ours[name], total), name
        assert bool(total.any()), name
    norm = streamed.optimizer.gradients.finish(World())
    assert torch.equal(norm, optimizer.gradients.finish(World()))


def test_no_gradient_is_left_in_a_slot_or_on_a_weight():
    streamed = Streamed(3)
    streamed.learn()
    assert all(p.grad is None for slot in streamed.slots for p in slot.parameters())
    assert all(p.grad is None for p in streamed.model.parameters())


def test_a_validation_between_updates_goes_up_only_and_drops_nothing_out():
    streamed = Streamed(4, dropout=0.5)
    streamed.model.train()
    streamed.learn()
    assert set(streamed.training) == {True}
    streamed.ran.clear()
    streamed.training.clear()
    streamed.model.eval()
    with torch.no_grad():
        first, second = streamed.forward(), streamed.forward()
    assert torch.equal(first, second)
    assert streamed.layers(streamed.ran) == [0, 1, 2, 3] * 2
    assert set(streamed.training) == {False}


@pytest.mark.parametrize("fail_at", [1, 2, 4, 5, 6, 8])
def test_a_pass_that_was_cut_off_on_its_way_up_or_down_harms_no_later_one(fail_at):
    """Memory runs out somewhere; the next attempt is as if nothing had been."""
    streamed, undisturbed = Streamed(4), Streamed(4)
    streamed.fail_at = fail_at
    with pytest.raises(torch.OutOfMemoryError):
        streamed.learn()
    for each in (streamed, undisturbed):
        each.ran.clear()
        each.ahead.clear()
        each.fail_at = None
        each.learn()
    assert streamed.ran == undisturbed.ran
    assert streamed.ahead == undisturbed.ahead
    ours, theirs = streamed.optimizer.gradients.shaped(), undisturbed.optimizer.gradients.shaped()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_slots_are_like_the_blocks_and_vectors_in_them_are_float32():
    streamed = Streamed(3, working="bfloat16")
    for slot in streamed.slots:
        shapes = {name: p.shape for name, p in slot.named_parameters()}
        assert shapes == {name: p.shape for name, p in streamed.model.blocks[0].named_parameters()}
        assert all(p.dtype == (torch.bfloat16 if p.dim() > 1 else torch.float32) for p in slot.parameters())
    # Room of their own: what is in one slot is not in the other, nor in the model.
    addresses = [p.data_ptr() for block in (*streamed.slots, *streamed.model.blocks) for p in block.parameters()]
    assert len(set(addresses)) == len(addresses)
