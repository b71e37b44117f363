"""What the rules look at: every Python file, parsed once, and the one list of exceptions."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Module:
    """One Python file."""

    name: str
    """Dotted name, such as "havoc_data.loading.packing"; of a package, the package's."""
    path: str
    """Relative to src/ (to the repository for files elsewhere), with forward slashes."""
    text: str = field(repr=False)
    tree: ast.Module = field(repr=False)

    @property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")


def _parsed(path: Path, base: Path) -> Module:
    relative = path.relative_to(base).as_posix()
    text = path.read_text(encoding="utf-8")
    return Module(
        relative.removesuffix(".py").removesuffix("/__init__").replace("/", "."), relative, text, ast.parse(text)
    )


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def modules() -> dict[str, Module]:
    """Dotted name -> every module of src/."""
    source = ROOT / "src"
    parsed = [_parsed(path, source) for path in sorted(source.glob("havoc_*/**/*.py"))]
    assert len(parsed) > 50, "src/ was found"
    return {module.name: module for module in parsed}


@pytest.fixture(scope="session")
def other_python() -> list[Module]:
    """Python outside src/: tests, benchmarks, scripts, docs."""
    folders = ("tests", "benchmarks", "scripts", "docs")
    return [_parsed(path, ROOT) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.fixture(scope="session")
def parse() -> Callable[..., Module]:
    """A made-up module, to show that a rule can be broken."""

    def make(text: str, name: str = "havoc_core.example") -> Module:
        return Module(name, name.replace(".", "/") + ".py", text, ast.parse(text))

    return make


@pytest.fixture(scope="session")
def allowed() -> Callable[[str], set[str]]:
    """Rule -> places that may break it, from allow_list.toml."""
    entries = tomllib.loads((ROOT / "tests/house/allow_list.toml").read_text(encoding="utf-8"))["allowed"]

    def of_rule(rule: str) -> set[str]:
        return {entry["where"] for entry in entries if entry["rule"] == rule}

    return of_rule
