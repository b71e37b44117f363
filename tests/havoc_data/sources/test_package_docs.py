from __future__ import annotations

import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from havoc_core.errors import ConfigError, DataError
from havoc_data.document import Document, Rejected
from havoc_data.sources.package_docs import COLLECTIONS, Options, Package, PackageDocs, build

LONG = "It says a good deal about what it does and why. " * 6


def package_in(folder: Path, files: dict[str, str]) -> Package:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Package("shapes", "1.0", "MIT", (("shapes", folder),))


def split(source: PackageDocs) -> tuple[list[Document], list[Rejected]]:
    items = list(source.documents())
    return [item for item in items if isinstance(item, Document)], [
        item for item in items if isinstance(item, Rejected)
    ]


def test_documents_come_in_the_order_of_the_modules_with_origin_and_licence(tmp_path: Path) -> None:
    doc = f'"""{LONG}"""\nclass A:\n    """{LONG}"""\n'
    package = package_in(
        tmp_path, {"flat.py": doc, "__init__.py": doc, "solid/__init__.py": doc, "solid/_cube.py": doc}
    )
    documents, rejected = split(PackageDocs((package,)))
    assert [(document.origin, document.ordinal) for document in documents] == [
        ("shapes", 0),
        ("shapes", 1),
        ("shapes.flat", 0),
        ("shapes.flat", 1),
        ("shapes.solid", 0),
        ("shapes.solid", 1),
        ("shapes.solid._cube", 0),
        ("shapes.solid._cube", 1),
    ]
    assert {document.licence for document in documents} == {"MIT"}
    assert rejected == []


def test_tests_and_what_belongs_to_others_are_left_out(tmp_path: Path) -> None:
    doc = f'"""{LONG}"""'
    names = ["a.py", "tests/b.py", "x/tests/c.py", "_vendor/d.py", "conftest.py", "setup.py", "x/externals/e/f.py"]
    package = package_in(tmp_path, dict.fromkeys(names, doc))
    assert [document.origin for document in split(PackageDocs((package,)))[0]] == ["shapes.a"]


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    files = {"good.py": f'"""{LONG}"""', "small.py": '"""Short."""', "wrong.py": '"""x"""\nx = = 1'}
    package = package_in(tmp_path, files)
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
    missing = Package("absent.part", "", None, ())
    documents, rejected = split(PackageDocs((missing, package)))
    assert [document.origin for document in documents] == ["shapes.good"]
    assert rejected == [
        Rejected("absent.part", "the package is not installed: pip install absent"),
        Rejected("shapes.gone", "its file cannot be read (No such file or directory)"),
        Rejected(
            "shapes.small", "documentation of less than 200 bytes", len("shapes.small\n\nShort."), rule="too_short"
        ),
        Rejected("shapes.wrong", "its file is no Python of this version (invalid syntax (<unknown>, line 2))", 15),
    ]


def test_packages_without_a_word_are_an_error(tmp_path: Path) -> None:
    package = package_in(tmp_path, {"a.py": "x = 1\n"})
    with pytest.raises(DataError) as caught:
        list(PackageDocs((package,)).documents())
    assert caught.value.where == "package_docs"
    assert caught.value.found == "there is no documentation in shapes."
    assert caught.value.remedy == "Name packages whose functions have docstrings."


def test_packages_that_are_not_installed_are_an_error_with_the_command_that_installs_them() -> None:
    with pytest.raises(DataError) as caught:
        build(None, Options(packages=("no_such_thing.part", "no_such_thing.other", "nor_this", "scipy.no_such_part")))
    assert caught.value.where == "package_docs"
    assert caught.value.found.startswith("none of its packages is installed as Python source: no_such_thing.part, ")
    assert caught.value.remedy == "pip install no_such_thing nor_this scipy"


def test_a_missing_package_among_others_is_named_and_does_no_harm() -> None:
    documents, rejected = split(build(None, Options(packages=("no_such_thing", "scipy.constants"))))
    assert rejected[0] == Rejected("no_such_thing", "the package is not installed: pip install no_such_thing")
    assert {document.origin for document in documents} >= {"scipy.constants", "scipy.constants._constants"}
    assert {document.licence for document in documents} == {"BSD-3-Clause"}


def test_a_part_may_be_a_single_module() -> None:
    documents, _ = split(build(None, Options(packages=("scipy.signal._waveforms", "typing_extensions"))))
    assert {document.origin for document in documents} == {"scipy.signal._waveforms", "typing_extensions"}


def test_a_source_says_which_packages_it_reads_and_takes_no_path() -> None:
    with pytest.raises(ConfigError) as caught:
        build(None, Options())
    assert caught.value.where == "data.sources.options"
    assert "names neither a collection nor packages" in caught.value.found
    assert (
        caught.value.remedy == "Give it collection: math | stats | engineering | general, or packages: [scipy.signal]."
    )
    with pytest.raises(ConfigError, match=r"data.sources.path: 'x' is given, but .* reads no files. Leave path out."):
        build("x", Options(collection="math"))
    with pytest.raises(ValidationError):
        Options.model_validate({"collection": "physics"})


def test_reading_imports_nothing_of_the_packages() -> None:
    program = (
        "import sys\n"
        "from havoc_data.sources.package_docs import Options, build\n"
        "source = build(None, Options(packages=('sympy.sets', 'scipy.fft', 'statsmodels.duration', 'pint')))\n"
        "print(len(list(source.documents())), source.fingerprint())\n"
        "print(sorted({'sympy', 'scipy', 'statsmodels', 'pint', 'torch'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    count, imported = done.stdout.splitlines()
    assert int(count.split()[0]) > 30
    assert imported == "[]"


def test_the_fingerprint_follows_contents_and_versions_and_is_the_same_twice(tmp_path: Path) -> None:
    package = package_in(tmp_path, {"a.py": f'"""{LONG}"""'})
    first = PackageDocs((package,)).fingerprint()
    assert PackageDocs((package,)).fingerprint() == first
    assert PackageDocs((Package("shapes", "1.1", "MIT", package.roots),)).fingerprint() != first
    (tmp_path / "a.py").write_text(f'"""{LONG}More."""', encoding="utf-8")
    assert PackageDocs((package,)).fingerprint() != first
    assert PackageDocs(()).fingerprint() != PackageDocs((Package("x", "", None, ()),)).fingerprint()


@pytest.mark.slow
def test_the_four_collections_hold_8_mb_of_text_and_are_read_in_seconds() -> None:
    """What the first run learns from. 18.9 MB in 12 s on one core with the versions in constraints.txt."""
    start = time.process_time()
    megabytes = {}
    for collection in COLLECTIONS:
        documents, rejected = split(build(None, Options.model_validate({"collection": collection})))
        megabytes[collection] = sum(len(document.text.encode()) for document in documents) / 1e6
        assert all(document.licence for document in documents)
        assert len({(document.origin, document.ordinal) for document in documents}) == len(documents)
        assert not [each for each in rejected if "less than 200 bytes" not in each.reason]
    assert time.process_time() - start < 40
    assert sum(megabytes.values()) > 8
    assert min(megabytes.values()) > 1


def test_a_part_that_was_sent_elsewhere_gives_the_documents_of_the_source() -> None:
    source = build(None, Options(packages=("json", "string")))
    (part,) = source.parts()
    assert list(pickle.loads(pickle.dumps(part)).documents()) == list(source.documents())
    assert (part.key, part.sizes(), source.rejected()) == (source.fingerprint(), {}, ())
