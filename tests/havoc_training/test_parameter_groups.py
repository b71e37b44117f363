"""Matrices inside the blocks, embedding and head, norms."""

from __future__ import annotations

import pytest

from havoc_core.config import ModelConfig
from havoc_core.models import havoc
from havoc_training.parameter_groups import name_groups

SMALL = {
    "size": "nano", "vocab_size": 512, "d_model": 16, "num_layers": 2, "max_seq_len": 32,
    "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 8}, "mlp": {"hidden_dim": 24},
}  # fmt: skip


def model_of(*, tied=False):
    return havoc.build(ModelConfig.model_validate({**SMALL, "tie_embeddings": tied}))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("decay_embeddings", [True, False])
def test_every_parameter_is_in_the_group_of_its_kind_and_in_no_other(tied, decay_embeddings):
    model = model_of(tied=tied)
    groups = {group.kind: group for group in name_groups(model, decay_embeddings=decay_embeddings)}
    assert list(groups) == ["matrices", "embeddings", "vectors"]
    assert set(groups["embeddings"].names) == {"model.embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})
    assert len(groups["matrices"].names) == 2 * 7
    assert all("layers" in name and "norm" not in name for name in groups["matrices"].names)
    assert all("norm" in name for name in groups["vectors"].names)
    assert [group.decayed for group in groups.values()] == [True, decay_embeddings, False]
    every = [name for group in groups.values() for name in group.names]
    assert sorted(every) == sorted(name for name, _ in model.named_parameters())


def test_names_stand_in_the_order_of_the_model():
    """A checkpoint's groups do not depend on a hash."""
    model = model_of()
    order = [name for name, _ in model.named_parameters()]
    for group in name_groups(model, decay_embeddings=True):
        assert list(group.names) == sorted(group.names, key=order.index)
