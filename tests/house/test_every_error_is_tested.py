"""Rule: every HavocError that src/ raises has a test that matches what it says.

A place counts as tested if a string in tests/ shares twelve characters in a row, from the start of a word, with what it
says was found or with its remedy, and no other place says the same. Words of what was found that several places share
count if as many strings quote them. Where nothing tells two places apart, one test is enough for both.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass

from havoc_core import errors

LEAST = 12
"""Characters that a test must quote. Shorter messages are quoted whole."""


@dataclass(frozen=True)
class Site:
    """A place where an error is made."""

    where: str
    fragments: tuple[str, ...]
    """What it says, as far as it is written down there."""
    num_found: int
    """So many of them, the first ones, say what was found; the others are the remedy."""

    @property
    def quotes(self) -> set[str]:
        return set().union(*map(quotes, self.fragments))

    @property
    def quotes_of_found(self) -> set[str]:
        return set().union(*map(quotes, self.fragments[: self.num_found]))


def error_names():
    def below(kind):
        return {kind.__name__}.union(*(below(child) for child in kind.__subclasses__()))

    return {name for name in below(errors.HavocError) if name in vars(errors)}


def sites(module):
    """Every place where an error is made with words of its own; where one is only passed on, there are none."""
    names = error_names()
    for function in [module.tree, *(n for n in ast.walk(module.tree) if isinstance(n, ast.FunctionDef))]:
        known = {**assigned(module.tree), **assigned(function)}
        for call in own_calls(function):
            if name_of(call.func) in names:
                arguments = [*call.args[1:], *(k.value for k in call.keywords if k.arg in {"found", "remedy"})]
                said = [list(literals(argument, known)) for argument in arguments]
                if any(said):
                    yield Site(
                        f"{module.path}:{call.lineno}", tuple(text for texts in said for text in texts), len(said[0])
                    )


def own_calls(scope):
    """Calls in a function, but not in the functions inside it."""
    for child in ast.iter_child_nodes(scope):
        if isinstance(child, ast.Call):
            yield child
        if not isinstance(child, ast.FunctionDef):
            yield from own_calls(child)


def name_of(function):
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def assigned(scope):
    """Name -> every expression that is assigned to it, outside functions of its own."""
    out = {}
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    out.setdefault(target.id, []).append(node.value)
        for name, values in assigned(node).items():
            out.setdefault(name, []).extend(values)
    return out


def literals(expression, known, depth=2):
    """Texts in an expression and in what its names stand for."""
    for node in ast.walk(expression):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = " ".join(node.value.split()).strip(" .,;:()'\"`")
            if len(text) >= 6:
                yield text
        elif isinstance(node, ast.Name) and depth and node.id in known:
            for value in known[node.id]:
                yield from literals(value, known, depth - 1)


def quotes(fragment):
    """The shortest runs of words that count as a quotation of a fragment."""
    if len(fragment) < LEAST:
        return {fragment}
    words = [match.start() for match in re.finditer(r"\S+", fragment)]
    return {fragment[start : start + LEAST] for start in words if len(fragment) - start >= LEAST}


def said_in_tests(root):
    """Strings in tests, one by one, regular expressions unescaped; docstrings say nothing."""
    texts = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        if path.parent.name not in {"house", "docs"}:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            texts += [
                " ".join(re.sub(r"\\(.)", r"\1", node.value).split())
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
            ]
    return texts


def texts_with(every, said):
    """Quotation -> number of texts that hold it. Nearly all have one length: a text is cut into all its runs of it once."""
    usual = {quote for quote in every if len(quote) == LEAST}
    runs = ({text[start : start + LEAST] for start in range(len(text) - LEAST + 1)} for text in said)
    found = Counter(quote for each in runs for quote in each & usual)
    return {quote: found[quote] if quote in usual else sum(quote in text for text in said) for quote in every}


def untested(every, said):
    """Places whose words no test quotes."""
    everywhere = Counter(quote for site in every for quote in site.quotes)
    quoted = texts_with(everywhere.keys(), said)
    for site in every:
        distinctive = {quote for quote in site.quotes if everywhere[quote] == 1} or site.quotes
        enough = any(quoted[quote] >= everywhere[quote] for quote in site.quotes_of_found)
        if not enough and not any(quoted[quote] for quote in distinctive):
            yield site


def test_every_error_that_is_raised_has_a_test_that_quotes_it(modules, root):
    every = [site for module in modules.values() for site in sites(module)]
    assert len(every) > 50, "the places are found"
    without = [f"{site.where}  {' … '.join(site.fragments)}" for site in untested(every, said_in_tests(root))]
    assert without == [], "\n" + "\n".join(without)


def test_an_error_without_a_test_is_found(parse):
    text = (
        "REMEDY = 'Take another one instead.'\n"
        "def load(x):\n"
        "    if x: raise DataError(x, f'{x} is not to be found here.', REMEDY)\n"
        "    found = 'is broken in the middle'\n"
        "    raise DataError(x, found, REMEDY)\n"
        "def again(error): raise ConfigError('x', error.found, error.remedy)\n"
    )
    every = list(sites(parse(text)))
    assert [site.where for site in every] == ["havoc_core/example.py:3", "havoc_core/example.py:5"]
    assert [site.where for site in untested(every, ["is not to be found"])] == ["havoc_core/example.py:5"]
    assert list(untested(every, ["Take another one instead"])) == every, "both say it"
    assert list(untested(every, ["3 is not to be found here", "is broken in the middle"])) == []
