"""What Linux says of the CPU. Imports no torch: the planner asks too."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_name() -> str:
    """What the CPU calls itself."""
    return _field("model name", None) or platform.processor() or platform.machine()


def cpu_flags(root: Path | None = None) -> str:
    """Instruction sets, such as "avx2 avx512_bf16"; empty where they are not told.

    Args:
        root: where /proc is found; None: of this machine.
    """
    return _field("flags", root)


def has_fast_bfloat16(root: Path | None = None) -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware (AMX or AVX512-BF16)."""
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(cpu_flags(root).split())


def _field(name: str, root: Path | None) -> str:
    """Of the first processor in /proc/cpuinfo."""
    try:
        lines = ((root or Path("/")) / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":", 1)[0].strip() == name), "")
