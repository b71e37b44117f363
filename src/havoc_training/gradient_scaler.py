"""Loss scaling for float16, by the rules of torch's GradScaler, on float32 gradients.

Small float16 gradients vanish; the loss is multiplied by a large scale and the gradients are divided by it. When one
overflows, the step is skipped and the scale halved; after 2000 steps without overflow it is doubled. An overflow
consumes the batch and the schedule's step, and leaves moments and Adam's count alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_GROWTH = 2.0
_BACKOFF = 0.5
_INTERVAL = 2000


@dataclass(frozen=True)
class GradientScale:
    """The scale now, and how many steps it has gone well."""

    scale: float = 65536.0
    good_steps: int = 0

    def after(self, *, overflow: bool) -> GradientScale:
        """The scale for the next step."""
        if overflow:
            return GradientScale(self.scale * _BACKOFF, 0)
        if self.good_steps + 1 == _INTERVAL:
            return GradientScale(self.scale * _GROWTH, 0)
        return replace(self, good_steps=self.good_steps + 1)
