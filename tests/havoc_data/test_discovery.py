from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from havoc_core.config import DataMixtureConfig
from havoc_core.errors import ConfigError, DataError
from havoc_data.discovery import SourcePlan, discover
from havoc_data.document import Document, Rejected


def plan(base: Path, **settings: Any) -> SourcePlan:
    return discover(DataMixtureConfig.model_validate(settings), base)


def put(base: Path, *names: str) -> None:
    for name in names:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"text": "A row."}\n' if ".jsonl" in name else "A text.", encoding="utf-8")


def described(made: SourcePlan) -> list[tuple[str, str, str]]:
    return [(entry.name, entry.group, entry.config.kind) for entry in made.entries]


def everything(made: SourcePlan) -> list[Document | Rejected]:
    """What all sources give, beside their parts and in them."""
    return [
        item
        for entry in made.entries
        for items in (entry.source.rejected(), *(part.documents() for part in entry.source.parts()))
        for item in items
    ]


def test_every_folder_of_data_is_a_source(tmp_path: Path) -> None:
    put(
        tmp_path,
        "data/math/a.txt",
        "data/general/b.md",
        "data/dialog/c.jsonl",
        "data/stats/d.txt",
        "data/welding/e.txt",
    )
    put(tmp_path, "data/.cache/x.txt", "data/.DS_Store")
    made = plan(tmp_path)
    assert described(made) == [
        ("dialog", "dialog", "files"),
        ("general", "general", "files"),
        ("math", "domain", "files"),
        ("stats", "domain", "files"),
        ("welding", "domain", "files"),
    ]
    assert (made.dummy, made.fallback_used, made.missing_groups) == (False, False, ())
    assert made.ratios == {"domain": 0.6, "general": 0.3, "dialog": 0.1}
    assert [entry.config.path for entry in made.entries[:2]] == ["data/dialog", "data/general"]
    assert everything(made)[1] == Document("b.md", "A text.", end=7)


def test_a_folder_of_many_formats_is_one_source(tmp_path: Path) -> None:
    put(tmp_path, "data/math/a.txt", "data/math/deep/b.jsonl", "data/math/c.docx")
    made = plan(tmp_path)
    assert described(made) == [("math", "domain", "files")]
    assert [(item.origin, isinstance(item, Document)) for item in everything(made)] == [
        ("c.docx", False),
        ("a.txt", True),
        ("deep/b.jsonl", True),
    ]


def test_a_folder_of_data_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    put(tmp_path, "disk/corpus/a.txt")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/general").symlink_to(tmp_path / "disk/corpus")
    assert described(plan(tmp_path)) == [("general", "general", "files")]


def test_the_shares_of_missing_groups_go_to_the_others(tmp_path: Path) -> None:
    put(tmp_path, "data/math/a.txt", "data/general/b.txt")
    made = plan(tmp_path)
    assert made.missing_groups == ("dialog",)
    assert made.ratios == pytest.approx({"domain": 2 / 3, "general": 1 / 3, "dialog": 0.0}, rel=1e-12)
    assert plan(tmp_path, domain_ratio=0.5, general_ratio=0.5, dialog_ratio=0).missing_groups == ()


def test_missing_groups_are_an_error_where_the_settings_say_so(tmp_path: Path) -> None:
    put(tmp_path, "data/math/a.txt")
    with pytest.raises(DataError) as caught:
        plan(tmp_path, missing_group="error")
    assert caught.value.where == "data"
    assert caught.value.found == "there is no text for general and dialog, and data.missing_group is 'error'."
    assert "set general_ratio and dialog_ratio to 0, or set missing_group: renormalize." in caught.value.remedy


def test_text_for_a_group_of_share_0_alone_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "data/general/a.txt")
    with pytest.raises(
        DataError, match=r"data: there is text for general only, whose ratio is 0. Raise data.general_ratio"
    ):
        plan(tmp_path, domain_ratio=0.9, general_ratio=0, dialog_ratio=0.1)


def test_without_any_text_the_fallback_is_the_documentation_of_packages(tmp_path: Path) -> None:
    made = plan(tmp_path, fallback="package_docs")
    assert described(made) == [
        ("math", "domain", "package_docs"),
        ("stats", "domain", "package_docs"),
        ("engineering", "domain", "package_docs"),
        ("general", "general", "package_docs"),
        ("dialog", "dialog", "problems"),
    ]
    assert made.entries[-1].config.options == {"count": 20000}
    assert (made.dummy, made.fallback_used, made.missing_groups) == (False, True, ())


