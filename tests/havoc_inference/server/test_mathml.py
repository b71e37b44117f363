"""Formulas in LaTeX -> MathML."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

pytest.importorskip("latex2mathml", reason="the extra `serve` is not installed")

from havoc_inference.server.mathml import from_latex


def tree(formula, *, display=False):
    found = from_latex(formula, display=display)
    assert found is not None
    return ElementTree.fromstring(found)


def test_a_formula_of_the_field_is_what_it_says():
    root = tree("\\hat\\beta = (X^\\top X)^{-1} X^\\top y")
    assert "".join(root.itertext()) == "β^=(X⊤X)−1X⊤y"
    assert root.attrib == {"display": "inline"}
    assert tree("x", display=True).attrib == {"display": "block"}


@pytest.mark.parametrize("formula", ["\\text{<b onclick=x>}", "\\text{&lt;b&gt;}", "\\mathrm{<script>}"])
def test_what_stands_in_a_formula_is_text(formula):
    assert {element.tag for element in tree(formula).iter()} <= {"math", "mrow", "mtext", "mi", "mo"}


def test_links_styles_and_classes_do_not_come_through():
    for formula in ("\\href{javascript:alert(1)}{x}", "\\style{color:red}{x}", "\\class{a}{x}"):
        for element in tree(formula).iter():
            assert not element.attrib.keys() & {"href", "style", "class"}


@pytest.mark.parametrize("formula", ["\\rule{99999em}{9999em}", "\\hspace{12345em}x"])
def test_nothing_is_wider_than_a_page(formula):
    for element in tree(formula).iter():
        assert not any("999" in value or "123" in value for value in element.attrib.values())


@pytest.mark.parametrize(
    "formula", ["", "  ", "{", "\\frac{a}", "a_b_c", "\\left(", "\\newcommand{\\a}{b}\\a", "{" * 2_000]
)
def test_what_cannot_be_read_is_none(formula):
    assert from_latex(formula, display=False) is None
