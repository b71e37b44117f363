"""Keeping less and computing again: the same bits, fewer bytes, and everything in its order."""

from __future__ import annotations

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from havoc_core.config import ModelConfig
from havoc_core.layers import attention_kernel
from havoc_core.layers.attention import Sight
from havoc_core.layers.block import run_in_order
from havoc_core.layers.fp8_linear import use_fp8
from havoc_core.layers.rope import rotary_table
from havoc_core.layers.segments import Segments
from havoc_core.loss import cross_entropy_sum
from havoc_core.model import first_weights, place_weights
from havoc_core.models.havoc import HavocModel, build
from havoc_training.memory.host_link import HostLink
from havoc_training.memory.recompute import FullRecompute, SelectiveRecompute

CPU = torch.device("cpu")
ROWS, TOKENS, WIDTH, BLOCKS = 2, 128, 64, 3
SEGMENTS = Segments.of_lengths([[40, 60], [TOKENS]], TOKENS)
RUNNERS = {
    "full": lambda: FullRecompute(),
    "offloaded": lambda: FullRecompute(offload_to=HostLink(CPU)),
    "selective": lambda: SelectiveRecompute(compiled=False),
}
every_runner = pytest.mark.parametrize("make", RUNNERS.values(), ids=RUNNERS)
both_formats = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


def tiny(dtype=torch.float32, *, dropout=0.0, tied=False) -> HavocModel:
    config = ModelConfig(
        size="nano",
        vocab_size=512,
        d_model=WIDTH,
        num_layers=BLOCKS,
        dropout=dropout,
        tie_embeddings=tied,
        attention={"num_heads": 2, "num_kv_heads": 1, "head_dim": 32},
        mlp={"hidden_dim": 96},
    )
    model = build(config)
    place_weights(model, first_weights(model, seed=3), dtype=dtype, device=CPU)
    return model.train()


def some_tokens():
    return torch.randint(0, 512, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))


def learn(model: HavocModel, runner) -> dict[str, torch.Tensor]:
    """Loss, every gradient, and the random number that comes next."""
    model.run_blocks_with(runner)
    torch.manual_seed(1)
    tokens = some_tokens()
    loss = cross_entropy_sum(model(tokens, segments=SEGMENTS), model.head, tokens)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return {**gradients, "loss": loss.detach(), "next random number": torch.rand(1)}


def assert_same_bits(found, wanted):
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


@every_runner
@both_formats
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_the_bits_are_those_of_blocks_run_in_order(make, dtype, tied):
    assert_same_bits(learn(tiny(dtype, tied=tied), make()), learn(tiny(dtype, tied=tied), run_in_order))


@every_runner
@both_formats
def test_dropout_drops_the_same_again_and_draws_no_number_twice(make, dtype):
    wanted = learn(tiny(dtype, dropout=0.3), run_in_order)
    assert_same_bits(learn(tiny(dtype, dropout=0.3), make()), wanted)
    assert not torch.equal(wanted["loss"], learn(tiny(dtype), run_in_order)["loss"]), "something was dropped"


@every_runner
@both_formats
@pytest.mark.skipif(attention_kernel.load() is None, reason="no C++ compiler or no AVX512-BF16 here")
def test_the_bits_are_the_same_with_the_kernel_for_the_cpu(make, dtype):
    models = [tiny(dtype), tiny(dtype)]
    for model in models:
        model.use_cpu_kernel()
    assert_same_bits(learn(models[0], make()), learn(models[1], run_in_order))


@every_runner
def test_the_bits_are_the_same_with_products_on_8_bit_numbers(make):
    models = [tiny(torch.bfloat16), tiny(torch.bfloat16)]
    for model in models:
        use_fp8(model.blocks, row_length=TOKENS)
    assert_same_bits(learn(models[0], make()), learn(models[1], run_in_order))


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own tracing looks for .grad where there is none
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_blocks_that_are_compiled_run_one_code_in_both_passes():
    def learn_compiled(runner):
        built = []

        def backend(graph, _):
            built.append(torch.is_grad_enabled())
            return graph.forward

        torch._dynamo.reset()  # or the second model would find the code of the first
        model = tiny()
        for block in model.blocks:
            block.compile(backend=backend, dynamic=False, fullgraph=True)
        return learn(model, runner), built

    wanted, _ = learn_compiled(run_in_order)
    found, built = learn_compiled(FullRecompute())
    assert_same_bits(found, wanted)
    assert built == [True], "once for all blocks and both passes, and with gradients in mind"


@every_runner
def test_a_pass_without_gradients_is_a_plain_one(make):
    model, tokens = tiny().eval(), some_tokens()
    with torch.no_grad():
        wanted = model(tokens, segments=SEGMENTS)
        model.run_blocks_with(make())
        found = model(tokens, segments=SEGMENTS)
    assert torch.equal(found, wanted)
    assert not found.requires_grad


@every_runner
def test_gradients_add_up_over_two_passes_that_are_under_way_at_once(make):
    tokens, gradients = some_tokens(), []
    for runner in (run_in_order, make()):
        model = tiny()
        model.run_blocks_with(runner)
        losses = [cross_entropy_sum(model(part, segments=None), model.head, part) for part in (tokens, tokens.flip(1))]
        for loss in losses:
            loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert_same_bits(gradients[1], gradients[0])


