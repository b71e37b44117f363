"""What the engine generates is what the plain model says, whatever the batch, the cache and the padding."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core import chat_format
from havoc_core.errors import CheckpointError, ConfigError, DataError
from havoc_core.model import place_weights
from havoc_core.models import havoc
from havoc_core.tokenizer import Tokenizer
from havoc_inference.engine import Engine, EngineOptions, batches
from havoc_inference.load import LoadedModel
from havoc_inference.request import Request
from havoc_inference.sampling import GREEDY, SamplingOptions
from havoc_inference.vocabulary import allowed_ids, stop_ids

PROMPTS = [
    [0, 300, 301],
    [0],
    [0, *range(260, 320)],
    [0, 512, 513, 514, 515, 516, 517, 518],
    [0, 3, 400, 401, 6, 5],
    [0, *range(300, 394)],  # 95 of the 96 tokens of context
]


def greedy_by_hand(loaded: LoadedModel, prompt: list[int], max_new_tokens: int) -> tuple[list[int], str]:
    """The whole text through the model for every token, without cache, padding or batch."""
    allowed = allowed_ids(loaded.tokenizer, loaded.config.vocab_size)
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < min(len(prompt) + max_new_tokens, loaded.config.max_seq_len):
            logits = loaded.model.logits(loaded.model(torch.tensor([ids]))[0, -1])
            token = int(logits.masked_fill(~allowed, -math.inf).argmax())
            if token in stop_ids(loaded.tokenizer):
                return ids[len(prompt) :], "stop"
            ids.append(token)
    return ids[len(prompt) :], "length"


def with_likely_end(loaded: LoadedModel, push: float) -> LoadedModel:
    """The same model, but the end of a text is often the most probable token."""
    weights = {name: values.clone() for name, values in loaded.model.state_dict().items()}
    weights["lm_head.weight"][loaded.tokenizer.eos_id] *= push
    model = havoc.build(loaded.config)
    place_weights(model, weights, dtype=torch.float32, device=torch.device("cpu"))
    return replace(loaded, model=model.eval())


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_the_cache_gives_what_a_full_recompute_gives(either: Engine, loaded: LoadedModel, prompt: list[int]) -> None:
    made = either.generate([prompt], replace(GREEDY, max_new_tokens=40))[0]
    assert (made.ids, made.finish_reason) == greedy_by_hand(loaded, prompt, 40)
    assert len(made.ids) >= min(20, 96 - len(prompt))  # so that the comparison compares something


def test_a_prompt_gives_the_same_alone_and_in_a_batch(either: Engine) -> None:
    options = replace(GREEDY, max_new_tokens=70)
    together = either.generate(PROMPTS, options)
    assert together == [either.generate([prompt], options)[0] for prompt in PROMPTS]
    assert sum(len(made.ids) for made in together) > 150  # so that the comparison compares something


def test_rows_that_end_at_different_times_do_not_disturb_the_others(loaded: LoadedModel) -> None:
    """Also where the longest row ends first, and its columns are dropped from the cache."""
    ending = with_likely_end(loaded, 1.5)
    prompts = [[0, *range(270, 270 + 7 * n % 80)] for n in range(1, 25)]
    made = Engine(ending).generate(prompts, replace(GREEDY, max_new_tokens=90))
    assert [(one.ids, one.finish_reason) for one in made] == [greedy_by_hand(ending, prompt, 90) for prompt in prompts]
    assert {one.finish_reason for one in made} == {"stop", "length"}
    assert len({len(one.ids) for one in made}) > 5


@pytest.mark.parametrize(("room", "step", "running"), [(1, 1, 1), (96, 5, 8), (160, 64, 3), (10_000, 3, 64)])
def test_room_and_steps_change_no_token(
    engine: Engine, loaded: LoadedModel, room: int, step: int, running: int
) -> None:
    small = Engine(
        loaded,
        EngineOptions(max_cached_tokens=room, max_step_tokens=step, max_running=running, max_scored_tokens=50),
    )
    options = replace(GREEDY, max_new_tokens=20)
    assert small.generate(PROMPTS, options) == engine.generate(PROMPTS, options)
    for got, wanted in zip(small.token_log_probs(PROMPTS), engine.token_log_probs(PROMPTS), strict=True):
        # Other shapes, another order of float32 sums: a few units in the last place of logits around 10.
        assert got == pytest.approx(wanted, abs=1e-4)


def test_the_same_seed_repeats_and_another_does_not(engine: Engine) -> None:
    options = SamplingOptions(temperature=1.0, top_k=None, top_p=None, seed=3, max_new_tokens=30)
    assert engine.generate(PROMPTS, options) == engine.generate(PROMPTS, options)
    assert engine.generate(PROMPTS, options) != engine.generate(PROMPTS, replace(options, seed=4))


def test_equal_prompts_of_one_call_draw_differently(engine: Engine) -> None:
    first, second = engine.generate([[0, 300]] * 2, SamplingOptions(temperature=1.0, max_new_tokens=30))
    assert first.ids != second.ids


def test_what_a_prompt_samples_does_not_depend_on_its_neighbours(engine: Engine) -> None:
    options = SamplingOptions(temperature=1.0, seed=9, max_new_tokens=25)
    assert engine.generate(PROMPTS, options)[0] == engine.generate([PROMPTS[0]], options)[0]


def test_no_special_or_unused_id_is_ever_generated(engine: Engine, tokenizer: Tokenizer) -> None:
    hot = SamplingOptions(temperature=50.0, top_k=None, top_p=None, max_new_tokens=90)
    made = engine.generate([[0]] * 30, hot)
    assert all(256 <= token < tokenizer.vocab_size for one in made for token in one.ids)
    assert any(one.finish_reason == "stop" for one in made)


def test_a_repetition_penalty_avoids_what_was_said(engine: Engine) -> None:
    options = replace(GREEDY, max_new_tokens=60, repetition_penalty=1e6)
    prompt = engine.generate([[0]], replace(GREEDY, max_new_tokens=20))[0].ids
    made = engine.generate([[0, *prompt]], options)[0].ids
    assert len(set(made)) == len(made)
    assert not set(made) & set(prompt)


def test_an_answer_is_the_greedy_continuation_of_the_dialog(engine: Engine, tokenizer: Tokenizer) -> None:
    dialogs = [[("user", "What is a mean?")], [("system", "Be brief."), ("user", "Σ?")]]
    prompts = [chat_format.prompt(tokenizer, dialog) for dialog in dialogs]
    made = engine.generate(prompts, replace(GREEDY, max_new_tokens=15))
    assert engine.answer(dialogs, max_new_tokens=15) == [one.text for one in made]


def test_text_is_continued_after_a_beginning_of_text(engine: Engine, tokenizer: Tokenizer) -> None:
    made = engine.generate([[tokenizer.bos_id, *tokenizer.encode("The mean")]], replace(GREEDY, max_new_tokens=15))
    assert engine.generate_text(["The mean"], max_new_tokens=15) == [made[0].text]


@given(st.lists(st.integers(0, 300)), st.integers(1, 1000))
def test_every_text_is_in_one_batch_and_every_batch_within_the_bound(widths: list[int], max_tokens: int) -> None:
    made = batches(widths, max_tokens=max_tokens)
    assert sorted(index for batch in made for index in batch) == list(range(len(widths)))
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(widths[index] for index in batch) <= max_tokens


def test_the_widest_go_first_and_together() -> None:
    assert batches([1, 9, 2, 10], max_tokens=20) == [[3, 1], [2, 0]]


def test_scores_are_those_of_the_plain_model_and_name_the_most_probable(either: Engine) -> None:
    rows = [*PROMPTS, [0, *range(300, 396)]]
    for row, scores, wanted in zip(rows, either.score(rows, num_top=3), either.token_log_probs(rows), strict=True):
        assert scores[0] is None
        assert [score.id for score in scores[1:] if score] == row[1:]
        # float32, other shapes of the same sums: logits are around 10
        assert [score.log_prob for score in scores[1:] if score] == pytest.approx(wanted, abs=1e-4)
        for score in scores[1:]:
            assert score is not None
            assert len(score.top) == 3
            assert score.top == tuple(sorted(score.top, key=lambda one: -one[1]))
            assert score.log_prob <= score.top[0][1]


def test_a_text_of_one_token_has_nothing_to_score(either: Engine) -> None:
    assert either.score([[0]]) == [[None]]
    assert either.score([]) == []


def test_embeddings_are_means_of_hidden_states_of_length_one(engine: Engine, loaded: LoadedModel) -> None:
    (first, second) = engine.embed([PROMPTS[0], PROMPTS[2]])
    with torch.no_grad():
        mean = loaded.model(torch.tensor([PROMPTS[0]]))[0].mean(0)
    assert first == pytest.approx((mean / mean.norm()).tolist(), abs=1e-6)
    assert math.hypot(*second) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ConfigError, match=r"row 2: it has no tokens\. Leave it out"):
        engine.embed([[0], []])


def test_a_bias_for_an_id_that_does_not_exist_is_refused(engine: Engine) -> None:
    with pytest.raises(ConfigError, match=r"logit_bias: the id 640 does not exist"):
        engine.generate([[0]], replace(GREEDY, logit_bias=((640, 1.0),)))


def test_int8_without_the_compiled_decoder_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ConfigError, match=r"int8: it needs the compiled decoder, which cannot be used here"):
        Engine(loaded, EngineOptions(int8=True, compiled=False))


def test_streams_and_calls_of_one_engine_do_not_take_from_each_other(loaded: LoadedModel) -> None:
    """Regression: whoever stepped threw away what came of the others, who waited for ever."""
    engine, options = Engine(loaded), replace(GREEDY, max_new_tokens=30)
    first, second, third = (Engine(loaded).generate([prompt], options)[0].text for prompt in PROMPTS[:3])
    begun = engine.stream(PROMPTS[0], options)
    said = next(begun)
    beside = engine.stream(PROMPTS[1], options)
    said_beside = next(beside)
    assert engine.generate([PROMPTS[2]], options)[0].text == third
    said += next(begun)
    assert said_beside + "".join(beside) == second
    assert said + "".join(begun) == first


@pytest.mark.parametrize("name", ["max_cached_tokens", "max_running", "max_step_tokens", "max_scored_tokens"])
def test_room_for_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: 0 leaves room for nothing\. Use 1 or more"):
        EngineOptions(**{name: 0})


def test_fewer_than_no_scores_are_refused(engine: Engine) -> None:
    with pytest.raises(ConfigError, match=r"top_log_probs: -1 is below 0\. Use 0 for the token alone"):
        engine.check(Request((0,), GREEDY, top_log_probs=-1))


def test_log_probs_are_those_of_the_plain_model(engine: Engine, loaded: LoadedModel) -> None:
    rows = [*PROMPTS, [], [0, *range(300, 396)]]  # the last has max_seq_len + 1 ids
    got = engine.token_log_probs(rows)
    assert [len(values) for values in got] == [max(0, len(row) - 1) for row in rows]
    for row, values in zip(rows, got, strict=True):
        if values:
            with torch.no_grad():
                logits = loaded.model.logits(loaded.model(torch.tensor([row[:-1]]))[0])
            wanted = logits.double().log_softmax(-1)[torch.arange(len(row) - 1), torch.tensor(row[1:])]
            # float32 sums of logits around 10, against a softmax in float64
            assert values == pytest.approx(wanted.tolist(), abs=1e-4)


def test_a_row_without_a_second_token_has_no_log_probs(engine: Engine) -> None:
    assert engine.token_log_probs([[0], []]) == [[], []]
    assert engine.token_log_probs([]) == []
    assert engine.generate([], GREEDY) == []


def test_streaming_gives_the_text_of_generate(engine: Engine) -> None:
    options = SamplingOptions(temperature=3.0, top_k=None, top_p=None, max_new_tokens=80)
    for seed in range(4):
        wanted = engine.generate([[0, 300]], replace(options, seed=seed))[0].text
        assert "".join(engine.stream([0, 300], replace(options, seed=seed))) == wanted


def test_a_character_of_several_tokens_is_streamed_whole(loaded: LoadedModel, tokenizer: Tokenizer) -> None:
    """A model that says the four bytes of a face, one token each, over and over."""
    single = {piece: i for i, piece in enumerate(tokenizer.token_bytes()) if len(piece) == 1}
    face = [single[bytes([byte])] for byte in "😀".encode()]
    engine = Engine(saying(loaded, dict(zip(face, [*face[1:], face[0]], strict=True))))
    made = list(engine.stream([0, face[3]], replace(GREEDY, max_new_tokens=10)))
    assert made == ["😀", "😀", "\N{REPLACEMENT CHARACTER}"]  # the third was cut off after two of its four bytes
    assert engine.generate([[0, face[3]]], replace(GREEDY, max_new_tokens=10))[0].text == "".join(made)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_pieces_of_any_bytes_join_to_the_decoded_text(loaded: LoadedModel, data: st.DataObject) -> None:
    known = st.integers(256, loaded.tokenizer.vocab_size - 1)
    ids = data.draw(st.lists(known, min_size=2, max_size=12, unique=True))
    engine = Engine(saying(loaded, dict(pairwise(ids))))
    pieces = list(engine.stream([0, ids[0]], replace(GREEDY, max_new_tokens=len(ids) - 1)))
    assert "".join(pieces) == loaded.tokenizer.decode(ids[1:])
    assert all(pieces)


def saying(loaded: LoadedModel, follows: dict[int, int]) -> LoadedModel:
    """The shape of `loaded` with a wider stream: blocks add nothing, token a is followed by token follows[a]."""
    config = loaded.config.model_copy(update={"d_model": loaded.config.vocab_size})
    model = havoc.build(config)
    weights = {name: torch.zeros(p.shape) for name, p in model.named_parameters()}
    weights["model.norm.weight"] += 1.0
    weights["model.embed_tokens.weight"] = torch.eye(config.vocab_size)
    for before, after in follows.items():
        weights["lm_head.weight"][after, before] = 1.0
    place_weights(model, weights, dtype=torch.float32, device=torch.device("cpu"))
    return replace(loaded, model=model.eval(), config=config)


def test_a_prompt_that_fills_the_context_is_refused(engine: Engine) -> None:
    with pytest.raises(ConfigError, match=r"prompt 2: it has 96 tokens; .*context of 96 has room for 95\. Shorten it"):
        engine.generate([[0], [300] * 96], GREEDY)
    with pytest.raises(ConfigError, match=r"row 1: it has 98 tokens.*room for 97\. Shorten it"):
        engine.token_log_probs([[300] * 98])


def test_an_empty_prompt_is_refused_before_anything_is_streamed(engine: Engine) -> None:
    with pytest.raises(ConfigError, match=r"prompt: it has no tokens\. Begin it with the tokenizer's BOS"):
        engine.stream([], GREEDY)


@pytest.mark.parametrize("wrong", [-1, 640])
def test_an_id_that_does_not_exist_is_refused(engine: Engine, wrong: int) -> None:
    with pytest.raises(ConfigError, match=rf"prompt 1: the id {wrong} does not exist.*640\. Encode the text"):
        engine.generate([[0, wrong]], GREEDY)


def test_a_role_that_does_not_exist_is_refused(engine: Engine) -> None:
    with pytest.raises(DataError, match=r"messages: the role 'robot' is unknown\. Use system, user, assistant"):
        engine.answer([[("robot", "hello")]], max_new_tokens=5)


@pytest.mark.parametrize("options", [GREEDY, SamplingOptions(), SamplingOptions(top_k=None, top_p=None)])
def test_a_model_without_finite_numbers_is_named(loaded: LoadedModel, options: SamplingOptions) -> None:
    weights = {name: values.clone() for name, values in loaded.model.state_dict().items()}
    weights["model.layers.0.mlp.down_proj.weight"][0, 0] = math.nan
    model = havoc.build(loaded.config)
    place_weights(model, weights, dtype=torch.float32, device=torch.device("cpu"))
    with pytest.raises(
        CheckpointError, match=r"model: its logits are not finite numbers\. .* use an earlier checkpoint"
    ):
        Engine(replace(loaded, model=model)).generate([[0]], options)


def test_bfloat16_weights_generate_too(loaded: LoadedModel) -> None:
    model = havoc.build(loaded.config)
    place_weights(model, loaded.model.state_dict(), dtype=torch.bfloat16, device=torch.device("cpu"))
    made = Engine(replace(loaded, model=model)).generate(PROMPTS, replace(GREEDY, max_new_tokens=5))
    assert [len(one.ids) for one in made] == [5, 5, 5, 5, 5, 1]
