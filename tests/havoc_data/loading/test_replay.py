"""From rows back to documents and bytes."""

from __future__ import annotations

import numpy as np
import pytest

from havoc_core.tokenizer import Tokenizer
from havoc_data.document import Span
from havoc_data.loading.loader import Loader, MixturePlan
from havoc_data.loading.replay import replay
from havoc_data.prepare.train_tokenizer import train_bpe
from havoc_data.shard_writer import ShardWriter
from havoc_data.store import SourceRecord, TokenStore, write_manifest

LINES = [
    f"The {word} of {number} values is ∑ xᵢ / n = {number / 7:.4f}, größer als 温度 😀.\n" + "\n" * (number % 5 == 0)
    for number, word in enumerate(["mean", "median", "variance", "bias", "power", "quantile"] * 40)
]
RATIOS = {"domain": 1.0}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(train_bpe(iter(LINES), vocab_size=700))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files: documents lie side by side in each, and a few bytes that belong to no document."""
    folder = tmp_path_factory.mktemp("files")
    documents = [
        "".join(LINES[i : i + size]) for i, size in ((0, 1), (1, 3), (4, 60), (64, 2), (66, 30), (96, 1), (97, 4))
    ]
    places = []
    for name, part in (("a.txt", documents[:3]), ("sub/b.md", documents[3:])):
        content = b""
        for ordinal, text in enumerate(part):
            content += "— é —\n".encode()
            places.append((name, ordinal, len(content), len(content) + len(text.encode()), text))
            content += text.encode()
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder, places


@pytest.fixture(scope="module")
def loader(files, tokenizer, tmp_path_factory):
    """Their store, in shards of a document or two, and two documents more that were converted."""
    folder = tmp_path_factory.mktemp("store")
    writer = ShardWriter(folder / "math", dtype=np.dtype("uint16"), shard_bytes=900)
    tokens = 0
    converted = [
        ("page.html", 0, 0, 5000, "".join(LINES[110:140]), []),
        ("book.tex", 0, 0, len("".join(LINES[140:143]).encode()), "".join(LINES[140:143]), [["chapter.tex", 0, 77]]),
    ]
    documents = [(*place, []) for place in files[1]] + converted
    for origin, ordinal, start, end, text, includes in documents:
        ids = np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id])
        known = {"id": f"{origin}#{ordinal}", "source": "math", "origin": origin, "ordinal": ordinal, "bytes": [start, end],
                 "licence": "MIT" if origin == "a.txt" else None}  # fmt: skip
        writer.add(ids, known | ({"includes": includes} if includes else {}))
        tokens += len(ids)
    writer.seal()
    record = SourceRecord("domain", tokens, len(documents), 0, shards=writer.shards)
    facts = {"dtype": "uint16", "ratios": RATIOS, "dummy": False, "missing_groups": [], "inputs_key": "k"}
    write_manifest(folder, sources={"math": record}, validation={}, facts=facts)
    plan = MixturePlan(RATIOS, {}, 48, "best_fit")
    token_bytes = tokenizer.token_bytes()
    return Loader(TokenStore(folder), plan, seed=1, token_bytes=token_bytes, pad_id=tokenizer.pad_id)


@pytest.fixture(scope="module")
def epoch(loader, tokenizer):
    """All rows of one epoch."""
    return replay(loader, range(loader.rows_per_epoch), token_lengths=tokenizer.token_lengths())


def text_of(tokenizer, each, fragment):
    labels = each.row.labels[fragment.first_pair : fragment.first_pair + fragment.num_pairs]
    return tokenizer.decode_bytes(labels.tolist())


def test_the_rows_are_those_of_the_loader(loader, epoch):
    rows = loader.rows(range(loader.rows_per_epoch))
    assert [each.row.hash() for each in epoch] == [row.hash() for row in rows]
    assert loader.store.training["math"].num_shards > 2


def test_the_bytes_of_the_file_are_the_text_that_was_learnt(files, tokenizer, epoch):
    folder, _ = files
    exact = 0
    for each in epoch:
        for fragment in each.fragments:
            if fragment.exact:
                (span,) = fragment.spans
                assert span.origin == fragment.origin
                content = (folder / span.origin).read_bytes()[span.start : span.end]
                assert content == text_of(tokenizer, each, fragment)
                exact += 1
    assert exact > 10


def test_an_epoch_covers_every_byte_of_every_document_once(files, epoch):
    _, places = files
    spans = sorted(
        s
        for each in epoch
        for f in each.fragments
        if f.exact
        for s in [(f.spans[0].origin, f.spans[0].start, f.spans[0].end)]
    )
    at = 0
    for origin, _, start, end, _ in sorted(places):
        while start < end:
            assert spans[at][:2] == (origin, start)
            start = spans[at][2]
            at += 1
        assert start == end
    assert at == len(spans)


def test_fragments_fill_the_row_as_its_lengths_say(epoch):
    for each in epoch:
        assert tuple(f.num_pairs for f in each.fragments) == each.row.lengths
        assert [f.first_pair for f in each.fragments] == [0, *np.cumsum(each.row.lengths)[:-1].tolist()]
        assert all(f.tokens[1] - f.tokens[0] == f.num_pairs + 1 for f in each.fragments)
        assert all(f.source == "math" for f in each.fragments)


def test_documents_are_named_with_their_licence(files, tokenizer, epoch):
    texts = {f"{origin}#{ordinal}": text for origin, ordinal, _, _, text in files[1]}
    seen = set()
    for each in epoch:
        for fragment in each.fragments:
            seen.add(fragment.document)
            assert fragment.licence == ("MIT" if fragment.origin == "a.txt" else None)
            if fragment.document in texts:
                assert text_of(tokenizer, each, fragment) in texts[fragment.document].encode()
    assert seen == {*texts, "page.html#0", "book.tex#0"}


def test_of_what_was_converted_the_whole_document_is_named(epoch):
    fragments = [f for each in epoch for f in each.fragments]
    pages = [f for f in fragments if f.origin == "page.html"]
    assert len(pages) > 1
    assert all(f.spans == (Span("page.html", 0, 5000),) and not f.exact for f in pages)
    books = [f for f in fragments if f.origin == "book.tex"]
    # Its size is that of its text by chance: with a file that was included, no byte of it can be told from another.
    assert books
    assert all(not f.exact and f.spans[1:] == (Span("chapter.tex", 0, 77),) and f.spans[0].start == 0 for f in books)


def test_some_slots_alone_give_the_same_as_among_others(loader, tokenizer, epoch):
    lengths = tokenizer.token_lengths()
    some = replay(loader, range(5, 8), token_lengths=lengths)
    assert [each.fragments for each in some] == [each.fragments for each in epoch[5:8]]
    assert [each.row.slot for each in some] == [5, 6, 7]
    assert replay(loader, range(3, 3), token_lengths=lengths) == []
