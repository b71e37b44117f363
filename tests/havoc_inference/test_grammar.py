"""Answers with a schema are JSON that fits it, whatever the model would say."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core.errors import ConfigError, MissingPackageError
from havoc_inference.engine import Engine
from havoc_inference.grammar import ANY_OBJECT, JsonGrammars
from havoc_inference.load import LoadedModel
from havoc_inference.request import Request
from havoc_inference.sampling import GREEDY, SamplingOptions
from havoc_inference.vocabulary import Vocabulary

SCHEMA = {
    "type": "object",
    "properties": {
        "mean": {"type": "integer", "minimum": 0, "maximum": 999},
        "unit": {"enum": ["mm", "Σ"]},
        "signals": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["mean", "unit", "signals"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def grammars(loaded: LoadedModel) -> JsonGrammars:
    return JsonGrammars(Vocabulary.of(loaded.tokenizer, loaded.config.vocab_size))


def test_a_model_that_knows_no_json_answers_in_json(engine: Engine) -> None:
    """Random weights at a high temperature, with others beside it that are free."""
    options = SamplingOptions(temperature=2.0, top_k=None, top_p=None, max_new_tokens=90)
    bound = [Request((0, 300), replace(options, seed=seed), json_schema=json.dumps(SCHEMA)) for seed in range(12)]
    free = [replace(request, json_schema=None) for request in bound]
    answers = engine.complete([*bound, *free])
    texts = ["".join(piece.text for piece in pieces) for pieces in answers]
    for text, pieces in zip(texts[:12], answers, strict=False):
        if pieces[-1].finish_reason == "stop":
            jsonschema.validate(json.loads(text), SCHEMA)
    assert sum(pieces[-1].finish_reason == "stop" for pieces in answers[:12]) >= 10
    assert texts[12:] == ["".join(piece.text for piece in pieces) for pieces in engine.complete(free)]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_draw_from_what_is_allowed_is_an_object(loaded: LoadedModel, grammars: JsonGrammars, seed: int) -> None:
    vocabulary = Vocabulary.of(loaded.tokenizer, loaded.config.vocab_size)
    constraint = grammars.constraint('{"type": "object", "additionalProperties": {"type": "boolean"}}')
    generator, ids = torch.Generator().manual_seed(seed), []
    while len(ids) < 200:
        allowed = ~(constraint.forbidden() | vocabulary.forbidden)
        assert allowed.any()
        token = int(torch.multinomial(allowed.float(), 1, generator=generator))
        if token in vocabulary.ends:
            assert isinstance(json.loads(loaded.tokenizer.decode(ids)), dict)
            return
        constraint.take(token)
        ids.append(token)


def test_a_text_may_end_only_where_its_grammar_ends(loaded: LoadedModel, grammars: JsonGrammars) -> None:
    constraint = grammars.constraint(ANY_OBJECT)
    ends = sorted(Vocabulary.of(loaded.tokenizer, 640).ends)
    assert constraint.forbidden()[ends].all()
    for token in loaded.tokenizer.encode("{}"):
        constraint.take(token)
    forbidden = constraint.forbidden()
    assert not forbidden[ends].any()
    assert forbidden.sum() == len(forbidden) - len(ends)


def test_a_grammar_that_breaks_leaves_nothing_but_the_end_and_says_so(
    loaded: LoadedModel, grammars: JsonGrammars
) -> None:
    """A limit of the library is forced by a token that was forbidden, which no text that is drawn has."""
    vocabulary = Vocabulary.of(loaded.tokenizer, loaded.config.vocab_size)
    constraint = grammars.constraint(ANY_OBJECT)
    assert not constraint.is_broken
    constraint.take(loaded.tokenizer.encode("]")[0])
    assert constraint.is_broken
    assert (~constraint.forbidden()).nonzero().flatten().tolist() == sorted(vocabulary.ends)


def test_multiples_are_refused_before_they_take_all_memory(grammars: JsonGrammars) -> None:
    """Regression: {"multipleOf": 99999989} took 20 GB and a minute."""
    for schema in ({"multipleOf": 99999989}, {"properties": {"a": {"anyOf": [{"multipleOf": 7}]}}}):
        with pytest.raises(ConfigError, match="multipleOf: what follows it grows"):
            grammars.constraint(json.dumps(schema))
    named = {"type": "object", "properties": {"multipleOf": {"type": "integer"}}}
    assert grammars.constraint(json.dumps(named))


def test_a_schema_is_read_once_for_many_texts_and_a_large_one_not_at_all(grammars: JsonGrammars) -> None:
    large = json.dumps({"enum": [f"value {number}" for number in range(1_200)]})
    first, second = grammars.constraint(large), grammars.constraint(large)
    first.take(int((~first.forbidden()).nonzero()[0]))
    assert not torch.equal(first.forbidden(), second.forbidden())  # each goes its own way
    with pytest.raises(ConfigError, match="20,000 are the limit"):
        grammars.constraint(json.dumps({"description": "x" * 20_000}))


@pytest.mark.parametrize(
    "schema", ['{"type": "nothing"}', "[1", "3", '{"type": "string", "pattern": "("}', '{"not": {}}', "[" * 5000]
)
def test_what_is_no_schema_or_cannot_be_followed_is_refused(engine: Engine, schema: str) -> None:
    with pytest.raises(ConfigError, match=r"json_schema: it cannot be followed \(.*\)\. Send a JSON schema"):
        engine.check(Request((0,), GREEDY, json_schema=schema))


def test_without_the_package_the_extra_is_named(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingPackageError, match=r"package llguidance is not installed.*havoc\[serve\]"):
        JsonGrammars(Vocabulary.of(loaded.tokenizer, loaded.config.vocab_size))
