from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_data.prepare.personal_data import KINDS, PersonalData, find, mask

GITHUB = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7\nbm9uc2Vuc2U=\n-----END RSA PRIVATE KEY-----"
REAL = [
    ("email", "write to", "jane.doe@uni-ulm.de", "today"),
    ("email", "by", "Jürgen_K+lists@mail.iitb.ac.in", "and others"),
    ("email", "<", "o'neil@physics.museum", ">"),
    ("phone", "call", "+49 30 901820-11", "now"),
    ("phone", "call", "+49 (0)89 1234567", "now"),
    ("phone", "call", "+33 6 12 34 56 78", "now"),
    ("phone", "call", "+4930901820", "now"),
    ("phone", "call", "+1 212 555 0143", "now"),
    ("phone", "call", "(212) 555-0143", "now"),
    ("phone", "call", "212-555-0143", "now"),
    ("phone", "call", "1-800-555-0143", "now"),
    ("phone", "call", "212.555.0143", "now"),
    ("phone", "Tel.: ", "089 / 1234567", "daily"),
    ("phone", "Fax", "030-90182011", "daily"),
    ("ipv4", "from", "93.184.216.34", "at noon"),
    ("ipv4", "http://", "93.184.216.34", ":80"),
    ("ipv6", "from", "2a00:1450:4001:82a::200e", "at noon"),
    ("iban", "to", "DE89 3704 0044 0532 0130 00", "soon"),
    ("iban", "to", "GB82WEST12345698765432", "soon"),
    ("credit_card", "paid with", "4111 1111 1111 1111", "yesterday"),
    ("credit_card", "paid with", "3782-822463-10005", "yesterday"),
    ("credit_card", "VISA", "4111111111111111", "yesterday"),
    ("us_ssn", "number", "219-09-9999", "of hers"),
    ("api_key", "key", "AKIA" + "QX7Z2M4N6P8R1T3V", "in use"),
    ("api_key", "key", GITHUB, "in use"),
    ("api_key", "key", "github_pat_" + "A1b2C3d4E5" * 6, "in use"),
    ("api_key", "key", "sk-" + "a1B2c3D4e5" * 4, "in use"),
    ("api_key", "key", "xoxb-" + "123456789012-abcdefABCDEF", "in use"),
    ("api_key", "key", "AIza" + "a1B2c3D4e5f" * 3 + "Zz", "in use"),
    ("api_key", "key", "sk_live_" + "a1B2c3D4e5f6G7h8", "in use"),
    ("api_key", "key", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlX2hlcmU", "in use"),
    ("api_key", "key", PEM, "in use"),
]
HARMLESS = [
    "+49 - 12 = 37",
    "+1 -1 +1 -1 +1 -1 +1 -1 +1 -1 +1",
    "x = +1234567890",
    "+12 15 18 21 24 27 30",
    "+20 30 40 50 60 70 80 90 100 110",
    "+49.123456789 is a temperature",
    "the value +1.2345678901",
    "555-123-4567 = -4135",
    "y = 212-555-0143",
    "Part 55-1234-567 and part 4711-0815",
    "On 2024-03-17 and 17.03.2024 and 03/17/2024 at 12:30:45",
    "ISBN 978-0-306-40615-7, ISBN-10 0-306-40615-2, ISSN 1234-5678",
    "doi:10.1038/s41586-020-2649-2 and arXiv:2101.12345v2",
    "CAS 7732-18-5, EN 10025-2:2019, ISO 9001:2015",
    "3.14159265358979323846264338327950288419716939937510",
    "2^52 = 4503599627370496 and 2^53 = 9007199254740992",
    "0.4111111111111111 of it",
    "4111 1111 1111 1111",
    "4532 4716 4024 5425 4916 4539",
    "rows 1200 1300 1400 1500 1600 1700",
    "version 10.32.14.93, v1.2.3.4 and Chrome/93.184.216.34",
    "Section 1.2.3.4 and theorem 12.3.1.4",
    "127.0.0.1, 192.168.17.34, 10.20.30.40 and 203.0.113.77",
    "256.300.400.500 and 93.184.216.034",
    "x[2::3], std::vector, 12:30:45, a::b, 2001:db8::1, 00:1A:2B:3C:4D:5E",
    "A@B, X.T@y, X.T@beta.values, x@y.shape, a@b.T and C@D.inv(E)",
    "X@W.to(device) + foo@bar.at[0]",
    "@app.route @property @pytest.mark.skip @ 3 EUR",
    "user@example.com, a.b@mail.example.org, root@localhost, x@host.test, user@host",
    "git@github.com:scipy/scipy.git",
    "DE89 3704 0044 0532 0130 01 has a wrong check digit",
    "4111 1111 1111 1112 fails the check of cards",
    "000-12-3456, 666-12-3456, 123-00-4567, 123-45-0000, 987-65-4320",
    "1123-45-6789 and 123-45-67890 and 123-45-6789 = 633",
    "sk-circle-fade-dot-spinner-large and sk_learn and ghp_short",
    "the key AKIAIOSFODNN7EXAMPLE of the manual",
    "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----",
    "telephone 12, intelligent 1234567890 tells",
    "phones: 3, 5, 8, 13, 21, 34, 55",
    "1/2 3/4 5/6 7/8 (9) 10-11 12-13 14-15",
    "12 15 18\n+7 11 13\n17 19 23\n29 31 37\n41 43 47",
    "| 212 | 555 | 0143 |\n| 0.212 | 0.555 | 0.0143 |",
    "£0.212-555-0143",
    "²²².¹.¹.¹ and ٩٣.١٨٤.٢١٦.٣٤ and ٤١١١١١١١١١١١١١١١",
]


@pytest.mark.parametrize(("kind", "before", "value", "after"), REAL)
def test_personal_data_is_found_with_its_kind_and_place(kind: str, before: str, value: str, after: str) -> None:
    glue = "" if before in ("<", "http://") else " "
    text = f"{before}{glue}{value}{glue}{after}."
    start = len(before) + len(glue)
    assert find(text) == (PersonalData(kind, start, start + len(value)),)
    assert mask(text, find(text)) == f"{before}{glue}[{kind}]{glue}{after}."


@pytest.mark.parametrize("text", HARMLESS)
def test_what_texts_of_engineering_are_full_of_is_no_personal_data(text: str) -> None:
    assert find(text) == ()


def test_the_cases_above_cover_every_kind() -> None:
    assert {kind for kind, *_ in REAL} == set(KINDS)


@pytest.mark.parametrize("check", range(98))
def test_of_all_check_digits_of_an_account_one_is_taken(check: int) -> None:
    assert bool(find(f"to DE{check:02d}370400440532013000.")) == (check == 89)


def test_a_table_of_measurements_is_left_alone() -> None:
    rows = "\n".join(
        f"{1000 + 37 * i} {2000 + 41 * i} {4100 + 11 * i} {5100 + 7 * i} +{i}.{i:04d} -{i}" for i in range(200)
    )
    assert find(rows) == ()


def test_a_table_of_four_digit_columns_is_left_alone_where_nothing_else_is_in_its_rows() -> None:
    rows = "\n".join(f"{4000 + 37 * i} {2000 + 41 * i} {4100 + 11 * i} {5100 + 7 * i}" for i in range(100))
    assert find(rows) == ()


def test_a_list_of_numbers_one_a_line_is_found_whole() -> None:
    lines = "\n".join(f"Person {i}: 212-555-01{i:02d}" for i in range(50))
    assert [one.kind for one in find(lines)] == ["phone"] * 50


def test_what_is_unlocked_by_a_mask_is_found_in_the_same_call() -> None:
    text = "write 1.2.3.4 tel 030 1234567 a@b.de +49 30 901820 or +49 30 901821"
    found = find(text)
    assert find(mask(text, found)) == ()
    assert len(found) >= 3


def test_an_unfinished_private_key_is_named_too() -> None:
    assert [one.kind for one in find("-----BEGIN PRIVATE KEY-----\nMIIE")] == ["api_key"]


def test_masks_are_words_that_are_themselves_no_personal_data() -> None:
    assert find(" ".join(f"[{kind}] 1234567" for kind in KINDS)) == ()


_PIECES = st.sampled_from(
    [value for _, _, value, _ in REAL]
    + HARMLESS
    + [" ", "\n", "", ",", ".", "-", "+", "@", "/", "[", "]", "=", "Tel. ", "card ", "phone", "a", "7", "é", "1 "]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_PIECES, max_size=8).map("".join))
