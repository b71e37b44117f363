"""Random words: something to run on where there is no text at all. Nothing can be learnt from it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from havoc_core.config import Positive, Section
from havoc_data.document import Document, Rejected
from havoc_data.source import WholeSource
from havoc_data.sources._files import refuse_path

_ALPHABET = "abcdefghijkl"


class Options(Section):
    """Settings of this kind of source."""

    documents: Positive = 2000
    """How many documents."""
    words: Positive = 200
    """Words in each."""
    seed: int = 0
    """Another seed, other words."""


def build(path: str | None, options: Options) -> Dummy:
    """Random words; the same for the same options on every machine.

    Raises:
        ConfigError: there is a path.
    """
    refuse_path("dummy", path)
    return Dummy(options)


@dataclass(frozen=True)
class Dummy:
    """Documents of random words. A `Source`."""

    options: Options
    """How many, how long, which."""

    def parts(self) -> tuple[WholeSource, ...]:
        """All in one."""
        return (WholeSource("dummy", None, self.options.model_dump(), self.fingerprint()),)

    def rejected(self) -> tuple[Rejected, ...]:
        """Nothing."""
        return ()

    def documents(self) -> Iterator[Document | Rejected]:
        """One document after another, of words of two to seven letters."""
        for ordinal in range(self.options.documents):
            # Of Python's generator only random() promises the same numbers in every version.
            draw = random.Random(f"havoc dummy {self.options.seed} {ordinal}").random
            words = (
                "".join(_ALPHABET[int(draw() * len(_ALPHABET))] for _ in range(2 + int(draw() * 6)))
                for _ in range(self.options.words)
            )
            yield Document("dummy", " ".join(words), ordinal=ordinal)

    def fingerprint(self) -> str:
        """Hex digest of the options."""
        return hashlib.blake2b(f"dummy 1 {self.options.model_dump_json()}".encode(), digest_size=16).hexdigest()
