"""Which language a text is in, by py3langid: a small model inside the package, 70 or more languages, nothing to download."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from havoc_core.errors import MissingPackageError

UNDETERMINED = "und"
"""ISO 639-2 for a text whose language cannot be told."""
_READ_CHARACTERS = 16_000
_SAMPLE_CHARACTERS = 2_000
_LEAST_BYTES = 20
# Formulas and code look like English, or like nothing; each pattern ends where it may not go on, so a search is one pass.
_NO_PROSE = re.compile(
    r"```[^`]*(?:```|$)"
    r"|\$\$[^$]*(?:\$\$|$)"
    r"|\$[^$\n]{1,200}\$"
    r"|\\begin\{(?:equation|align|gather|multline|verbatim|lstlisting|tabular|array)\*?\}.{0,4000}?\\end\{"
    r"|\\\[.{0,2000}?\\\]|\\\(.{0,400}?\\\)"
    r"|`[^`\n]{1,200}`"
    r"|<[^<>\n]{1,200}>"
    r"|\\[A-Za-z]+\*?|://\S+|&[a-z]{1,10};",
    re.DOTALL,
)
_LETTERS = re.compile(r"[^\W\d_]+")


def identify(text: str) -> tuple[str, float]:
    """The language of a text, told from its first 2,000 characters or so of prose.

    Formulas, code and markup are left out; depends on nothing but the text.

    Returns:
        (ISO 639-1 code such as "en", probability in [0, 1] to three digits); ("und", 0.0) where there are fewer than
        20 bytes of letters.

    Raises:
        MissingPackageError: py3langid is not installed.
    """
    sample = _NO_PROSE.sub(" ", text[:_READ_CHARACTERS])[:_SAMPLE_CHARACTERS]
    words = _LETTERS.findall(sample)
    if len("".join(words).encode("utf-8", "surrogatepass")) < _LEAST_BYTES:
        return UNDETERMINED, 0.0
    language, probability = _identifier().classify(" ".join(words))
    # Three digits, since the last ones of a float32 product differ between processors.
    return str(language), round(min(1.0, float(probability)), 3)


@cache
def _identifier() -> Any:
    """Loaded once in each process; takes about half a second."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise MissingPackageError(
            "data.cleaning.languages",
            "the package py3langid, which tells languages apart, is not installed.",
            "Install it: pip install 'havoc[formats]', or set data.cleaning.languages to [].",
        ) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
