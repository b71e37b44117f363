"""The trainer's model, block by block, against the same model as a whole."""

from __future__ import annotations

import pytest
import torch

from havoc_core.model import place_weights
from havoc_core.models import havoc
from havoc_inference.export import reference
from havoc_inference.export.exported_weights import ExportedWeights

ROWS = [[0, 300, 301], [0, *range(256, 256 + 90)], [0, 400, 401, 402, 403]]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("exported", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_logits_are_those_of_the_whole_model_in_float32(make, stored, exported, tied):
    contents = make(dtype=stored, tie_embeddings=tied)
    weights = ExportedWeights(contents, exported)
    model = havoc.build(contents.config).eval()
    place_weights(model, weights, dtype=torch.float32, device=torch.device("cpu"))
    found = reference.hidden_states(weights, contents.config, ROWS)
    for row, hidden in zip(ROWS, found, strict=True):
        with torch.no_grad():
            wanted = model.logits(model(torch.tensor([row])))[0]
        # Rows of other lengths beside it change the order of sums: 1e-5 of the largest entry.
        difference = (reference.logits(weights, hidden) - wanted).abs().max()
        assert float(difference) <= 1e-5 * float(wanted.abs().max())


def test_one_long_row_goes_by_itself():
    assert reference.groups([3, 90, 5]) == [[0, 1, 2]]
    assert reference.groups([3, 900, 5]) == [[0, 2], [1]]
    assert reference.groups([900, 900]) == [[0, 1]]
