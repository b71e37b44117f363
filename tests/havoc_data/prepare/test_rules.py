from __future__ import annotations

import base64
import hashlib
import inspect
import random
import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core.config import RulesConfig
from havoc_data.prepare.rules import Finding, describe, judge

RULES = RulesConfig()
OFF = RulesConfig.model_validate(dict.fromkeys(RulesConfig.model_fields))
NAMES = list(RulesConfig.model_fields)
DRAW = random.Random(1)
PROSE = (
    "The mean of a sample is the sum of its values divided by how many there are.\n"
    "It is pulled towards values that lie far away, which the median is not.\n"
)


def fired(text: str, rules: RulesConfig = RULES) -> list[str]:
    return [finding.rule for finding in judge(text, rules)]


def only(rule: str) -> RulesConfig:
    return RulesConfig.model_validate({**dict.fromkeys(NAMES), rule: getattr(RULES, rule)})


def noise(letters: str, length: int) -> str:
    return "".join(DRAW.choice(letters) for _ in range(length))


def hex_dump(data: bytes) -> str:
    rows = [data[start : start + 16] for start in range(0, len(data), 16)]
    return "\n".join(
        f"{16 * i:08x}  " + " ".join(f"{byte:02x}" for byte in row) + "  |....|" for i, row in enumerate(rows)
    )


