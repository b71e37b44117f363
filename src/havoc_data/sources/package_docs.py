"""The documentation inside installed packages: text about mathematics, statistics, engineering, Python.

The .py files of a package are read as text (`ast`); nothing of it is imported. A document is a module with its
functions, or a class with its methods. Left out are tests, what a package carries of others, names that begin with
an underscore, and modules that are compiled, which have no source to read.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import platform
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from havoc_core.config import Section
from havoc_core.errors import ConfigError, DataError
from havoc_data.document import Document, Rejected
from havoc_data.source import WholeSource
from havoc_data.sources._docstrings import LEAST_BYTES, read_module
from havoc_data.sources._files import refuse_path

PYTHON = "python"
"""What the standard library is called among the packages."""
COLLECTIONS: dict[str, tuple[str, ...]] = {
    "math": ("sympy", "mpmath", "networkx"),
    "stats": ("scipy.stats", "statsmodels"),
    "engineering": (
        *(
            f"scipy.{part}"
            for part in ("cluster", "constants", "datasets", "differentiate", "fft", "fftpack", "integrate")
        ),
        *(
            f"scipy.{part}"
            for part in ("interpolate", "io", "linalg", "ndimage", "odr", "optimize", "signal", "sparse")
        ),
        *("scipy.spatial", "scipy.special", "numpy", "pint"),
    ),
    "general": (PYTHON,),
}
"""Name of a collection -> its packages."""
_LEFT_OUT_FOLDERS = frozenset(
    (
        *("test", "tests", "testsuite", "benchmarks", "__pycache__", "site-packages"),
        *("vendor", "vendored", "_vendor", "extern", "externals", "_extern", "_external"),
        *("distutils", "ensurepip", "f2py", "idlelib", "lib2to3", "msilib", "turtledemo"),
    )
)
_LEFT_OUT_FILES = frozenset(("conftest.py", "setup.py", "__main__.py", "__phello__.py", "this.py", "antigravity.py"))
_SPDX_BY_NAME = dict.fromkeys(("sympy", "mpmath", "scipy", "pint"), "BSD-3-Clause")
"""Licences of packages whose metadata say only "BSD", or give the whole text."""
_SPDX = ("MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MPL-2.0", "PSF-2.0", "0BSD", "Unlicense")


class Options(Section):
    """Settings of this kind of source."""

    packages: tuple[str, ...] = ()
    """Packages, or parts of them, such as "scipy.signal"; "python" is the standard library."""
    collection: Literal["math", "stats", "engineering", "general"] | None = None
    """A named list of packages, besides those in `packages`."""


def build(path: str | None, options: Options) -> PackageDocs:
    """The documentation of the packages that are installed.

    Raises:
        ConfigError: there is a path, or neither packages nor a collection.
        DataError: not one of the packages is installed with its source.
    """
    refuse_path("package_docs", path)
    wanted = (*(COLLECTIONS[options.collection] if options.collection else ()), *options.packages)
    if not wanted:
        raise ConfigError(
            "data.sources.options",
            "a source of kind 'package_docs' names neither a collection nor packages.",
            f"Give it collection: {' | '.join(COLLECTIONS)}, or packages: [scipy.signal].",
        )
    packages = tuple(_located(name) for name in dict.fromkeys(wanted))
    if not any(package.roots for package in packages):
        names = ", ".join(wanted)
        installable = " ".join(dict.fromkeys(name.partition(".")[0] for name in wanted if name != PYTHON))
        raise DataError(
            "package_docs",
            f"none of its packages is installed as Python source: {names}.",
            f"pip install {installable or 'python'}",
        )
    return PackageDocs(packages, options)


@dataclass(frozen=True)
class Package:
    """An installed package, or a part of one, or the standard library."""

    name: str
    """Dotted, as asked for."""
    version: str
    """Of the distribution; "" where unknown."""
    licence: str | None
    """SPDX name, where known."""
    roots: tuple[tuple[str, Path], ...]
    """(dotted name, folder or .py file), in order; empty if it is not installed."""

    def files(self) -> Iterator[tuple[str, Path]]:
        """(dotted module name, file) of each module, in the order of their paths."""
        for dotted, root in self.roots:
            if root.is_file():
                yield dotted, root
                continue
            for file in sorted(root.rglob("*.py"), key=lambda file: file.relative_to(root).parts):
                inside = file.relative_to(root)
                if inside.name in _LEFT_OUT_FILES or not _LEFT_OUT_FOLDERS.isdisjoint(inside.parts[:-1]):
                    continue
                parts = inside.parts[:-1] if inside.name == "__init__.py" else (*inside.parts[:-1], inside.stem)
                yield ".".join((dotted, *parts)), file


@dataclass(frozen=True)
class PackageDocs:
    """Docstrings of installed packages. A `Source`."""

    packages: tuple[Package, ...]
    """Where they are."""
    options: Options = field(default_factory=Options)
    """How they were asked for."""

    def parts(self) -> tuple[WholeSource, ...]:
        """All in one."""
        return (WholeSource("package_docs", None, self.options.model_dump(), self.fingerprint()),)

    def rejected(self) -> tuple[Rejected, ...]:
        """Nothing: what is not read is named among the documents."""
        return ()

    def documents(self) -> Iterator[Document | Rejected]:
        """Module after module; origins are dotted names of modules.

        Raises:
            DataError: at the end, if there was not one document.
        """
        given = 0
        for package in self.packages:
            if not package.roots:
                yield Rejected(
                    package.name, f"the package is not installed: pip install {package.name.partition('.')[0]}"
                )
            for module, file in package.files():
                for item in _documents_of(module, file, package.licence):
                    given += isinstance(item, Document)
                    yield item
        if not given:
            names = ", ".join(package.name for package in self.packages)
            raise DataError(
                "package_docs",
                f"there is no documentation in {names}.",
                "Name packages whose functions have docstrings.",
            )

    def fingerprint(self) -> str:
        """Hex digest of the packages' versions and of the contents of the files that are read."""
        digest = hashlib.blake2b(b"package_docs 1", digest_size=16)
        for package in self.packages:
            digest.update(f"\0{package.name}\0{package.version}\0{len(package.roots)}".encode())
            for module, file in package.files():
                try:
                    contents = file.read_bytes()
                except OSError:
                    contents = b"unreadable"
                digest.update(f"\0{module}\0".encode() + hashlib.blake2b(contents, digest_size=16).digest())
        return digest.hexdigest()


