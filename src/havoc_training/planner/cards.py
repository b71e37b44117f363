"""The GPUs that a plan can be made for without having one. Imports no torch.

Peaks are dense matrix products with float32 accumulation, from NVIDIA's datasheets and architecture papers (Volta, Turing,
GA100, GA102, Ada, Hopper, Blackwell). Many datasheets print twice as much, with 2:4 sparsity, and those of the GeForce cards
twice as much again, with float16 accumulation; neither is what training uses. That of the RTX 5060 Ti is not printed there: it
follows from the RTX 5090's by the number of cores and the boost clock. The host link is what a pinned copy in one direction
reaches in practice, about 80 % of the PCIe rate.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from havoc_core.errors import ConfigError

GIB = 2**30
FP8_CAPABILITY = (8, 9)
"""First compute capability with products of 8-bit floats."""

Family = Literal["geforce", "workstation", "volta", "turing", "ampere", "hopper", "blackwell"]


@dataclass(frozen=True)
class Card:
    """A GPU as its maker describes it."""

    name: str
    memory_gib: float
    """As sold."""
    usable_gib: float
    """What tensors can have of it: less what the driver reports as missing and a context."""
    usable_is_estimate: bool
    """False where it was read from a device."""
    capability: tuple[int, int]
    """Compute capability."""
    family: Family
    """Cards of a family reach about the same share of their peak."""
    bf16_flops_per_s: float | None
    """Peak in bfloat16; None: the card has no such units."""
    fp16_flops_per_s: float
    fp8_flops_per_s: float | None
    """None: the card has no such units."""
    power_w: float
    """Board power; of the SXM module where there is one and the name does not say PCIe."""
    link_gb_per_s: float
    """Between host and device, one direction, in 1e9 bytes a second."""

    @property
    def usable_bytes(self) -> int:
        """`usable_gib` in bytes."""
        return int(self.usable_gib * GIB)

    @property
    def has_fp8(self) -> bool:
        """Whether it multiplies matrices of 8-bit floats."""
        return self.capability >= FP8_CAPABILITY

    def peak_flops_per_s(self, working: str) -> float | None:
        """Datasheet peak for weights in a format; None where the card has no units for it, or it is float32."""
        return {"bfloat16": self.bf16_flops_per_s, "float16": self.fp16_flops_per_s}.get(working)


def _table() -> tuple[Card, ...]:
    """Name, GiB sold, usable, estimated?, capability, family, bf16, fp16, fp8 (TFLOP/s), watts, GB/s."""
    rows: tuple[tuple[str, float, float, bool, tuple[int, int], Family, float, float, float, float, float], ...] = (
        ("RTX 3060 12GB", 12, 10.9, True, (8, 6), "geforce", 25.5, 25.5, 0, 170, 25),
        ("RTX 3090", 24, 22.6, False, (8, 6), "geforce", 71.0, 71.0, 0, 350, 25),
        ("RTX 3090 Ti", 24, 22.6, True, (8, 6), "geforce", 80.0, 80.0, 0, 450, 25),
        ("RTX 4080", 16, 14.9, True, (8, 9), "geforce", 97.5, 97.5, 194.9, 320, 25),
        ("RTX 4090", 24, 22.6, False, (8, 9), "geforce", 165.2, 165.2, 330.3, 450, 25),
        ("RTX 5060 Ti 16GB", 16, 14.9, True, (12, 0), "geforce", 47.4, 47.4, 94.8, 180, 25),
        ("RTX 5090", 32, 30.4, True, (12, 0), "geforce", 209.5, 209.5, 419.0, 575, 50),
        ("RTX A6000", 48, 46.6, True, (8, 6), "workstation", 154.8, 154.8, 0, 300, 25),
        ("RTX 6000 Ada", 48, 46.6, True, (8, 9), "workstation", 364.2, 364.2, 728.5, 300, 25),
        ("A10", 24, 21.4, True, (8, 6), "workstation", 125.0, 125.0, 0, 150, 25),
        ("A40", 48, 43.6, True, (8, 6), "workstation", 149.7, 149.7, 0, 300, 25),
        ("L4", 24, 21.4, True, (8, 9), "workstation", 121.0, 121.0, 242.5, 72, 25),
        ("L40S", 48, 43.6, True, (8, 9), "workstation", 362.0, 362.0, 733.0, 350, 25),
        ("T4", 16, 14.0, True, (7, 5), "turing", 0, 65.0, 0, 70, 12.5),
        ("V100-16", 16, 15.0, True, (7, 0), "volta", 0, 125.0, 0, 300, 12.5),
        ("V100-32", 32, 30.9, True, (7, 0), "volta", 0, 125.0, 0, 300, 12.5),
        ("A100-40", 40, 38.7, False, (8, 0), "ampere", 312.0, 312.0, 0, 400, 25),
        ("A100-80", 80, 78.3, False, (8, 0), "ampere", 312.0, 312.0, 0, 400, 25),
        ("A100 PCIe 40", 40, 38.7, False, (8, 0), "ampere", 312.0, 312.0, 0, 250, 25),
        ("A100 PCIe 80", 80, 78.3, False, (8, 0), "ampere", 312.0, 312.0, 0, 300, 25),
        ("H100", 80, 78.3, True, (9, 0), "hopper", 989.4, 989.4, 1978.9, 700, 50),
        ("H100 PCIe", 80, 78.3, True, (9, 0), "hopper", 756.0, 756.0, 1513.0, 350, 50),
        ("H100 NVL", 94, 92.2, True, (9, 0), "hopper", 835.0, 835.0, 1671.0, 400, 50),
        ("H200", 141, 138.8, False, (9, 0), "hopper", 989.4, 989.4, 1978.9, 700, 50),
        ("B200", 180, 177.5, True, (10, 0), "blackwell", 2250.0, 2250.0, 4500.0, 1000, 50),
    )
    return tuple(
        Card(name, gib, usable, guess, capability, family, bf16 * 1e12 or None, fp16 * 1e12, fp8 * 1e12 or None, watts, link)
        for name, gib, usable, guess, capability, family, bf16, fp16, fp8, watts, link in rows
    )  # fmt: skip


CARDS: tuple[Card, ...] = _table()
"""Every card of the table."""

_NOISE = re.compile(r"\b(nvidia|geforce|tesla|quadro|rtx|gpu|graphics|generation|sxm\d?|hbm\d?e?)\b")


def find_card(name: str) -> Card:
    """The card that a user means: "rtx4090", "RTX 4090", "4090", "a100 80gb" and "A100-80" are understood.

    Raises:
        ConfigError: there is none of that name (names the nearest), or there are several (names them).
    """
    found = _named(name)
    if len(found) == 1:
        return found[0]
    if found:
        names = [card.name for card in found]
        raise ConfigError(
            "--gpu",
            f"'{name}' is sold as {' and as '.join(names)}.",
            f"Say which: {_either(f'--gpu {n}' for n in names)}.",
        )
    keys = {key: card.name for card in CARDS for key in _keys(card)}
    near = difflib.get_close_matches(_squeezed(name), keys, n=4, cutoff=0.5)
    names = list(dict.fromkeys(keys[key] for key in near))[:3]
    hint = f"Did you mean {_either(names)}?" if names else f"Known are {', '.join(card.name for card in CARDS)}."
    raise ConfigError("--gpu", f"nothing is known of a '{name}'.", hint)


def card_of_device(name: str, *, memory_bytes: int) -> Card | None:
    """The card that a device is, or None: its own name decides, and its memory where the name is sold in several sizes.

    Args:
        name: as the driver says it, such as "NVIDIA A100-SXM4-80GB".
        memory_bytes: all of its memory.
    """
    # The driver reports up to a tenth less than is sold.
    fitting = [card for card in _named(name) if 0.85 < memory_bytes / GIB / card.memory_gib < 1.05]
    return fitting[0] if len(fitting) == 1 else None


def _named(name: str) -> list[Card]:
    wanted = _squeezed(name)
    return [card for card in CARDS if wanted in _keys(card)]


def _keys(card: Card) -> set[str]:
    """With its memory and without: "a10080" and "a100"."""
    whole = _squeezed(card.name)
    memory = f"{card.memory_gib:.0f}"
    stem = whole.removesuffix(memory) if re.search(rf"[- ]{memory}(GB)?$", card.name) else whole
    return {stem, stem + memory, *({stem.removesuffix("pcie") + memory + "pcie"} if "pcie" in stem else ())}


def _squeezed(name: str) -> str:
    """Letters and digits that tell cards apart."""
    words = re.sub(r"(\d)\s*gi?b\b", r"\1", name.lower())
    words = re.sub(r"^rtx(?=\d|a\d)", "", re.sub(r"[^a-z0-9]+", " ", words).strip())
    return "".join(_NOISE.sub(" ", words).split()).removesuffix("sxm")


def _either(names: Iterable[str]) -> str:
    each = list(names)
    return each[0] if len(each) == 1 else f"{', '.join(each[:-1])} or {each[-1]}"
