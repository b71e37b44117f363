"""What Linux says of the CPU."""

from __future__ import annotations

from havoc_core.processor import cpu_flags, cpu_name, has_fast_bfloat16

CPUINFO = "processor : 0\nvmx flags : ept\nflags : fpu avx512_bf16\n\nprocessor : 1\nflags : fpu\n"


def write(root, text):
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(text, encoding="utf-8")


def test_flags_are_those_of_the_first_processor_and_no_other_line(tmp_path):
    write(tmp_path, CPUINFO)
    assert cpu_flags(tmp_path) == "fpu avx512_bf16"
    assert has_fast_bfloat16(tmp_path)


def test_a_flag_that_only_begins_like_one_is_another(tmp_path):
    write(tmp_path, "flags : fpu amx_bf16x\n")
    assert not has_fast_bfloat16(tmp_path)


def test_where_linux_says_nothing_there_are_no_flags_and_still_a_name(tmp_path):
    assert cpu_flags(tmp_path) == ""
    assert not has_fast_bfloat16(tmp_path)
    assert cpu_name()