def _documents_of(module: str, file: Path, licence: str | None) -> Iterator[Document | Rejected]:
    try:
        source = file.read_bytes()
        read = read_module(source, module)
    except OSError as error:
        yield Rejected(module, f"its file cannot be read ({error.strerror or error})")
        return
    except (SyntaxError, ValueError, RecursionError) as error:
        yield Rejected(module, f"its file is no Python of this version ({error})", len(source))
        return
    for ordinal, text in enumerate(read.documents):
        yield Document(module, text, ordinal=ordinal, licence=licence)
    if read.left_over_bytes:
        reason = f"documentation of less than {LEAST_BYTES} bytes"
        yield Rejected(module, reason, read.left_over_bytes, rule="too_short")


def _located(name: str) -> Package:
    """Where a package is. Imports nothing: only the top package is looked up, and its parts are paths below it."""
    if name == PYTHON:
        return Package(name, platform.python_version(), "PSF-2.0", _standard_library())
    top, _, rest = name.partition(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module that was made by hand and knows not where it comes from
        spec = None
    roots = []
    if spec is not None and spec.submodule_search_locations is not None:
        for location in spec.submodule_search_locations:
            folder = Path(location, *rest.split(".")) if rest else Path(location)
            roots += [(name, path) for path in (folder, folder.with_suffix(".py")) if path.exists()][:1]
    elif spec is not None and spec.origin and spec.origin.endswith(".py") and not rest:
        roots.append((name, Path(spec.origin)))
    version, licence = _metadata(top)
    return Package(name, version, licence, tuple(roots))


def _standard_library() -> tuple[tuple[str, Path], ...]:
    folder = Path(sysconfig.get_paths()["stdlib"])
    roots = []
    for name in sorted({*sys.stdlib_module_names, "pydoc_data"}):
        if name in _LEFT_OUT_FOLDERS or f"{name}.py" in _LEFT_OUT_FILES:
            continue
        roots += [(name, path) for path in (folder / name, folder / f"{name}.py") if path.exists()][:1]
    return tuple(roots)


def _metadata(top: str) -> tuple[str, str | None]:
    """(version, SPDX name of the licence) of the distribution that a top package comes from."""
    try:
        distribution = importlib.metadata.distribution(top)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top)
        if not names:
            return "", None
        distribution = importlib.metadata.distribution(names[0])
    fields = distribution.metadata
    if "License-Expression" in fields:
        return distribution.version, fields["License-Expression"]
    named = (fields.get_all("License") or [""])[0]
    return distribution.version, named if named in _SPDX else _SPDX_BY_NAME.get(top)