def test_without_any_text_the_default_fallback_is_random_words_and_says_so(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert described(made) == [
        ("dummy_domain", "domain", "dummy"),
        ("dummy_general", "general", "dummy"),
        ("dummy_dialog", "dialog", "dummy"),
    ]
    assert (made.dummy, made.fallback_used) == (True, True)
    firsts = {next(iter(entry.source.parts()[0].documents())) for entry in made.entries}
    assert len(firsts) == 3  # equal documents would be dropped as duplicates


def test_named_sources_win_over_folders(tmp_path: Path) -> None:
    put(tmp_path, "data/math/a.txt", "texts/book/b.txt", "rows.jsonl")
    sources = [
        {"kind": "text_files", "path": "texts/book/", "group": "general"},
        {"kind": "jsonl", "path": str(tmp_path / "rows.jsonl"), "options": {"text_field": "text"}},
        {"kind": "dummy", "group": "dialog", "options": {"documents": 3}, "name": "noise"},
    ]
    made = plan(tmp_path, sources=sources)
    assert described(made) == [
        ("book", "general", "text_files"),
        ("rows.jsonl", "domain", "jsonl"),
        ("noise", "dialog", "dummy"),
    ]
    assert (made.dummy, made.fallback_used) == (True, False)
    assert [item.origin for item in everything(made)] == ["b.txt", "rows.jsonl", *["dummy"] * 3]


def test_exclude_reaches_every_source_that_reads_files(tmp_path: Path) -> None:
    put(tmp_path, "t/a.txt", "t/draft_a.txt", "t/old.txt", "r/a.jsonl", "r/draft_a.jsonl")
    sources = [
        {"kind": "text_files", "path": "t", "options": {"exclude": ["old*"]}},
        {"kind": "jsonl", "path": "r"},
        {"kind": "dummy", "options": {"documents": 2}},
    ]
    made = plan(tmp_path, sources=sources, exclude=["**/draft_*"])
    read = [item.origin for item in everything(made) if isinstance(item, Document)]
    assert read[:2] == ["a.txt", "a.jsonl"]
    assert set(read[2:]) == {"dummy"}
    assert made.entries[0].config.options == {"exclude": ["**/draft_*", "old*"]}
    put(tmp_path, "data/math/a.txt", "data/math/draft_b.jsonl")
    (math,) = plan(tmp_path, exclude=["**/draft_*"]).entries
    assert math.config.options == {"exclude": ["**/draft_*"]}
    assert [item.rule for item in math.source.rejected()] == ["excluded"]


def test_whether_encodings_are_mended_reaches_every_reader_unless_the_source_says_otherwise(tmp_path: Path) -> None:
    put(tmp_path, "t/a.txt")
    own = {"mend_encoding": True}
    sources: list[dict[str, Any]] = [
        {"kind": "files", "path": "t"},
        {"kind": "files", "path": "t", "options": {"reader_options": {"text": own, "jsonl": {"text_field": "body"}}}},
        {"kind": "text_files", "path": "t"},
        {"kind": "text_files", "path": "t", "options": own},
        {"kind": "dummy", "options": {"documents": 2}},
    ]
    made = plan(tmp_path, sources=sources, cleaning={"mend_encoding": False})
    options = [entry.config.options for entry in made.entries]
    assert options[0]["reader_options"]["text"] == options[0]["reader_options"]["jsonl"] == {"mend_encoding": False}
    assert options[1]["reader_options"]["text"] == own
    assert options[1]["reader_options"]["jsonl"] == {"mend_encoding": False, "text_field": "body"}
    assert options[2:] == [{"mend_encoding": False}, own, {"documents": 2}]
    (tmp_path / "t/a.txt").write_text("cafÃ©", encoding="utf-8")
    made = plan(tmp_path, sources=sources, cleaning={"mend_encoding": False})
    texts = [item.text for item in everything(made) if isinstance(item, Document) and item.origin == "a.txt"]
    assert texts == ["cafÃ©", "café", "cafÃ©", "café"]
    untouched = plan(tmp_path, sources=sources)
    assert [entry.config.options for entry in untouched.entries][:3:2] == [{}, {}]


def test_files_beside_the_folders_are_an_error_that_says_where_they_belong(tmp_path: Path) -> None:
    put(tmp_path, "data/math/a.txt", *(f"data/{name}.txt" for name in "abcde"))
    with pytest.raises(DataError) as caught:
        plan(tmp_path)
    assert caught.value.where == str(tmp_path / "data")
    assert caught.value.found == "files lie directly in it (a.txt, b.txt, c.txt and 2 more)."
    assert caught.value.remedy == "Put them into data/<group>/, such as data/math/, or take them away."


def test_an_empty_data_folder_is_an_error_and_never_replaced_by_the_fallback(tmp_path: Path) -> None:
    (tmp_path / "data/.hidden").mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"data: the folder is empty. Put text into data/<group>/, such as data/math/, or"
    ):
        plan(tmp_path)


