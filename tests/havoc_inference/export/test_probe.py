"""The questions are fixed, and short enough for any model."""

from __future__ import annotations

from havoc_core.config import ModelConfig
from havoc_inference.export import probe


def test_there_are_two_hundred_lines_and_all_differ():
    lines = probe.lines()
    assert len(lines) == len(set(lines)) == 200
    whole = "\n".join(lines)
    for part in (
        "3.14159",
        r"\frac{a}{b}",
        "µm",
        "αβγ",
        "统计" if "统计" in whole else "統計",
        "def mean",
        "   three",
        "<|eos|>",
    ):
        assert part in whole


def test_the_longest_prompt_of_a_small_model_fills_its_context(tokenizer):
    config = ModelConfig.model_validate({"size": "nano", "vocab_size": 640, "max_seq_len": 512})
    prompts = probe.prompts(tokenizer, config)
    assert prompts.max_tokens == 512
    assert all(ids[0] == tokenizer.bos_id for ids in prompts.ids)
    assert len(prompts.ids) == 9


def test_a_large_model_is_asked_less(tokenizer):
    prompts = probe.prompts(tokenizer, ModelConfig.model_validate("havoc_7b"))
    assert (len(prompts.ids), prompts.new_tokens, prompts.max_tokens) == (5, 8, 32)


def test_a_tiny_context_has_room_for_what_follows(tokenizer):
    config = ModelConfig.model_validate({"size": "nano", "vocab_size": 640, "max_seq_len": 16})
    prompts = probe.prompts(tokenizer, config)
    assert (prompts.max_tokens, prompts.new_tokens) == (16, 8)