WORDS = [
    *("ocean", "paper", "river", "stone", "music", "garden", "silver", "window"),
    *("orange", "yellow", "market", "planet", "doctor", "winter", "summer", "bridge"),
]
HEADLINES = [f"{' '.join(DRAW.sample(WORDS, 7)).capitalize()}" for _ in range(30)]
BYTES = DRAW.randbytes(3000)
JUNK = {
    "menu": "Home\nProducts\nServices\nAbout us\nBlog\nCareers\nPress\nPartners\nSupport\nContact\nLogin\nRegister\nSearch\nShop",
    "menu in one line": "Home | Products | Services | News & Events | Gallery | Team | Careers | Press | Partners | Support | Contact | Imprint",
    "menu with bullets": "\n".join(f"- [{a} {b}](/{a})" for a, b in zip(WORDS, WORDS[1:], strict=False)),
    "breadcrumbs": "Home > Shop > Men > Shoes > Sale\nHome > Shop > Women > Bags > New\nHome > Shop > Kids > Toys > Games > Puzzles and Cards",
    "cookie banner": "We use cookies to improve your experience. Accept all. Manage preferences. Read our privacy policy and cookie policy.",
    "foot of a page": "© 2024 Acme Inc. All rights reserved.\nPrivacy policy | Terms of use | Sitemap | Contact us\nSubscribe to our newsletter!",
    "login wall": "Please log in to continue reading this article.\nForgot your password?\nNot a member yet? Sign up or log in with mail.\n",
    "no script": "Please enable JavaScript to view this page.\nYour browser is out of date or JavaScript is disabled in your browser.",
    "keyword spam": "buy cheap shoes online best cheap shoes sale discount shoes buy cheap shoes online free shoes delivery "
    * 12,
    "spam with numbers": "best iphone 15 case cheap iphone 15 case buy iphone 15 case online " * 20,
    "repeated lines": "You will be redirected to the page in a few seconds.\n" * 20,
    "repeated paragraphs": "This is the description of an article that\nis not available in your country.\n\n" * 10,
    "lorem ipsum": "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore magna.",
    "link farm": "\n".join(
        f"{word} http://www.{word}-deals.example/{word}/best-offers-of-the-day.html" for word in WORDS
    ),
    "bare addresses": "\n".join(f"https://{word}.example.com/{word}?page={i}" for i, word in enumerate(WORDS)),
    "base64": base64.encodebytes(BYTES).decode(),
    "base64 in one line": "data:image/png;base64," + base64.b64encode(BYTES).decode(),
    "hashes": "\n".join(f"{hashlib.sha256(bytes([i])).hexdigest()}  file{i}.bin" for i in range(20)),
    "hex dump": hex_dump(BYTES),
    "log": "\n".join(
        f"2024-03-17 12:30:{i:02d},123 INFO server accepted connection {i} from client" for i in range(40)
    ),
    "system log": "\n".join(f"Mar 17 12:30:{i:02d} host sshd[{i}]: session opened for user {i}" for i in range(40)),
    "web server log": "\n".join(
        f'10.0.0.{i} - - [17/Mar/2024:12:30:{i} +0000] "GET /{i}.png" 200 {i}17' for i in range(40)
    ),
    "stack trace": "Exception in thread main\n"
    + "\n".join(f"    at com.acme.Part{i}.run(Part{i}.java:{i})" for i in range(20)),
    "random letters": " ".join(noise(string.ascii_lowercase, DRAW.randint(3, 9)) for _ in range(150)),
    "random characters": noise(string.ascii_letters + string.digits + string.punctuation + "      ", 3000),
    "jumbled signs": " ".join(noise("!@#$%^&*()_+{}|:<>?~`", DRAW.randint(4, 9)) for _ in range(100)),
    "no blanks": noise(string.ascii_lowercase, 2000),
    "teasers": "\n".join(f"{headline} and then ..." for headline in HEADLINES),
    "headlines": "\n".join(HEADLINES),
    "hashtags": "So happy today #love #sun #happy #nofilter #summer #beach #friends #travel #photo #goodvibes #smile #fun",
    "list of words": "\n".join(sorted(WORDS * 2)),
    "stub": "Page not found.",
}
SIGN_TABLE = "\n".join(
    f"{run + 1:2d} " + " ".join("+" if run >> bit & 1 else "-" for bit in range(5)) + f" {60 + 3 * run}.{run}"
    for run in range(32)
)
MATHEMATICS = {
    "worked sums": "\n".join(f"{a} + {a % 7} = {a + a % 7}" for a in range(12, 40)),
    "exercises that differ in numbers": "\n".join(
        f"{i}. Solve for x: {i + 2}x + {3 * i} = {i * i}" for i in range(2, 40)
    ),
    "word problems that differ in numbers": "\n\n".join(
        f"A bag holds {i} red and {i + 3} blue balls. Two are drawn without replacement. What is the probability that both are red?"
        for i in range(3, 40)
    ),
    "answers": "\n".join(f"{i}. {i * i}/{i + 1}" for i in range(1, 60)),
    "critical values": "df 0.10 0.05 0.025 0.01\n"
    + "\n".join(f"{i} {3 + 1 / i:.3f} {6 + 1 / i:.3f} {12 + 1 / i:.3f} {31 + 1 / i:.3f}" for i in range(1, 60)),
    "table of Markdown": "| x | P(X = x) |\n|---|---|\n" + "\n".join(f"| {i} | 0.{i:04d} |" for i in range(40)),
    "table of LaTeX": "\\begin{tabular}{rrr}\n\\hline\n"
    + "\n".join(f"{i} & {i * i} & {i**3} \\\\ \\hline" for i in range(40))
    + "\n\\end{tabular}",
    "two-level design": "Run A B C D E y\n" + SIGN_TABLE,
    "matrix": "\n".join(" ".join("1" if i == j else "0" for j in range(12)) for i in range(12)),
    "LaTeX": "\n".join(
        f"\\begin{{align}}\n\\frac{{{i}}}{{x^{{{i}}}}} &= \\sum_{{k=0}}^{{{i}}} \\binom{{{i}}}{{k}} x^k \\\\\n\\end{{align}}"
        for i in range(20)
    ),
    "formulas only": " ".join(f"$\\alpha_{{{i}}} \\le \\beta^{{{i}}} + \\sin(\\gamma)$" for i in range(80)),
    "Markdown with formulas": "## Theorem\n\nLet $A$ be a matrix with $\\det(A) \\neq 0$.\n\n$$A^{-1} = \\frac{1}{\\det A}\\,\\mathrm{adj}(A)$$\n\nThen it is regular.",
    "Python": inspect.getsource(random),
    "R": "x <- c(1, 2, 3)\nfit <- lm(y ~ x + I(x^2), data = d)\nsummary(fit)\nplot(fit$residuals)\nfor (i in 1:10) {\n  print(i)\n}\n"
    * 2,
    "documentation of functions": "\n\n".join(
        f"scipy.stats.{name}(a, axis=0)\n\nThe {name} along an axis.\n\nParameters\n----------\na : array_like\n    Input array.\n"
        f"axis : int or None, optional\n    Axis along which to operate.\n\nReturns\n-------\n{name} : ndarray\n    The {name}."
        for name in ("mean", "variance", "skew", "kurtosis", "moment")
    ),
    "console": "\n".join(f">>> f({i})\n{i * i}\n>>> for x in range({i}):\n...     print(x)\n..." for i in range(20)),
    "proof": "Proof. Suppose that p/q is the root of 2 in lowest terms. Then p^2 = 2 q^2, so p is even, and so is q. Contradiction. □\n"
    * 1
    + PROSE,
    "series": "1/2 + 1/4 + 1/8 + 1/16 + ...\n1, 1, 2, 3, 5, 8, 13, ...\n0.333...\n3.14159...\n1 - 1/3 + 1/5 - ...\nx + x^2/2! + x^3/3! + ...\n2, 4, 8, ...",
    "digits of pi": "31415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253421170679"
    * 5,
    "measurements with times": "\n".join(
        f"2024-03-17 12:{i:02d}:00 {20 + i / 10:.1f} {1013 - i / 7:.1f}" for i in range(50)
    ),
    "matrix of zeros": "0 0 0 0 0 0 0 0 0 0 0 0\n" * 12,
    "units": "\n".join(
        f"F = {i} kN, L = {i + 1}.5 m, E = 210 GPa, I = {i}.2e-6 m^4, w = F L^3 / (48 E I)" for i in range(1, 20)
    ),
    "polynomial": "f(x)=" + "+".join(f"{i}x^{i}" for i in range(1, 90)),
}
PROSE_OF_OTHERS = {
    "German": "Der Mittelwert einer Stichprobe ist die Summe ihrer Werte, geteilt durch ihre Anzahl; der Median liegt in der Mitte.",
    "Russian": "Среднее выборки равно сумме её значений, делённой на их количество. Медиана лежит посередине, а мода встречается чаще.",
    "Chinese": "样本的平均值是其数值之和除以数值的个数。中位数位于中间，而众数出现得最频繁。" * 4,
    "Thai": "ค่าเฉลี่ยของตัวอย่างคือผลรวมของค่าทั้งหมดหารด้วยจำนวนค่าเหล่านั้นและค่ามัธยฐานอยู่ตรงกลางของข้อมูลทั้งหมดที่เรียงแล้ว" * 2,
    "letter": PROSE * 2
    + "\n"
    + "\n".join(f"On day {i} we measured the pressure again and found it {i} mbar higher." for i in range(12)),
}


