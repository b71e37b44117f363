"""Where a run stands."""

from __future__ import annotations

import json

from havoc_data.loading.ledger import EMPTY_CHAIN, batch_hash, extend_chain
from havoc_training.gradient_scaler import GradientScale
from havoc_training.state import TrainState

ROWS = [bytes([i]) * 16 for i in range(4)]


def test_an_update_moves_step_slot_tokens_and_chain():
    state = TrainState().after(rows=ROWS, scored_tokens=250, scales_loss=False)
    assert (state.step, state.next_slot, state.scored_tokens) == (1, 4, 250)
    assert state.chain == extend_chain(EMPTY_CHAIN, batch_hash(ROWS))
    assert state.scale == GradientScale()


def test_an_overflow_consumes_batch_and_step_and_halves_the_scale():
    state = TrainState().after(rows=ROWS, scored_tokens=250, overflow=True, scales_loss=True)
    assert (state.step, state.next_slot) == (1, 4)
    assert state.scale == GradientScale(32768.0, 0)


def test_an_update_that_went_well_counts_for_the_scale_only_where_there_is_one():
    assert TrainState().after(rows=ROWS, scored_tokens=1, scales_loss=True).scale == GradientScale(65536.0, 1)
    assert TrainState().after(rows=ROWS, scored_tokens=1, overflow=True, scales_loss=False).scale == GradientScale()


def test_the_best_validation_is_remembered():
    state = TrainState(step=5).validated(2.0)
    assert (state.best_loss, state.best_step) == (2.0, 5)
    assert state.validated(2.0) is state
    assert state.validated(1.5).best_loss == 1.5


def test_json_restores_it_exactly():
    state = TrainState(7, 28, bytes(range(16)), 1750, 2.718281828459045, 6, GradientScale(1024.0, 3))
    values = json.loads(json.dumps(state.to_json()))
    assert TrainState.from_json(values, GradientScale(1024.0, 3)) == state
    assert values["global_step"] == 7