def test_an_empty_folder_among_full_ones_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "data/math/a.txt")
    (tmp_path / "data/stats").mkdir()
    with pytest.raises(DataError, match=r"data/stats: the folder is empty. Put text into it"):
        plan(tmp_path)


def test_a_folder_of_what_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    put(tmp_path, "data/math/a.txt", "data/stats/b.docx", "data/stats/c.docx")
    with pytest.raises(DataError, match=r"data/stats: nothing in it is text; it holds 2 .docx. Convert these files"):
        plan(tmp_path)


def test_a_named_folder_that_is_not_there_is_no_reason_for_random_words(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        plan(tmp_path, data_dir="corpsu")
    assert caught.value.where == str(tmp_path / "corpsu")
    assert caught.value.found == "data.data_dir names it, and there is no such folder."
    assert caught.value.remedy == "Correct data.data_dir, or leave it out to use the fallback."


def test_data_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "data")
    with pytest.raises(
        DataError, match=r"it is a file, and data_dir is a folder. Name the file in data.sources, and a"
    ):
        plan(tmp_path)


def test_a_source_whose_path_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: there is no such file or folder. Check data.sources.path"):
        plan(tmp_path, sources=[{"kind": "text_files", "path": "nowhere"}])


def test_an_empty_list_of_sources_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.sources: the list is empty. Name a source, or leave it out"):
        plan(tmp_path, sources=[])


@pytest.mark.parametrize(
    ("source", "where", "what"),
    [
        ({"kind": "text_flies", "path": "x"}, "data.sources[1].kind", "Did you mean 'text_files'?"),
        ({"kind": "text_files"}, "data.sources[1].path", "has no path. Give it the folder or file"),
        ({"kind": "dummy", "path": "x"}, "data.sources[1].path", "reads no files. Leave path out."),
        (
            {"kind": "dummy", "options": {"wrods": 3}},
            "data.sources[1].options.wrods",
            "Options of 'dummy': documents, words",
        ),
        (
            {"kind": "text_files", "path": ".", "options": {"exclude": "x"}},
            "data.sources[1].options.exclude",
            "found 'x'",
        ),
        ({"kind": "package_docs"}, "data.sources[1].options", "names neither a collection nor packages"),
        (
            {"kind": "problems", "options": {"families": ["derivativ"]}},
            "data.sources[1].options.family",
            "'derivative'?",
        ),
        *(
            (
                {"kind": "dummy", "name": name},
                "data.sources[1].name",
                f"{name!r} cannot be part of a file's name. Use letters",
            )
            for name in ("a/b", "..", ".", "a\0b", "a\\b")
        ),
        (
            {"kind": "files", "path": ".", "options": {"formats": ["txt"]}},
            "data.sources[1].options.formats",
            "'txt' is not a format that can be read. Did you mean 'text'?",
        ),
        (
            {"kind": "files", "path": ".", "options": {"reader_options": {"jsonl": {"text_feild": "x"}}}},
            "data.sources[1].options.reader_options.jsonl.text_feild",
            "Options of 'jsonl': text_field, mend_encoding.",
        ),
    ],
)
def test_a_mistake_in_a_source_is_named_with_its_number(
    tmp_path: Path, source: dict[str, Any], where: str, what: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(tmp_path, sources=[{"kind": "dummy"}, source], exclude=["y"])
    assert caught.value.where == where
    assert what in str(caught.value)


def test_one_name_in_two_groups_is_an_error(tmp_path: Path) -> None:
    sources = [{"kind": "dummy", "group": "domain"}, {"kind": "dummy", "group": "general"}]
    with pytest.raises(
        ConfigError, match=r"data.sources: a source in domain and one in general .* 'dummy'. Give one of"
    ):
        plan(tmp_path, sources=sources)


def test_a_weight_for_no_source_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    put(tmp_path, "data/math/a.txt", "data/stats/a.txt")
    with pytest.raises(
        ConfigError, match=r"data.weights.maths: 'maths' is not the name of a source. Did you mean 'math'\?"
    ):
        plan(tmp_path, weights={"stats": 1.0, "maths": 2.0})
    with pytest.raises(ConfigError, match=r"'zzz' is not the name of a source. There are: math, stats."):
        plan(tmp_path, weights={"zzz": 2.0})
    assert plan(tmp_path, weights={"stats": 1.0, "math": 2.0}).entries


def test_the_same_settings_give_the_same_plan_and_fingerprints(tmp_path: Path) -> None:
    put(tmp_path, "data/math/a.txt", "data/dialog/c.jsonl")
    first, second = plan(tmp_path), plan(tmp_path)
    assert first == second
    assert [e.source.fingerprint() for e in first.entries] == [e.source.fingerprint() for e in second.entries]