@pytest.mark.parametrize("name", JUNK)
def test_junk_is_caught_by_a_rule(name: str) -> None:
    assert fired(JUNK[name])


@pytest.mark.parametrize("name", MATHEMATICS)
def test_mathematics_passes_all_rules(name: str) -> None:
    assert len(MATHEMATICS[name]) >= 100
    assert judge(MATHEMATICS[name], RULES) == ()


@pytest.mark.parametrize("name", PROSE_OF_OTHERS)
def test_prose_passes_all_rules_in_any_language(name: str) -> None:
    assert judge(PROSE_OF_OTHERS[name], RULES) == ()


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("too_short", "stub"),
        ("long_words", "no blanks"),
        ("few_letters", "jumbled signs"),
        ("few_stop_words", "random letters"),
        ("hash_marks", "hashtags"),
        ("bullet_lines", "menu with bullets"),
        ("ellipsis_lines", "teasers"),
        ("unfinished_lines", "headlines"),
        ("repeated_lines", "repeated lines"),
        ("repeated_paragraphs", "repeated paragraphs"),
        ("repeated_phrases", "spam with numbers"),
        ("frequent_phrase", "keyword spam"),
        ("menu_lines", "menu in one line"),
        ("boilerplate", "cookie banner"),
        ("links", "link farm"),
        ("machine_lines", "log"),
        ("encoded", "base64"),
    ],
)
def test_each_rule_fires_alone_on_its_own_kind_of_junk(rule: str, name: str) -> None:
    (finding,) = judge(JUNK[name], only(rule))
    assert finding.rule == rule
    assert finding.limit == getattr(RULES, rule)
    assert rule in fired(JUNK[name])
    assert judge(JUNK[name], OFF) == ()


