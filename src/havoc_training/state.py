"""Where a run stands: the few numbers that, with weights and optimizer, are the whole of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from havoc_data.loading.ledger import EMPTY_CHAIN, batch_hash, extend_chain
from havoc_training.gradient_scaler import GradientScale


@dataclass(frozen=True)
class TrainState:
    """After `step` completed updates."""

    step: int = 0
    next_slot: int = 0
    """First row that has not been learnt from."""
    chain: bytes = EMPTY_CHAIN
    """Hash of every batch so far."""
    scored_tokens: int = 0
    best_loss: float | None = None
    """Lowest validation loss so far."""
    best_step: int | None = None
    scale: GradientScale = field(default_factory=GradientScale)

    def after(self, *, rows: list[bytes], scored_tokens: int, overflow: bool = False, scales_loss: bool) -> TrainState:
        """The state after an update on rows with these hashes, in slot order."""
        return replace(
            self,
            step=self.step + 1,
            next_slot=self.next_slot + len(rows),
            chain=extend_chain(self.chain, batch_hash(rows)),
            scored_tokens=self.scored_tokens + scored_tokens,
            scale=self.scale.after(overflow=overflow) if scales_loss else self.scale,
        )

    def validated(self, loss: float) -> TrainState:
        """The state after a validation: the best so far is remembered."""
        if self.best_loss is None or loss < self.best_loss:
            return replace(self, best_loss=loss, best_step=self.step)
        return self

    def to_json(self) -> dict[str, Any]:
        """For training_state.json. The loss scale is kept in scaler.pt."""
        values = asdict(self)
        del values["scale"]
        return values | {"chain": self.chain.hex(), "global_step": self.step}

    @classmethod
    def from_json(cls, values: dict[str, Any], scale: GradientScale) -> TrainState:
        """From training_state.json; keys of others in the file are left alone."""
        kept = {name: values[name] for name in ("step", "next_slot", "scored_tokens", "best_loss", "best_step")}
        return cls(**kept, chain=bytes.fromhex(values["chain"]), scale=scale)
