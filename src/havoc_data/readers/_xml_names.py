"""What the elements of MathBook/PreTeXt, DocBook and JATS are, by their local names in lower case.

pretextbook.org/doc/guide, tdg.docbook.org, jats.nlm.nih.gov. An element that is in no table here is judged by what it
holds and where it stands: see `_xml_text`.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DIVISIONS = _words("""
    acknowledgement acknowledgements appendix article bibliography book chapter colophon dedication exercises foreword
    glossary paragraphs part preface reading-questions references refsect1 refsect2 refsect3 sec sect1 sect2 sect3 sect4
    sect5 section simplesect solutions subsection subsubsection topic worksheet
""")
"""Their titles are headings."""

LABELLED = _words("""
    activity algorithm answer assumption axiom biographical claim computation conjecture convention corollary definition
    demonstration example exercise exploration fact heuristic hint historical hypothesis identity insight investigation
    lemma note observation principle problem project proof proposition question remark solution technology theorem warning
""")
"""What they are is told in print by a word before their text, with or without a title."""

PARAGRAPHS = _words("""
    attribution bibliomixed biblio caption cell description dt entry mixed-citation p para premise
    shortlicense simpara subtitle td th titleabbrev
""")
"""Whatever unknown elements they hold are part of a line."""

INLINE = _words("""
    a abbr abbrev acro acronym alert application articletitle attr b bold cite citation citetitle city delete em email
    emphasis filename firstname firstterm foreign foreignphrase givenname guilabel i init initialism insert ital italic
    option orcid personname phrase productname pubnumber pubtitle replaceable roman sc span strong surname tag
    taxon term trademark u underline uri xref ref link ulink url
""")
"""Part of a line wherever they stand."""

SOURCES = frozenset({"biblio", "biblioentry", "bibliomixed", "element-citation", "mixed-citation", "citation", "ref"})
"""In them a title is the title of something else."""

INFO = _words("""
    appendixinfo articleinfo article-meta bookinfo chapterinfo front info prefaceinfo sectioninfo title-group titlepage
""")
"""The title in them is that of what holds them."""

ITEMS = frozenset({"li", "listitem", "list-item", "member", "dd", "choice"})
ROWS = frozenset({"row", "tr"})
CELLS = frozenset({"cell", "entry", "td", "th"})

CODE = frozenset({"c", "code", "command", "kbd", "literal", "monospace", "samp", "tt", "varname"})
"""Code in a line."""
CODE_BLOCKS = _words("""
    asymptote cd console latex-image literallayout pre preformat prefigure program programlisting sageplot screen synopsis
    tikz
""")
SHELLS = frozenset({"sage", "program", "console"})
"""Hold code as input and output."""
MACROS = frozenset({"macros", "latex-preamble", "latex-image-preamble"})

FORMULAS = frozenset({"m", "mathphrase"})
DISPLAYS = frozenset({"me", "men", "md", "mdn"})
EQUATIONS = frozenset({"equation", "informalequation", "inlineequation", "disp-formula", "inline-formula"})
"""Hold a formula in one or several forms."""
INLINE_EQUATIONS = frozenset({"inlineequation", "inline-formula"})
ALTERNATIVES = frozenset({"alt", "tex-math"})

SCRIPTS = {"superscript": "^", "sup": "^", "subscript": "_", "sub": "_"}
QUOTES = {"q": ("“", "”"), "quote": ("“", "”"), "sq": ("‘", "’")}
NOTES = frozenset({"fn", "footnote"})
INDEX = frozenset({"idx", "indexterm"})
REFERENCES = {"xref": ("ref", "linkend", "rid"), "url": ("href",), "ulink": ("url",), "a": ("href",), "link": ("href",),
              "acroref": ("acro",)}  # fmt: skip
"""Where they point, in case they have no text."""

SIGNS = {
    "nbsp": " ", "mdash": "—", "ndash": "–", "ellipsis": "…", "ie": "i.e.", "eg": "e.g.", "etc": "etc.", "etal": "et al.",
    "vs": "vs.", "cf": "cf.", "ad": "AD", "bc": "BC", "am": "a.m.", "pm": "p.m.", "viz": "viz.", "circa": "c.", "nb": "N.B.",
    "ps": "P.S.", "latex": "LaTeX", "tex": "TeX", "xelatex": "XeLaTeX", "pretext": "PreTeXt", "times": "×", "solidus": "/",
    "obelus": "÷", "plusminus": "±", "minus": "−", "degree": "°", "prime": "′", "dblprime": "″", "copyright": "©",
    "registered": "®", "midpoint": "·", "swungdash": "~", "permille": "‰", "pilcrow": "¶", "section-mark": "§",
    "lq": "“", "rq": "”", "lsq": "‘", "rsq": "’", "hash": "#", "dollar": "$", "percent": "%", "ampersand": "&", "less": "<",
    "greater": ">", "lbrace": "{", "rbrace": "}", "lbracket": "[", "rbracket": "]", "langle": "⟨", "rangle": "⟩",
    "underscore": "_", "asterisk": "*", "tilde": "~", "backslash": "\\", "backtick": "`", "circumflex": "^", "br": "\n",
    "fillin": "____", "today": "",
}  # fmt: skip
"""Empty elements that stand for characters."""
