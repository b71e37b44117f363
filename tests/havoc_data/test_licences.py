from __future__ import annotations

from pathlib import Path

import pytest

from havoc_data.document import Rejected
from havoc_data.inputs import Input
from havoc_data.licences import Licences, is_licence_file, read_licences, spdx_of

MIT = "Copyright (c) 2020 A\n\nPermission is hereby granted, free of charge, to any person\nobtaining a copy of this"
BSD = "Redistribution and use in source and binary forms, with or\nwithout modification, are permitted."


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (MIT, "MIT"),
        (BSD, "BSD-2-Clause"),
        (f"{BSD} Neither the name of the copyright holder nor", "BSD-3-Clause"),
        ("                  Apache License\n             Version 2.0, January 2004", "Apache-2.0"),
        ("GNU GENERAL PUBLIC LICENSE\n  Version 2, June 1991", "GPL-2.0"),
        ("GNU GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007", "GPL-3.0"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\n  Version 2.1, February 1999", "LGPL-2.1"),
        ("GNU LESSER GENERAL PUBLIC LICENSE Version 3 ... the GNU General Public License Version 3", "LGPL-3.0"),
        ("Mozilla Public License Version 2.0", "MPL-2.0"),
        ("Creative Commons Legal Code\n\nCC0 1.0 Universal", "CC0-1.0"),
        ("Creative Commons Attribution 4.0 International Public License", "CC-BY-4.0"),
        ("Creative Commons Attribution-ShareAlike 3.0 Unported", "CC-BY-SA-3.0"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International", "CC-BY-NC-SA-4.0"),
        ("This book is CC BY-NC 4.0.", "CC-BY-NC-4.0"),
        ("see https://creativecommons.org/licenses/by/4.0/", "CC-BY-4.0"),
        ("under the terms of the GNU Free Documentation License,\nVersion 1.2", "GFDL-1.2"),
        ("GNU Free Documentation License\nVersion 1.3, 3 November 2008", "GFDL-1.3"),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        ("PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2", "PSF-2.0"),
        ("# SPDX-License-Identifier: EUPL-1.2\nSome words.", "EUPL-1.2"),
        ("<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->", "MIT OR Apache-2.0"),
        ("All rights reserved.", "LicenseRef-unknown"),
        ("", "LicenseRef-unknown"),
    ],
)
def test_a_licence_is_told_by_its_words(text: str, name: str) -> None:
    assert spdx_of(text) == name


@pytest.mark.parametrize("name", ["LICENSE", "licence.txt", "COPYING", "COPYING.LESSER", "LICENSE-MIT", "Copyright.md"])
def test_licence_files_are_told_by_their_names(name: str) -> None:
    assert is_licence_file(name)


@pytest.mark.parametrize("name", ["copyright.tex", "license_plates.txt", "licensing.md", "copying machines.txt"])
def test_chapters_about_licences_are_text(name: str) -> None:
    assert not is_licence_file(name)


def inputs(folder: Path, **files: str) -> list[Input]:
    made = []
    for origin, text in files.items():
        path = folder / origin.replace("/", "_")
        path.write_text(text, encoding="utf-8")
        made.append(Input(origin, path))
    return made


def test_the_nearest_licence_file_up_the_folders_counts() -> None:
    licences = Licences({}, {"": "MIT", "book": "CC-BY-4.0", "a.zip!": "CC0-1.0"})
    assert licences.of("a.txt") == "MIT"
    assert licences.of("book/deep/b.txt") == "CC-BY-4.0"
    assert licences.of("bookshop/b.txt") == "MIT"
    assert licences.of("a.zip!/x/y.txt") == "CC0-1.0"
    assert Licences({}, {"book": "MIT"}).of("a.txt") is None


def test_a_sidecar_wins_over_licence_files_and_may_name_folders(tmp_path: Path) -> None:
    sidecar = "\n".join(
        (
            '{"path": "a.txt", "licence": "CC-BY-4.0", "source": "x"}',
            "",
            '{"path": "./deep/", "license": "CC0-1.0"}',
            '{"path": "nothing.txt"}',
        )
    )
    found, rejected = read_licences(inputs(tmp_path, LICENSE=MIT), inputs(tmp_path, **{"book/metadata.jsonl": sidecar}))
    assert rejected == ()
    assert found == Licences({"book/a.txt": "CC-BY-4.0", "book/deep": "CC0-1.0"}, {"": "MIT"})
    assert [found.of(f"book/{name}") for name in ("a.txt", "deep/x.txt", "b.txt")] == ["CC-BY-4.0", "CC0-1.0", "MIT"]


def test_broken_rows_of_a_sidecar_are_named(tmp_path: Path) -> None:
    sidecar = '{"path": "a"\n[]\n{"path": "../up", "licence": "MIT"}\n{"path": "b", "licence": 7}\n' + "[" * 100_000
    found, rejected = read_licences([], inputs(tmp_path, **{"metadata.jsonl": sidecar}))
    assert found == Licences({}, {})
    assert rejected == tuple(
        Rejected("metadata.jsonl", f"line {number} of the sidecar: {why}", rule="metadata_file")
        for number, why in (
            (1, "no valid JSON"),
            (2, "no object with a 'path'"),
            (3, "the path '../up' leads out of the folder"),
            (4, "the licence of 'b' is no text"),
            (5, "no valid JSON"),
        )
    )


def test_of_several_licence_files_in_a_folder_the_first_that_is_known_counts(tmp_path: Path) -> None:
    files = inputs(
        tmp_path, **{"x/COPYING": "words", "x/LICENSE-APACHE": "Apache License, Version 2.0", "x/LICENSE-MIT": MIT}
    )
    assert read_licences(files, [])[0].lying == {"x": "Apache-2.0"}


def test_a_licence_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_bytes(b"%PDF-1.4")
    found, rejected = read_licences([Input("LICENSE", tmp_path / "LICENSE")], [])
    assert found.lying == {"": "LicenseRef-unknown"}
    assert rejected[0].rule == "licence_file"
    assert "no licence is taken from it: it is a PDF" in rejected[0].reason


def test_a_sidecar_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    rejected = read_licences([], [Input("metadata.jsonl", tmp_path / "gone")])[1]
    assert rejected == (
        Rejected("metadata.jsonl", "it cannot be read (No such file or directory)", rule="metadata_file"),
    )
