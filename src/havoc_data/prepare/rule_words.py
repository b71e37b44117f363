"""The words and phrases that the rules look for."""

from __future__ import annotations

from collections.abc import Mapping

STOP_WORDS = (
    *("the", "of", "and", "to", "in", "is", "that", "for", "are", "with", "as", "be", "this", "it", "by", "or", "from"),
    *("an", "on", "not", "if", "we", "return", "can", "you", "def", "import"),
    *(
        "der",
        "die",
        "das",
        "und",
        "ist",
        "ein",
        "eine",
        "nicht",
        "mit",
        "von",
        "zu",
        "den",
        "für",
        "auf",
        "dass",
        "wir",
    ),
    *("le", "la", "les", "des", "et", "est", "une", "dans", "que", "pour", "par", "sur", "qui", "pas", "du", "nous"),
    *("el", "los", "las", "del", "y", "es", "en", "una", "por", "con", "para", "como", "se", "lo"),
    *("il", "di", "che", "un", "per", "della", "sono", "non", "si", "nel", "alla"),
    *("het", "een", "van", "dat", "niet", "op", "te", "zijn", "met", "da", "do", "em", "uma", "não", "ao", "na"),
)
"""Frequent words of seven languages and of programs; the most frequent first, since few are looked for."""
BOILERPLATE: Mapping[str, tuple[str, ...]] = {
    "cookies": ("use cookies", "uses cookies", "use of cookies", "accept cookies", "our cookies", "all cookies"),
    "cookie": ("cookie policy", "cookie settings", "cookie preferences"),
    "privacy": ("privacy policy", "privacy notice"),
    "terms": ("terms of use", "terms of service", "terms and conditions", "terms & conditions"),
    "rights": ("all rights reserved",),
    "javascript": ("enable javascript", "javascript is disabled", "javascript must be", "requires javascript"),
    "browser": ("your browser",),
    "us": ("about us", "contact us", "follow us"),
    "in": ("log in", "sign in"),
    "password": ("forgot password", "forgot your password"),
    "account": ("my account", "your account", "create an account"),
    "cart": ("add to cart", "shopping cart"),
    "read": ("read more",),
    "click": ("click here",),
    "skip": ("skip to content", "skip to main"),
    "leave": ("leave a comment", "leave a reply"),
    "related": ("related posts", "related articles"),
    "mentions": ("mentions légales",),
    **{
        word: (word,)
        for word in (
            *("login", "newsletter", "subscribe", "unsubscribe", "sitemap", "advertisement", "sponsored"),
            *("wishlist", "basket", "datenschutz", "impressum"),
        )
    },
}
"""What surrounds the text of web pages: the rarest word of a phrase, and the phrases."""
TELLTALES = {f"{word}{end}": phrases for word, phrases in BOILERPLATE.items() for end in ("", ".", ",", "!", "?", ":")}
"""A word as it stands between blanks, and the phrases that it may belong to."""
FILLER = frozenset(
    (
        *("lorem", "ipsum", "dolor", "sit", "amet", "consectetur", "adipiscing", "elit", "sed", "do", "eiusmod", "et"),
        *("tempor", "incididunt", "ut", "labore", "dolore", "magna", "aliqua", "enim", "ad", "minim", "veniam", "quis"),
        *("nostrud", "exercitation", "ullamco", "laboris", "nisi", "aliquip", "ex", "ea", "commodo", "consequat"),
    )
)
"""Words of lorem ipsum."""
