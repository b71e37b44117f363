"""The tokenizer of a run: from the training side only, trained again only if something changed."""

from __future__ import annotations

import pytest

from havoc_core.errors import ConfigError, DataError
from havoc_core.tokenizer import Tokenizer
from havoc_data.document import document_text
from havoc_data.prepare.build import collect_corpus
from havoc_data.prepare.train_tokenizer import _sample, check_fits, make_tokenizer, tokenizer_key, train_bpe


def with_tokenizer(config, **values):
    return config.model_copy(update={"tokenizer": config.tokenizer.model_copy(update=values)})


def test_it_is_trained_on_the_training_side_only(ready):
    corpus = collect_corpus(ready)
    sample = set(_sample(corpus, 200_000_000))
    for side in (True, False):
        texts = [document_text(d) for source in corpus.groups for _, d in corpus.documents(source, held_out=side)]
        assert len(texts) > 50
        assert all((text in sample) != side for text in texts)


def test_a_sample_takes_the_groups_in_the_shares_of_the_mixture(ready):
    corpus = collect_corpus(ready)
    sizes = {"domain": 0, "general": 0, "dialog": 0}
    group_of = {
        document_text(document): group
        for source, group in corpus.groups.items()
        for _, document in corpus.documents(source)
    }
    for text in _sample(corpus, 100_000):
        sizes[group_of[text]] += len(text.encode())
    assert 0.5 * 100_000 < sum(sizes.values()) < 1.2 * 100_000  # held-out documents are left out of the count
    assert sizes["domain"] > sizes["general"] > sizes["dialog"] > 0


def test_it_has_the_models_vocabulary_unless_told_otherwise(ready, tmp_path):
    corpus = collect_corpus(ready)
    assert make_tokenizer(ready, corpus, folder=tmp_path / "a").vocab_size == 600
    assert make_tokenizer(with_tokenizer(ready, vocab_size=540), corpus, folder=tmp_path / "b").vocab_size == 540


def test_it_is_trained_again_only_if_something_changed(ready, tmp_path):
    corpus, folder = collect_corpus(ready), tmp_path / "tokenizer"
    first = make_tokenizer(ready, corpus, folder=folder)
    made = (folder / "tokenizer.json").stat().st_mtime_ns
    assert make_tokenizer(ready, corpus, folder=folder).fingerprint() == first.fingerprint()
    assert (folder / "tokenizer.json").stat().st_mtime_ns == made
    key = tokenizer_key(ready, corpus.key)
    assert tokenizer_key(with_tokenizer(ready, vocab_size=540), corpus.key) != key
    assert tokenizer_key(ready, "another corpus") != key
    assert make_tokenizer(with_tokenizer(ready, vocab_size=540), corpus, folder=folder).vocab_size == 540


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}", b"\xff\x00"])
def test_one_that_is_damaged_or_missing_is_trained_again(ready, tmp_path, content):
    """Regression: its key still matched, so the remedy "havoc tokenizer train" ended in the same error."""
    corpus, folder = collect_corpus(ready), tmp_path / "tokenizer"
    first = make_tokenizer(ready, corpus, folder=folder)
    if content is None:
        (folder / "tokenizer.json").unlink()
    else:
        (folder / "tokenizer.json").write_bytes(content)
    assert make_tokenizer(ready, corpus, folder=folder).fingerprint() == first.fingerprint()
    assert Tokenizer.load(folder).fingerprint() == first.fingerprint()


def test_a_key_that_is_no_text_is_not_current(ready, tmp_path):
    corpus, folder = collect_corpus(ready), tmp_path / "tokenizer"
    first = make_tokenizer(ready, corpus, folder=folder)
    (folder / "inputs_key").write_bytes(b"\xff\xfe")
    assert make_tokenizer(ready, corpus, folder=folder).fingerprint() == first.fingerprint()
    assert (folder / "inputs_key").read_text() == tokenizer_key(ready, corpus.key)


def test_the_same_text_gives_the_same_tokenizer(ready, tmp_path):
    corpus = collect_corpus(ready)
    make_tokenizer(ready, corpus, folder=tmp_path / "a")
    make_tokenizer(ready, corpus, folder=tmp_path / "b")
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tmp_path / "b" / "tokenizer.json").read_bytes()


def test_an_existing_one_is_used_and_its_contents_count(ready, tmp_path):
    corpus = collect_corpus(ready)
    Tokenizer(train_bpe(iter(["given"]), vocab_size=530)).save(tmp_path / "given")
    given = with_tokenizer(ready, kind="huggingface", path=str(tmp_path / "given" / "tokenizer.json"))
    assert make_tokenizer(given, corpus, folder=tmp_path / "t").vocab_size == 530
    key = tokenizer_key(given, corpus.key)
    assert tokenizer_key(given, "another corpus") == key
    Tokenizer(train_bpe(iter(["another"]), vocab_size=531)).save(tmp_path / "given")
    assert tokenizer_key(given, corpus.key) != key


def test_sentencepiece_is_trained_and_loaded(ready, tmp_path):
    tokenizer = make_tokenizer(
        with_tokenizer(ready, kind="sentencepiece"), collect_corpus(ready), folder=tmp_path / "t"
    )
    assert (tmp_path / "t" / "tokenizer.model").is_file()
    assert tokenizer.decode(tokenizer.encode("the mean  of σ² ∑\n")) == "the mean  of σ² ∑\n"


def test_an_existing_one_must_be_named(ready, tmp_path):
    with pytest.raises(ConfigError, match="tokenizer.path: is null, and `kind: huggingface` .* Name a tokenizer.json."):
        make_tokenizer(with_tokenizer(ready, kind="huggingface"), collect_corpus(ready), folder=tmp_path / "t")
    with pytest.raises(DataError, match="there is no such tokenizer"):
        make_tokenizer(with_tokenizer(ready, path="nowhere.json"), collect_corpus(ready), folder=tmp_path / "t")


def test_one_that_is_larger_than_the_model_is_refused():
    tokenizer = Tokenizer(train_bpe(iter(["x"]), vocab_size=650))
    check_fits(tokenizer, 650)
    with pytest.raises(ConfigError, match="model.vocab_size: the tokenizer has 650 ids, the model 600.") as caught:
        check_fits(tokenizer, 600)
    assert "Set model.vocab_size to 768" in caught.value.remedy