@every_runner
def test_blocks_get_their_gradients_though_the_embedding_is_frozen(make):
    gradients = []
    for runner in (run_in_order, make()):
        model = tiny()
        model.model.embed_tokens.weight.requires_grad_(False)
        model.run_blocks_with(runner)
        cross_entropy_sum(model(some_tokens()), model.head, some_tokens()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert_same_bits(gradients[1], gradients[0])


@every_runner
def test_the_hook_of_every_parameter_fires_once_and_block_after_block(make):
    model, fired = tiny(), []

    def note(name):
        def hook(parameter):
            assert parameter.grad is not None
            parameter.grad = None
            fired.append(name)

        return hook

    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(note(name))
    model.run_blocks_with(make())
    cross_entropy_sum(model(some_tokens(), segments=SEGMENTS), model.head, some_tokens()).backward()
    assert sorted(fired) == sorted(name for name, _ in model.named_parameters())
    numbers = [int(name.split(".")[2]) for name in fired if ".layers." in name]
    assert numbers == sorted(numbers, reverse=True)


class _Storages(TorchDispatchMode):
    """Notes every piece of memory that is made, but for those that were there before."""

    def __init__(self, known) -> None:
        super().__init__()
        self._known = {StorageWeakRef(tensor.untyped_storage()).cdata for tensor in known}
        self._made = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                reference = StorageWeakRef(tensor.untyped_storage())
                self._made[reference.cdata] = (reference, tensor.untyped_storage().nbytes())
        return out

    def living_bytes(self) -> int:
        alive = {at: num_bytes for at, (reference, num_bytes) in self._made.items() if not reference.expired()}
        return sum(num_bytes for at, num_bytes in alive.items() if at not in self._known)


def values_a_token(runner) -> float:
    """Float32 values, a token and block, that are held between the forward and the backward pass, the output included."""
    model, x = tiny(), torch.randn(ROWS, TOKENS, WIDTH, requires_grad=True)
    rotary, sight = rotary_table(TOKENS, 32, 10_000.0), Sight(mask=SEGMENTS.mask)
    with _Storages([*model.parameters(), x, *rotary, SEGMENTS.mask]) as storages:
        out = runner(model.blocks, x, rotary, sight)
        assert out.requires_grad
        return storages.living_bytes() / 4 / (ROWS * TOKENS) / BLOCKS


def test_full_recompute_keeps_the_input_of_each_block_and_nothing_else():
    assert values_a_token(FullRecompute()) == WIDTH  # the output of one is the input of the next


def test_selective_recompute_keeps_the_products_and_the_attention():
    queries, keys, values, hidden = 64, 32, 32, 96
    products = queries + keys + values + WIDTH + 2 * hidden + WIDTH
    attention = queries + 2  # and the logarithm of a sum for each head
    kept = values_a_token(SelectiveRecompute(compiled=False))
    assert kept == products + attention + WIDTH == 578
    assert kept < 0.5 * values_a_token(run_in_order)


class _NotedLink(HostLink):
    """A way to the host that notes what goes over it."""

    def __init__(self, notes) -> None:
        super().__init__(CPU)
        self._notes, self._numbers = notes, {}

    def to_host(self, copies, *, after=None):
        ((target, _),) = copies
        self._numbers[target.data_ptr()] = len(self._numbers)
        self._notes.append(f"out {self._numbers[target.data_ptr()]}")
        return super().to_host(copies, after=after)

    def to_device(self, copies, *, after=None):
        ((_, source),) = copies
        self._notes.append(f"in {self._numbers[source.data_ptr()]}")
        return super().to_device(copies, after=after)


def test_inputs_leave_in_order_and_come_back_one_block_ahead():
    notes, model = [], tiny()
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, number=number: notes.append(f"run {number}"))
        block.mlp.down_proj.weight.register_post_accumulate_grad_hook(
            lambda _, number=number: notes.append(f"grad {number}")
        )
    model.run_blocks_with(FullRecompute(offload_to=_NotedLink(notes)))
    cross_entropy_sum(model(some_tokens()), model.head, some_tokens()).backward()
    forward = ["out 0", "run 0", "out 1", "run 1", "run 2"]
    assert notes == [*forward, "in 1", "run 2", "grad 2", "in 0", "run 1", "grad 1", "run 0", "grad 0"]


def test_an_input_is_forgotten_once_its_block_is_done():
    model, x = tiny(), torch.randn(ROWS, TOKENS, WIDTH, requires_grad=True)
    rotary = rotary_table(TOKENS, 32, 10_000.0)
    with _Storages([*model.parameters(), x, *rotary]) as storages:
        out = FullRecompute(offload_to=HostLink(CPU))(model.blocks, x, rotary, Sight())
        out.sum().backward()
        del out
        gradients = sum(p.grad.nbytes for p in model.blocks.parameters()) + x.grad.nbytes
        assert storages.living_bytes() == gradients
