"""A text that grows under a run: each store that it learnt from is a stage, and earlier stages are never altered.

A stage is {from_slot, store_id, plan_id}. Slots before `from_slot` belong to the stages before it, whose batches are frozen by
the chain of hashes; from there on rows are those of the new store, counted from its own beginning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from havoc_core.config import TrainingConfig
from havoc_core.log import LOGGER
from havoc_data.loading.loader import Loader, MixturePlan
from havoc_data.prepare.build import PreparedData

Stage = Mapping[str, Any]


def stages_of(
    store_id: str, plan_id: str, *, earlier: Sequence[Stage], next_slot: int, growing: bool
) -> tuple[Stage, ...]:
    """The stages of a run that starts or continues with a store.

    Args:
        store_id: of the store that is there now.
        plan_id: of the mixture now.
        earlier: stages so far; none: the run starts.
        next_slot: first row that has not been learnt from.
        growing: whether another store begins a new stage; if not, the last stage goes on (a difference is refused elsewhere).
    """
    now = {"from_slot": next_slot, "store_id": store_id, "plan_id": plan_id}
    if not earlier:
        return (now,)
    last = earlier[-1]
    if not growing or (last["store_id"], last["plan_id"]) == (store_id, plan_id):
        return tuple(earlier)
    LOGGER.info("The text has changed: from row %d on the run learns from store %s….", next_slot, store_id[:12])
    # A stage that was begun and never learnt from leaves no trace.
    return (*(stage for stage in earlier if stage["from_slot"] < next_slot), now)


def saved_stages(state: Mapping[str, Any]) -> Sequence[Stage]:
    """The stages that a checkpoint knows of; one from before there were stages has had one store.

    Args:
        state: training_state.json of the checkpoint.
    """
    identity = state["identity"]
    first = {"from_slot": 0, "store_id": identity["store_id"], "plan_id": identity["plan_id"]}
    stages: Sequence[Stage] = state["resolved"].get("data_stages", [first])
    return stages


def make_loader(config: TrainingConfig, data: PreparedData, *, first_slot: int = 0) -> Loader:
    """The loader of a run, or of one of its stages."""
    mixture = MixturePlan(
        ratios=data.store.manifest["ratios"],
        weights=config.data.weights,
        row_length=config.data.max_sequence_length,
        packing=config.data.packing,
    )
    return Loader(
        data.store,
        mixture,
        seed=config.seed,
        token_bytes=data.tokenizer.token_bytes(),
        pad_id=data.tokenizer.pad_id,
        first_slot=first_slot,
    )


def staged_loader(
    config: TrainingConfig, data: PreparedData, *, earlier: Sequence[Stage], next_slot: int
) -> tuple[Loader, tuple[Stage, ...]]:
    """The loader of the stage that a run is in, and all stages up to it.

    Args:
        config: the run.
        data: its tokenizer and the store that is there now.
        earlier, next_slot: as in `stages_of`.
    """
    loader = make_loader(config, data)
    stages = stages_of(data.store.id, loader.plan.id, earlier=earlier, next_slot=next_slot, growing=config.data.growing)
    first_slot = int(stages[-1]["from_slot"])
    return make_loader(config, data, first_slot=first_slot) if first_slot else loader, stages
