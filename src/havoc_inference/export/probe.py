"""What every export is asked: 200 lines to encode, dialogs to render, prompts to continue. Fixed, so that figures compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from havoc_core.config import ModelConfig
from havoc_core.costs import num_parameters
from havoc_core.tokenizer import Tokenizer

NEW_TOKENS = 24
"""Tokens that a runtime continues each prompt by."""
_PROMPT_TOKENS = 24
_FEW_TOKENS = 8
_FEW_PROMPTS = 4
_LONG_FLOPS = 2**34
"""Work of the longest prompt, in seconds on two slow cores. Small models read their whole context, large ones fewer and
shorter prompts: an export must not take longer than the proof is worth."""

_NUMBERS = (
    "0",
    "7",
    "42",
    "3.14159",
    "-0.5",
    "1e-7",
    "6.022e23",
    "1,234,567.89",
    "007",
    "2026-11-30",
    "0x1F",
    "½ ⅔ ²³",
)
_FORMULAS = (
    r"\frac{a}{b}", r"\int_0^\infty e^{-x^2}\,dx = \frac{\sqrt{\pi}}{2}", r"$\bar{x} \pm t_{n-1} s/\sqrt{n}$",
    r"\begin{align} y &= X\beta + \varepsilon \\ \hat\beta &= (X^TX)^{-1}X^Ty \end{align}", r"\[ \sum_{i=1}^{n} x_i \]",
    r"\mathbb{E}[X] = \mu", "x_{1}^{2}+x_{2}^{2}", r"\lim_{n\to\infty}\left(1+\frac1n\right)^n", "f'(x) = 2x", r"\% \& \_ \#",
)  # fmt: skip
_UNITS = ("9.81 m/s²", "25 °C", "3.3 kΩ", "120 µm", "1.2 kN·m", "45 MPa", "±0.05 mm", "50 Hz", "1 013 hPa", "5′ 3″")
_SCRIPTS = (
    "Ελληνικά: αβγδεζηθ Σσς", "μ = 0, σ² = 1", "Größe, Maß, Übermut", "naïve café façade", "Привет, мир", "שלום", "مرحبا",
    "हिन्दी", "ไทย", "한국어", "統計的品質管理", "实验设计与方差分析", "平均値は 3.5 です。", "😀 👩‍🔬 🇩🇪",
    "𝔸𝕓 ℝ ℤ ∀ε>0 ∃δ", "ﬁ ﬂ Å",
)  # fmt: skip
_CODE = (
    "def mean(x):\n    return sum(x) / len(x)", "for (int i = 0; i < n; ++i) { s += a[i]; }",
    "SELECT AVG(x) FROM t WHERE g='a';",
    "if x == y and not z:\n\tpass", '{"key": [1, 2.5, null]}', "lm(y ~ x1 * x2, data = d)", "<div class=\"a\">&amp;</div>",
    "https://example.org/a?b=c&d=%20", "D:\\data\\a.txt", "a  <-  c(1,2,3) # four", "```python\nprint(1)\n```",
)  # fmt: skip
_SPACES = (
    " one", "  two", "   three", "\ttab", "\n\nlines", "trailing ", "trailing  \n", "a\r\nb", "a \n b", " ", "   ", "\n",
    "a\u00a0b", "x\u3000y", "mid  dle   gaps", "\n \n \n", "end\n",
)  # fmt: skip
_WORDS = (
    "The mean of a sample is the sum of its values over their number.", "It's we're I'll they'd DON'T",
    "HTTPServer camelCase snake_case kebab-case", "!!! ??? ... --- === ***", "“quoted” ‘text’ — dash – dash",
    "A control chart has a centre line and two limits.", "e.g. i.e. cf. vs.", "(a) [b] {c} <d>", "5% of 1000 = 50", "a/b\\c|d",
)  # fmt: skip
_SPECIALS = (
    "<|eos|>",
    "<|bos|>text",
    "a<|end|>b",
    "<|user|> hello <|assistant|>",
    "<|unused_9|>",
    "<|reserved_99|>",
    "</s>",
    "<s>",
)
_KINDS = (_NUMBERS, _FORMULAS, _UNITS, _SCRIPTS, _CODE, _SPACES, _WORDS, _SPECIALS)

NUM_LINES = 200
DIALOGS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", "What is the mean of 2, 4 and 9?"),),
    (("system", "You are an engineer."), ("user", "Größe in µm?"), ("assistant", "12.5 µm"), ("user", " and\n\nnow?")),
)
"""(role, content) pairs."""
_PROMPTS = (
    "The mean of", "A control chart", "The integral of x^2 from 0 to 3 is", "def variance(values):\n", "Theorem 1. Let",
    r"\begin{align} \hat\beta &=", "The yield stress of steel is 250", "Größe und",
)  # fmt: skip


@dataclass(frozen=True)
class Prompts:
    """Ids to read and to continue."""

    ids: tuple[tuple[int, ...], ...]
    """The last is the longest: it fills the context, as far as that takes seconds."""
    new_tokens: int
    """Tokens that each is continued by."""

    @property
    def max_tokens(self) -> int:
        """Of the longest with what follows it."""
        return max(len(each) for each in self.ids) + self.new_tokens


def lines() -> list[str]:
    """Digits, LaTeX, units, Greek, CJK, code, leading spaces, what looks like special tokens: each alone, then in pairs."""
    single = [line for kind in _KINDS for line in kind]
    out = list(single)
    for distance in range(1, len(single)):
        for at in range(len(single)):
            if len(out) == NUM_LINES:
                return out
            out.append(single[at] + " " * (at % 3) + single[(at * 7 + distance) % len(single)])
    return out


def prompts(tokenizer: Tokenizer, config: ModelConfig) -> Prompts:
    """The prompts in ids, each with BOS, short enough for the model's context with `NEW_TOKENS` behind them."""
    affordable = _LONG_FLOPS // (2 * num_parameters(config))
    new = min(NEW_TOKENS, config.max_seq_len // 2, max(_FEW_TOKENS, affordable))
    room = config.max_seq_len - new
    texts = _PROMPTS if affordable >= NEW_TOKENS else _PROMPTS[:_FEW_PROMPTS]
    short = [[tokenizer.bos_id, *tokenizer.encode(text)][: min(room, _PROMPT_TOKENS)] for text in texts]
    long = _repeated(
        [tokenizer.bos_id, *tokenizer.encode(" ".join(lines()))], min(room, max(_PROMPT_TOKENS, affordable))
    )
    return Prompts(tuple(tuple(each) for each in (*short, long)), new)


def _repeated(ids: Sequence[int], length: int) -> list[int]:
    return (list(ids) * (-(-length // len(ids))))[:length]