def test_all_rules_that_fire_are_named_in_the_order_of_the_settings() -> None:
    found = fired("Subscribe to our newsletter\n" * 30)
    assert len(found) >= 3
    assert found == [name for name in NAMES if name in found]


def test_the_length_counts_no_blanks_around_the_text() -> None:
    assert judge("  ab \n", RulesConfig(too_short=3)) == (Finding("too_short", 2, 3),)
    assert "too_short" not in fired(" abc ", RulesConfig(too_short=3))


def test_the_share_of_repeated_lines_counts_characters_and_not_rules_of_tables() -> None:
    text = "first line\n------\nsecond line\n------\nfirst line"
    (finding,) = judge(text, RulesConfig.model_validate({**dict.fromkeys(NAMES), "repeated_lines": 0.1}))
    assert finding.value == pytest.approx(10 / 43)  # one line of 10 of 10 + 6 + 11 + 6 + 10 characters


def test_the_share_of_repeated_phrases_counts_each_word_once() -> None:
    text = "one two three four five six seven eight nine ten eleven " * 2
    (finding,) = judge(text, RulesConfig.model_validate({**dict.fromkeys(NAMES), "repeated_phrases": 0.1}))
    assert finding.value == pytest.approx(11 / 22)


def test_a_text_about_cookies_and_logins_is_no_boilerplate() -> None:
    text = PROSE * 4 + "A server may use cookies to remember a visitor after a login. Each is a name and a value."
    assert "boilerplate" not in fired(text)


def test_one_address_or_one_hash_does_not_make_a_text_junk() -> None:
    text = (
        PROSE + "See https://docs.scipy.org/doc/scipy/reference/stats.html and " + hashlib.sha256(b"").hexdigest() + "."
    )
    assert judge(text, RULES) == ()


def test_headings_comments_and_prompts_are_no_hashtags() -> None:
    assert judge("# Title\n\n## Part\n\n#include <math.h>\nx = 1  # a comment\n>>> f(\n... 1)\n" + PROSE, RULES) == ()


def test_every_rule_is_described_in_a_sentence() -> None:
    for name in NAMES:
        assert describe(name)[0].isupper() and describe(name).endswith(".")
    assert len({describe(name) for name in NAMES}) == len(NAMES)
    with pytest.raises(KeyError):
        describe("no_such_rule")


TEXTS = st.one_of(
    st.text(max_size=400),
    st.lists(st.sampled_from([*JUNK.values(), *MATHEMATICS.values(), PROSE]), max_size=3).map("\n".join),
    st.text(st.sampled_from("ab #.…|-1\n\t\ud800é∑漢"), max_size=400),
)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_no_text_makes_a_rule_raise_and_the_answer_is_the_same_twice(text: str) -> None:
    assert judge(text, RULES) == judge(text, RULES)


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.sampled_from(NAMES), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_stricter_limit_never_takes_a_finding_away(text: str, rule: str, one: float, other: float) -> None:
    at_least = rule in ("too_short", "few_letters", "few_stop_words", "unfinished_lines")
    scale = {"too_short": 500, "few_stop_words": 9, "long_words": 30}.get(rule, 1)
    whole = rule in ("too_short", "few_stop_words")
    limits = sorted((scale * one, scale * other), reverse=at_least)
    strict, loose = (
        judge(
            text,
            RulesConfig.model_validate({**dict.fromkeys(NAMES), rule: round(limit) if whole else max(limit, 1e-9)}),
        )
        for limit in limits
    )
    assert len(strict) >= len(loose)
    if loose:
        assert strict[0].value == loose[0].value


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        " ",
        "\n",
        "ab\n",
        "ab ",
        "1",
        "#",
        ".",
        "a... ",
        "://",
        "aB3d",
        "0000 ",
        "[…]",
        "a-",
        "- a\n",
        "∑é漢",
        "\0",
        "+1 ",
        "a>",
        "x=1.5-",
    ],
)
def test_time_grows_with_the_text_and_not_with_its_square(piece: str) -> None:
    text = piece * (500_000 // len(piece))
    started = time.process_time()
    judge(text, RULES)
    # A quadratic rule would take minutes; all rules together take a few tenths of a second.
    assert time.process_time() - started < 8.0
