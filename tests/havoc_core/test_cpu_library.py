"""Building C++ at first use: kept, built again when it changes, and None where it cannot be built."""

from __future__ import annotations

import ctypes
import tomllib
from pathlib import Path

import pytest

from havoc_core.cpu_library import is_buildable, load

NEEDS = "sse2"  # every 64-bit x86 CPU
ANSWER = 'extern "C" int answer() { return 42; }\n'

builds = pytest.mark.skipif(not is_buildable(NEEDS), reason="no C++ compiler, or no Linux on x86")


@builds
def test_a_source_is_built_once_and_again_when_it_changes(tmp_path):
    source, cache = tmp_path / "tiny.cpp", tmp_path / "cache"
    source.write_text(ANSWER)
    assert load(source, needs=NEEDS, cache=cache).answer() == 42
    (built,) = cache.iterdir()
    before = built.stat().st_mtime_ns
    assert load(source, needs=NEEDS, cache=cache).answer() == 42
    assert built.stat().st_mtime_ns == before
    source.write_text(ANSWER.replace("42", "43"))
    assert load(source, needs=NEEDS, cache=cache).answer() == 43
    assert len(list(cache.iterdir())) == 2


@pytest.mark.skipif(not is_buildable(None), reason="no C++ compiler, or no Linux")
def test_a_source_for_any_cpu_is_built_and_products_are_fused_only_where_that_is_allowed(tmp_path):
    """1 + e, squared, less 1 + 2e: rounded once it is e squared, rounded twice it is nothing."""
    source = tmp_path / "fused.cpp"
    source.write_text('extern "C" float less(float a, float b) { return a * a - b; }\n')
    step = 2.0**-12
    left = {}
    for contract in (True, False):
        library = load(source, needs=None, contract=contract, cache=tmp_path / "cache")
        library.less.argtypes, library.less.restype = [ctypes.c_float] * 2, ctypes.c_float
        left[contract] = library.less(1.0 + step, 1.0 + 2.0 * step)
    assert left[False] == 0.0
    assert left[True] in (0.0, step**2)  # a CPU without fused instructions has none to use
    assert len(list((tmp_path / "cache").iterdir())) == 2


@builds
def test_a_source_that_does_not_compile_gives_nothing_and_leaves_nothing(tmp_path):
    source, cache = tmp_path / "broken.cpp", tmp_path / "cache"
    source.write_text("this is no C++")
    assert load(source, needs=NEEDS, cache=cache) is None
    assert list(cache.iterdir()) == []


@builds
def test_a_function_of_torch_that_has_gone_is_found_out_on_loading(tmp_path):
    """Not at the first call, in the middle of a step: then the process would end."""
    source = tmp_path / "calls.cpp"
    source.write_text('namespace at { void gone_for_ever(); }\nextern "C" void answer() { at::gone_for_ever(); }\n')
    assert load(source, needs=NEEDS, with_torch=True, cache=tmp_path / "cache") is None


@builds
def test_a_cache_that_cannot_be_written_gives_nothing(tmp_path):
    source, blocked = tmp_path / "tiny.cpp", tmp_path / "file"
    source.write_text(ANSWER)
    blocked.write_text("a file where the folder should be")
    assert load(source, needs=NEEDS, cache=blocked) is None


@builds
def test_without_any_home_nothing_is_built_and_nothing_fails(tmp_path, monkeypatch):
    """Regression: a user whom the system does not know has none, and the engine failed where torch would do."""

    def unknown():
        raise RuntimeError("Could not determine home directory.")

    source = tmp_path / "tiny.cpp"
    source.write_text(ANSWER)
    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert load(source, needs=NEEDS) is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "named"))
    assert load(source, needs=NEEDS).answer() == 42
    assert list((tmp_path / "named" / "havoc" / "kernels").iterdir())


@builds
def test_a_compiler_that_changes_under_its_name_builds_again(tmp_path, monkeypatch):
    compiler, source = tmp_path / "my-g++", tmp_path / "tiny.cpp"
    source.write_text(ANSWER)
    for version in ("one", "another"):
        compiler.write_text(f'#!/bin/sh\n# {version}\nexec g++ "$@"\n')
        compiler.chmod(0o755)
        monkeypatch.setenv("CXX", str(compiler))
        assert load(source, needs=NEEDS, cache=tmp_path / "cache").answer() == 42
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_source_that_is_not_there_gives_nothing(tmp_path):
    assert load(tmp_path / "nothing.cpp", needs=NEEDS, cache=tmp_path / "cache") is None


def test_an_instruction_set_that_the_cpu_lacks_gives_nothing(tmp_path):
    source = tmp_path / "tiny.cpp"
    source.write_text(ANSWER)
    assert not is_buildable("no_such_flag")
    assert load(source, needs="no_such_flag", cache=tmp_path / "cache") is None
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("package", ["havoc_core", "havoc_inference"])
def test_every_source_is_part_of_its_package(package):
    root = Path(__file__).parents[2]
    folder = root / "src" / package
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][package]
    packed = {path for pattern in patterns for path in folder.glob(pattern)}
    assert packed >= set(folder.rglob("*.cpp"))
    assert packed
