"""Messages -> ids, and which of them the assistant is to learn."""

from __future__ import annotations

import pytest

from havoc_core.chat_format import has_chat_tokens, prompt, render
from havoc_core.errors import DataError
from havoc_core.tokenizer import Tokenizer
from havoc_data.prepare.train_tokenizer import train_bpe

DIALOG = [("system", "Be brief."), ("user", "2 + 2?"), ("assistant", "4 <|end|> ∎")]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(train_bpe(iter(["a dialog"]), vocab_size=520))


def test_a_dialog_is_opened_and_closed_by_its_tokens(tokenizer):
    names = {i: name for name, i in tokenizer.special.items()}
    ids = render(tokenizer, DIALOG).ids
    assert [names[i] for i in ids if i in names] == [
        "<|bos|>", "<|system|>", "<|end|>", "<|user|>", "<|end|>", "<|assistant|>", "<|end|>", "<|eos|>",
    ]  # fmt: skip
    assert tokenizer.decode(ids) == "Be brief.2 + 2?4 <|end|> ∎"


def test_the_assistants_words_and_their_end_are_marked_and_nothing_else(tokenizer):
    rendered = render(tokenizer, DIALOG)
    marked = [i for i, is_assistant in zip(rendered.ids, rendered.assistant, strict=True) if is_assistant]
    assert marked == [*tokenizer.encode("4 <|end|> ∎"), tokenizer.special["<|end|>"]]


def test_a_prompt_ends_where_the_assistant_begins(tokenizer):
    asked = prompt(tokenizer, DIALOG[:2])
    assert asked == [*render(tokenizer, DIALOG[:2]).ids[:-1], tokenizer.special["<|assistant|>"]]
    assert render(tokenizer, DIALOG).ids[: len(asked)] == asked


def test_an_unknown_role_is_refused(tokenizer):
    with pytest.raises(DataError, match="messages: the role 'robot' is unknown. Use system, user, assistant."):
        render(tokenizer, [("robot", "x")])


def test_a_tokenizer_without_role_tokens_is_refused():
    class Bare:
        bos_id, eos_id, special = 0, 1, {}

        def encode(self, text):
            return [5]

    assert not has_chat_tokens(Bare())
    with pytest.raises(
        DataError, match=r"tokenizer: it has no token <\|user\|>, which dialogs need. Use `tokenizer.kind: bpe`"
    ):
        render(Bare(), [("user", "x")])


def test_our_own_tokenizer_has_them(tokenizer):
    assert has_chat_tokens(tokenizer)
