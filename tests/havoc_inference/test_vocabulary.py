"""What may be generated, and what ends a text."""

from __future__ import annotations

from havoc_core.tokenizer import Tokenizer
from havoc_inference.vocabulary import Vocabulary, allowed_ids, stop_ids


def test_only_text_and_ends_may_be_generated(tokenizer: Tokenizer) -> None:
    allowed = allowed_ids(tokenizer, 640)
    assert [i for i in range(256) if allowed[i]] == [1, 6]  # <|eos|> and <|end|>
    assert allowed[256 : tokenizer.vocab_size].all()
    assert not allowed[tokenizer.vocab_size :].any()
    assert stop_ids(tokenizer) == {1, 6}


def test_a_vocabulary_has_the_rows_of_the_head_and_the_bytes_of_the_tokenizer(tokenizer: Tokenizer) -> None:
    vocabulary = Vocabulary.of(tokenizer, 640)
    assert (vocabulary.size, len(vocabulary.forbidden), vocabulary.ends) == (640, 640, {1, 6})
    assert (vocabulary.forbidden == ~allowed_ids(tokenizer, 640)).all()
    assert b"".join(map(vocabulary.bytes_of, tokenizer.encode("Größe, 温度"))).decode() == "Größe, 温度"
