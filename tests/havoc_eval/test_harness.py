"""lm-eval's view of a model, on one whose numbers are known."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

pytest.importorskip("lm_eval", reason="the extra `eval` is not installed")

from havoc_core.errors import ConfigError, MissingPackageError
from havoc_eval.harness import HarnessOptions, adapter, run

pytestmark = pytest.mark.filterwarnings("ignore")


class Model:
    """Token t has log-probability -t / 1000, and is the most probable one where it is even."""

    def __init__(self, tokenizer, max_seq_len=64):
        self.tokenizer = tokenizer
        self.max_seq_len = max_seq_len
        self.rows = []
        self.asked = []

    def scores(self, rows):
        self.rows += rows
        return [[(-token / 1000, token % 2 == 0) for token in row[1:]] for row in rows]

    def go_on(self, rows, *, stop, max_new_tokens):
        self.asked += [(list(row), list(texts), max_new_tokens) for row, texts in zip(rows, stop, strict=True)]
        return [self.tokenizer.decode(row)[::-1] for row in rows]


@dataclass
class Ask:
    args: tuple


@pytest.fixture
def model(tokenizer):
    return Model(tokenizer)


def test_a_continuation_is_scored_by_its_own_tokens(model, tokenizer):
    ((value, best),) = adapter(model).loglikelihood([Ask(("ab", "cd"))], disable_tqdm=True)
    ids = tokenizer.encode("cd")
    assert value == pytest.approx(-sum(ids) / 1000)
    assert best is all(token % 2 == 0 for token in ids)
    assert model.rows == [tokenizer.encode("abcd")]


def test_an_empty_context_is_the_beginning_of_a_text(model, tokenizer):
    ((value, _),) = adapter(model).loglikelihood([Ask(("", "ab"))], disable_tqdm=True)
    assert model.rows == [[tokenizer.bos_id, *tokenizer.encode("ab")]]
    assert value == pytest.approx(-sum(tokenizer.encode("ab")) / 1000)


def test_the_beginning_of_text_stands_before_everything_where_it_is_asked_for(model, tokenizer):
    adapter(model, add_bos=True).loglikelihood([Ask(("ab", "cd")), Ask(("", "ab"))], disable_tqdm=True)
    assert model.rows == [[tokenizer.bos_id, *tokenizer.encode(text)] for text in ("abcd", "ab")]


def test_what_is_too_long_loses_its_beginning(tokenizer):
    model = Model(tokenizer, max_seq_len=8)
    ((value, _),) = adapter(model).loglikelihood([Ask(("a" * 50, "bc"))], disable_tqdm=True)
    assert model.rows == [tokenizer.encode("a" * 50 + "bc")[-9:]], "the last one is only predicted"
    assert value == pytest.approx(-sum(tokenizer.encode("bc")) / 1000)


def test_a_rolling_score_counts_every_token_once(tokenizer):
    model = Model(tokenizer, max_seq_len=8)
    text = "The mean of a sample."
    (value,) = adapter(model, add_bos=True).loglikelihood_rolling([Ask((text,))])
    assert value == pytest.approx(-sum(tokenizer.encode(text)) / 1000)
    assert model.rows[0][0] == tokenizer.bos_id
    assert all(len(row) <= 9 for row in model.rows)


def test_answers_come_in_the_order_they_were_asked_for_with_their_stops_and_limits(model, tokenizer):
    asked = [
        Ask(("abc", {"until": ["x", ""], "max_gen_toks": 5})),
        Ask(("de", {"until": "y"})),
        Ask(("fgh", {"max_gen_toks": 5, "do_sample": False, "temperature": 0.0})),
    ]
    assert adapter(model).generate_until(asked) == ["cba", "e", "hgf"], "the second left one token of room"
    assert (tokenizer.encode("abc"), ["x"], 5) in model.asked
    assert any(stops == ["y"] and length == 63 for _, stops, length in model.asked)


def test_random_answers_are_refused(model):
    with pytest.raises(ConfigError, match="a task asks for random answers"):
        adapter(model).generate_until([Ask(("a", {"do_sample": True, "temperature": 0.7}))])


def test_a_folder_that_is_none_and_a_task_that_is_nowhere_are_named(model, tmp_path):
    with pytest.raises(ConfigError, match="is no folder. Name the folder that holds the tasks"):
        run(model, HarnessOptions(("a",), include=tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="there is no task 'a' in"):
        run(model, HarnessOptions(("a",), include=tmp_path))


def test_without_lm_eval_its_extra_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.models", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "lm_eval.evaluator", None)
    with pytest.raises(MissingPackageError, match=r"lm-eval cannot be imported .* pip install 'havoc\[eval\]'"):
        run(model, HarnessOptions(("a",)))