def test_in_a_masked_text_nothing_more_is_found(text: str) -> None:
    assert find(mask(text, find(text))) == ()


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(_PIECES, max_size=8).map("".join)))
def test_finds_are_in_order_do_not_overlap_and_leave_all_else_as_it_was(text: str) -> None:
    found = find(text)
    places = [0, *(place for one in found for place in (one.start, one.end)), len(text)]
    assert places == sorted(places)
    assert all(one.start < one.end and one.kind in KINDS for one in found)
    outside = [text[start:end] for start, end in zip(places[::2], places[1::2], strict=True)]
    masked, position = mask(text, found), 0
    for piece, one in zip(outside, (*found, None), strict=True):
        assert masked.startswith(piece, position)
        position += len(piece) + (len(one.kind) + 2 if one else 0)
    assert position == len(masked)


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("+-.@: /()[]0123456789abcDEfGx=\n"), max_size=120))
def test_texts_of_digits_and_signs_never_raise(text: str) -> None:
    assert find(mask(text, find(text))) == ()


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "a",
            "@",
            "a@",
            "a.b@c.",
            "1",
            "1.",
            "1 ",
            "+1 ",
            "+49",
            "2001:",
            ":",
            "DE89",
            "4111 ",
            "555-",
            "tel ",
            "eyJ",
        ),
        *("eyJa.", "sk-", "-----BEGIN PRIVATE KEY-----\n", "212-555-0143 ", "joe@uni.de ", "[phone]", "\n", "é@"),
    ],
)
def test_time_grows_with_the_text_and_not_with_its_square(piece: str) -> None:
    text = piece * (300_000 // len(piece))
    started = time.process_time()
    find(text)
    # A quadratic search would take minutes; one pass takes a tenth of a second, a few when much is found.
    assert time.process_time() - started < 8.0


def test_a_masked_text_reads_as_words() -> None:
    text = "Ask jane.doe@uni-ulm.de or +49 30 901820-11."
    assert re.fullmatch(r"Ask \[email\] or \[phone\]\.", mask(text, find(text)))
