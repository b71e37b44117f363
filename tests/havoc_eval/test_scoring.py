"""Nats of documents against a computation by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from havoc_core.errors import CheckpointError, DataError
from havoc_core.tokenizer import Tokenizer
from havoc_eval import scoring
from havoc_eval.held_out_text import HeldOutDocument
from havoc_eval.scoring import document_ids, score_documents, windows


@given(st.lists(st.integers(), min_size=0, max_size=60), st.integers(1, 20))
def test_every_id_but_the_first_is_predicted_once(ids: list[int], window_tokens: int) -> None:
    rows = windows(ids, window_tokens=window_tokens)
    assert [token for row in rows for token in row[1:]] == ids[1:]
    assert all(2 <= len(row) <= window_tokens + 1 for row in rows)
    assert all(before[-1] == after[0] for before, after in pairwise(rows))


def test_a_window_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token, found 0"):
        windows([1, 2], window_tokens=0)


@pytest.mark.parametrize("window_tokens", [1, 3, 4, 100])
def test_the_end_of_text_is_predicted_and_not_counted(tokenizer: Tokenizer, fake: Any, window_tokens: int) -> None:
    """Six bytes at a quarter each: 6 ln 4 nats; the end of text, at a tenth, counts for nothing."""
    probability = dict.fromkeys(range(600), 0.25) | {tokenizer.eos_id: 0.1}
    model = fake(tokenizer, probability=probability)
    (scored,) = score_documents(model, [HeldOutDocument("a", "s", text="Größ")], window_tokens=window_tokens)
    assert scored.nats == pytest.approx(6 * math.log(4))
    assert scored.num_bytes == 6
    assert sum(len(row) - 1 for row in model.rows) == 7


def test_roles_and_ends_of_messages_count_for_nothing(tokenizer: Tokenizer, fake: Any) -> None:
    letters = {tokenizer.encode(letter)[0]: p for letter, p in (("a", 0.5), ("b", 0.25), ("c", 0.125))}
    model = fake(tokenizer, probability=dict.fromkeys(range(256), 1e-6) | letters)
    dialog = HeldOutDocument("d", "s", messages=(("system", "a"), ("user", "b"), ("assistant", "cc")))
    (scored,) = score_documents(model, [dialog], window_tokens=100)
    assert scored.nats == pytest.approx((1 + 2 + 3 + 3) * math.log(2))
    assert scored.num_bytes == 4


def test_a_special_token_that_somebody_typed_is_text(tokenizer: Tokenizer, fake: Any) -> None:
    (scored,) = score_documents(fake(tokenizer), [HeldOutDocument("a", "s", text="<|eos|>")], window_tokens=50)
    assert scored.nats == pytest.approx(7 * math.log(4))


def test_many_documents_go_through_in_several_calls(tokenizer: Tokenizer, fake: Any) -> None:
    model = fake(tokenizer)
    size = scoring._TOKENS_AT_ONCE // 2
    documents = [HeldOutDocument(str(n), "s", text="x" * size) for n in range(3)]
    lengths = [(scored.id, scored.num_bytes) for scored in score_documents(model, documents, window_tokens=4096)]
    assert lengths == [("0", size), ("1", size), ("2", size)]


def test_a_probability_that_is_no_number_is_an_error(tokenizer: Tokenizer, fake: Any) -> None:
    model = fake(tokenizer, probability=math.nan)
    with pytest.raises(CheckpointError, match=r"model: it gives document 'a' a log-probability of nan\. Its weights"):
        list(score_documents(model, [HeldOutDocument("a", "s", text="x")], window_tokens=5))


def test_a_dialog_needs_tokens_for_dialogs(plain_tokenizer: Tokenizer, fake: Any) -> None:
    dialog = HeldOutDocument("d", "s", messages=(("user", "b"),))
    with pytest.raises(DataError, match=r"tokenizer: it has no token <\|user\|>"):
        list(score_documents(fake(plain_tokenizer), [dialog], window_tokens=5))


def test_a_text_is_scored_between_its_ends(plain_tokenizer: Tokenizer) -> None:
    ids = document_ids(plain_tokenizer, HeldOutDocument("a", "s", text="ab"))
    assert (ids[0], ids[-1]) == (plain_tokenizer.bos_id, plain_tokenizer.eos_id)
    assert plain_tokenizer.decode(ids) == "ab"
