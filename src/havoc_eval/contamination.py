"""Does a problem of the exam occur in the text that the model learnt from?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def statements_in(statements: Sequence[str], texts: Iterable[str]) -> list[str]:
    """The statements that occur in any of the texts, each once, in their order.

    An occurrence is exact, except that any run of white space equals one space. Only one text is held at a time, and
    a statement is searched in it only if every word inside the statement is a word of the text: between two spaces
    there is no other way.
    """
    folded = {statement: " ".join(statement.split()) for statement in statements}
    # The first and the last word may be parts of longer ones in the text; those in between may not.
    inner = {statement: frozenset(text.split(" ")[1:-1]) for statement, text in folded.items() if text}
    found: set[str] = set()
    for text in texts:
        words = text.split()
        known, whole = frozenset(words), " ".join(words)
        found.update(
            statement
            for statement, needed in inner.items()
            if statement not in found and needed <= known and folded[statement] in whole
        )
    return [statement for statement in dict.fromkeys(statements) if statement in found]
