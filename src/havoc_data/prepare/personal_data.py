"""Personal data and secrets in texts: found by their shape, and by their check digits where they have any.

Texts of engineering are full of numbers that look like telephone numbers, addresses of machines or cards. What has no check
digit must stand alone, be no part of a sum, and have the shape of the real thing: a valid country or area code, a public
address, "Tel." before it. Rather a number missed than a table spoilt. Linear time: every pattern is bounded.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from havoc_data.prepare.shapes import possible_kinds

KINDS = ("email", "phone", "ipv4", "ipv6", "iban", "credit_card", "us_ssn", "api_key")
"""What is looked for."""


@dataclass(frozen=True)
class PersonalData:
    """One find: `text[start:end]`, in characters."""

    kind: str
    """One of KINDS."""
    start: int
    end: int


def find(text: str) -> tuple[PersonalData, ...]:
    """All personal data in a text, in order, none over another; in the masked text nothing more is found.

    Args:
        text: any text.
    """
    found = _scan(text)
    # A mask takes away what stood beside something else, as one of two numbers in a row; so look again.
    for _ in range(_ROUNDS if found else 0):
        more = _scan(mask(text, found))
        if not more:
            break
        found = tuple(sorted((*found, *_places_before_masking(more, found)), key=lambda one: one.start))
    return found


def mask(text: str, found: tuple[PersonalData, ...]) -> str:
    """The text with "[email]", "[phone]" and so on in place of what was found; all else is as it was.

    Args:
        text: the text that was searched.
        found: what `find` gave for it.
    """
    pieces, position = [], 0
    for one in found:
        pieces += [text[position : one.start], f"[{one.kind}]"]
        position = one.end
    return "".join((*pieces, text[position:]))


_ROUNDS = 8
_MASK = r"\[(?:" + "|".join(KINDS) + r")\]"
_ENDS_WITH_MASK = re.compile(_MASK + r"\Z")
_STARTS_WITH_MASK = re.compile(_MASK)
_LONGEST_MASK = 16


def _places_before_masking(more: tuple[PersonalData, ...], found: tuple[PersonalData, ...]) -> list[PersonalData]:
    """What was found in the masked text, at its place in the text; it never holds a part of a mask."""
    starts, shifts, shift = [0], [0], 0
    for one in found:
        shift += one.end - one.start - len(f"[{one.kind}]")
        starts.append(one.end - shift)
        shifts.append(shift)
    moved = []
    for one in more:
        shift = shifts[bisect_right(starts, one.start) - 1]
        moved.append(PersonalData(one.kind, one.start + shift, one.end + shift))
    return moved


def _scan(text: str) -> tuple[PersonalData, ...]:
    """One look at the text; where two finds overlap, the one that begins first stays, or the longer one."""
    possible = possible_kinds(text)
    candidates = [
        PersonalData(kind, start, end)
        for kind, finder in _FINDERS
        if kind in possible
        for start, end in finder(text)
        if not _touches_mask(text, start, end)
    ]
    candidates.sort(key=lambda one: (one.start, -one.end))
    found: list[PersonalData] = []
    for one in candidates:
        if not found or one.start >= found[-1].end:
            found.append(one)
    return tuple(found)


def _touches_mask(text: str, start: int, end: int) -> bool:
    """Whether it is what was left beside something that was masked, or holds a mask."""
    return bool(
        (text[start - 1 : start] == "]" and _ENDS_WITH_MASK.search(text, max(0, start - _LONGEST_MASK), start))
        or (text[end : end + 1] == "[" and _STARTS_WITH_MASK.match(text, end))
        or ("[" in text[start:end] and _STARTS_WITH_MASK.search(text, start, end))
    )


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a number is no part of a longer word, decimal, sum, equation or row of numbers."""
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    if (
        before.isalnum()
        or after.isalnum()
        or (before and before in "_.-+*/^=\\$#@%&~")
        or (after and after in "_-+*/^=\\%@#$~")
    ):
        return False
    if after in (".", ",") and text[end + 1 : end + 2].isdigit():
        return False
    left = text[max(0, start - 4) : start].rstrip(" \t")[-1:]
    right = text[end : end + 4].lstrip(" \t")[:1]
    return not (left and left in "=+*^/<>×·") and not (right and right in "=+*^/<>×·")


def _is_free(text: str, start: int, end: int) -> bool:
    """Whether it stands alone, and the next thing on either side, blanks aside, is no number, as in rows of tables."""
    left = text[max(0, start - 4) : start].rstrip(" \t")[-1:]
    right = text[end : end + 4].lstrip(" \t+-")[:1]
    return _stands_alone(text, start, end) and not left.isdigit() and not right.isdigit()


_LOCAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-'")
_LOCAL_CHARACTERS = 64
# What follows may not be a call or an index: in programs `a@b.inv(c)` is a product of matrices.
_DOMAIN = re.compile(r"((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,6})([A-Za-z]{2,24})(?![\w(\[-])")
_TOP_LEVEL = frozenset(
    (
        *("com", "org", "net", "edu", "gov", "mil", "int", "info", "biz", "name", "pro", "jobs", "mobi", "app", "dev"),
        *(
            "online",
            "site",
            "tech",
            "store",
            "cloud",
            "blog",
            "shop",
            "xyz",
            "email",
            "live",
            "world",
            "group",
            "agency",
        ),
        *("consulting", "solutions", "systems", "engineering", "academy", "university", "institute", "swiss", "berlin"),
        *("museum", "aero", "coop", "travel", "london", "paris", "company", "network", "digital", "global", "expert"),
    )
)
"""Ends of addresses with more than two letters; with two, every one counts, since nearly all are countries."""
_EXAMPLE_DOMAIN = re.compile(r"(?:^|\.)(?:example(?:\.(?:com|org|net|edu))?|test|invalid|localhost|local)$")


def _emails(text: str) -> Iterator[tuple[int, int]]:
    at = text.find("@")
    while at >= 0:
        start = at
        while start > 0 and at - start <= _LOCAL_CHARACTERS and (text[start - 1] in _LOCAL or text[start - 1] > "\xbf"):
            start -= 1
        while start < at and not text[start].isalnum():  # a quotation mark, a dash
            start += 1
        domain = _DOMAIN.match(text, at + 1)
        if domain and _is_address(text[start:at], domain[1].lower(), domain[2].lower()):
            yield start, domain.end()
        at = text.find("@", at + 1)


def _is_address(local: str, labels: str, top: str) -> bool:
    """Whether it is the address of a person; `git@github.com` is none, and `A@B.T` is a product."""
    if not local or len(local) > _LOCAL_CHARACTERS or ".." in local or not (local[-1].isalnum() or local[-1] in "_+-"):
        return False
    if local == "git" or (len(local) == 1 and len(labels) <= 2):
        return False
    return (len(top) == 2 or top in _TOP_LEVEL) and not _EXAMPLE_DOMAIN.search(labels + top)


_SEPARATOR = r"(?:[ .\-/]?\(|\)[ .\-/]?|[ .\-/])?"
_INTERNATIONAL = re.compile(rf"\+\d(?:{_SEPARATOR}\d){{7,15}}(?!\d)", re.ASCII)
_BETWEEN_DIGITS = re.compile(r"[ .\-/()]+")
_CALLING_CODE = re.compile(
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|2[1-69]\d|3[578]\d|42\d|50\d|59\d|6[789]\d|8[058]\d|9[679]\d"
)
_NORTH_AMERICAN = re.compile(r"([2-9]\d\d)(\) ?|-|\.)([2-9]\d\d)([-.])(\d{4})(?!\d)", re.ASCII)
_NORTH_AMERICAN_DIGITS = re.compile(r"1[2-9]\d\d[2-9]\d{6}")
_NAMED = re.compile(
    r"\b(?:tel|telephone|phone|fax|mobile|telefon|telefax|t.l.phone|tel.fono|mobil|handy|whatsapp)\b"
    r"(?: no\b| number\b)?[.:]{0,2} {0,2}(\(?\d(?:[ .\-/()]{0,3}\d){6,14})(?!\d)",
    re.IGNORECASE | re.ASCII,
)
_NAMES = ("tel", "phone", "fax", "mobil", "handy", "whatsapp")


def _phones(text: str) -> Iterator[tuple[int, int]]:
    if "+" in text:
        for number in _INTERNATIONAL.finditer(text):
            if _is_international(number[0]) and _is_free(text, *number.span()):
                yield number.span()
    for number in _NORTH_AMERICAN.finditer(text):
        start = number.start()
        if number[2].startswith(")"):
            start -= 1
            shaped = start >= 0 and text[start] == "("
        else:
            shaped = number[2] == number[4]
        if text[max(0, start - 2) : start] in ("1-", "1.", "1 ") and not text[max(0, start - 3) : start - 2].isdigit():
            start -= 2
        if shaped and _stands_alone(text, start, number.end()):
            yield start, number.end()
    lower = text.lower()
    if any(name in lower for name in _NAMES):
        for number in _NAMED.finditer(text):
            if _stands_alone(text, *number.span(1)):
                yield number.span(1)


def _is_international(number: str) -> bool:
    """Whether it begins with a country code and is grouped as numbers are dialled, not as decimals or sums are written."""
    groups = [group for group in _BETWEEN_DIGITS.split(number[1:]) if group]
    digits = "".join(groups)
    code = _CALLING_CODE.match(digits)
    if not code or not 9 <= len(digits) <= 15 or (digits[0] == "1" and not _NORTH_AMERICAN_DIGITS.fullmatch(digits)):
        return False
    if len(groups) == 1:
        return len(digits) >= 10
    if "." in number and (number.count(".") < 3 or set(number) - set("+.0123456789")):
        return False
    code_alone = groups[0] == code[0]
    return (code_alone or len(groups[0]) > 3) and sum(len(group) == 1 for group in groups[code_alone:]) <= 1


_IPV4_REST = re.compile(r"\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\d)", re.ASCII)
_VERSION = re.compile(
    r"(?:version|release|revision|rev|ver|v|section|chapter|table|figure|§)[.:]?\s{0,2}\Z", re.IGNORECASE
)
_IPV6 = re.compile(r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{4,35}")


def _ipv4_addresses(text: str) -> Iterator[tuple[int, int]]:
    for found in _IPV4_REST.finditer(text):
        start, end = found.span()
        while start > 0 and found.start() - start < 3 and "0" <= text[start - 1] <= "9":
            start -= 1
        before = text[max(0, start - 2) : start]
        if before[-1:].isalnum() or before[-1:] in ("_", "-", ".", "+", "$") or before[-1:] == "/" != before[:1]:
            continue
        if text[end : end + 1].isalnum() or text[end : end + 1] == "_" or re.match(r"[.\-]\d", text[end : end + 2]):
            continue
        if not _VERSION.search(text, max(0, start - 12), start) and _is_public_ipv4(text[start:end]):
            yield start, end


def _is_public_ipv4(address: str) -> bool:
    """Whether it leads to someone's machine, and is no number of a section or version such as 1.2.3.4 or 10.2.1.30."""
    octets = address.split(".")
    if not octets[0] or any((len(octet) > 1 and octet[0] == "0") or int(octet) > 255 for octet in octets):
        return False
    if sum(len(octet) > 1 for octet in octets) < 2 or max(map(int, octets)) < 32:
        return False
    return ipaddress.IPv4Address(address).is_global


def _ipv6_addresses(text: str) -> Iterator[tuple[int, int]]:
    for found in _IPV6.finditer(text):
        start, end = found.start(), found.start() + len(found[0].rstrip(":"))
        written = text[start:end]
        if (
            text[start - 1 : start].isalnum()
            or text[start - 1 : start] in ("_", ":", ".")
            or text[end : end + 1].isalnum()
        ):
            continue
        try:
            address = ipaddress.IPv6Address(written)
        except ValueError:
            continue
        if address.is_global and len([group for group in written.split(":") if group]) >= 4:
            yield start, end


_IBAN_HEAD = re.compile(r"[A-Z]{2}\d\d ?[A-Z0-9]", re.ASCII)
_IBAN_LENGTHS = {
    country: length
    for length, countries in (
        *((15, "NO"), (16, "BE"), (18, "DK FI FO GL NL SD"), (19, "MK SI"), (20, "AT BA EE KZ LT LU MN XK")),
        *((21, "CH HR LI LV"), (22, "BG BH CR DE GB GE IE ME RS VA"), (23, "AE GI IL IQ OM SO TL")),
        *((24, "AD CZ ES MD PK RO SA SE SK TN VG"), (25, "LY PT ST"), (26, "IS TR"), (27, "FR GR IT MC MR SM")),
        *((28, "AL AZ BY CY DO GT HU LB NI PL SV"), (29, "BR EG PS QA UA"), (30, "JO KW MU YE"), (31, "MT SC")),
        *((32, "LC"), (33, "RU")),
    )
    for country in countries.split()
}
"""Country -> characters without blanks; the registry of SWIFT."""


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for head in _IBAN_HEAD.finditer(text):
        start, left = head.start(), _IBAN_LENGTHS.get(head[0][:2], 0)
        if not left or text[start - 1 : start].isalnum():
            continue
        end = start
        while left and end < len(text):
            blank = text[end] == " " and text[end - 1] != " "
            if not blank and not (text[end].isascii() and text[end].isalnum()):
                break
            left -= not blank
            end += 1
        if left == 0 and not text[end : end + 1].isalnum() and _is_iban(text[start:end].replace(" ", "").upper()):
            yield start, end


def _is_iban(characters: str) -> bool:
    """ISO 7064, modulus 97-10, with letters as 10 to 35."""
    return int("".join(str(int(character, 36)) for character in characters[4:] + characters[:4])) % 97 == 1


_CARD = re.compile(r"[2-6]\d{3}([ -]?)(?:\d{4}\1\d{4}\1\d{4}|\d{6}\1\d{4,5})(?!\d)", re.ASCII)
_CARD_PREFIX = re.compile(
    r"4|5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720|3[47]|30[0-5]|3[68]|35(?:2[89]|[3-8])|6011|65|64[4-9]|62"
)
_CARD_NAME = re.compile(r"(?<![\w\[])(?:credit|debit|card|visa|mastercard|amex|american express|karte)", re.IGNORECASE)
_LETTER = re.compile(r"[^\W\d_]")


def _credit_cards(text: str) -> Iterator[tuple[int, int]]:
    for card in _CARD.finditer(text):
        digits = card[0].replace(" ", "").replace("-", "")
        if not _CARD_PREFIX.match(digits) or not _passes_luhn(digits) or not _is_free(text, *card.span()):
            continue
        # One number in ten passes the check, so digits alone are a card only where a card is spoken of, and groups
        # of four only where they are not a row of a table.
        named = _CARD_NAME.search(text, max(0, card.start() - 40), card.start())
        line = text[max(0, card.start() - 200) : card.start()].rpartition("\n")[2]
        line += text[card.end() : card.end() + 200].partition("\n")[0]
        if named or (len(card[0]) > len(digits) and _LETTER.search(line)):
            yield card.span()


def _passes_luhn(digits: str) -> bool:
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[::-2]))) % 10 == 0


_SSN = re.compile(r"[0-8]\d\d-\d\d-\d{4}(?!\d)", re.ASCII)


def _us_ssns(text: str) -> Iterator[tuple[int, int]]:
    for found in _SSN.finditer(text):
        area, group, serial = found[0].split("-")
        if area not in ("000", "666") and group != "00" and serial != "0000" and _is_free(text, *found.span()):
            yield found.span()


_KEY_STARTS = (
    *("AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("sk-", "sk_", "rk_", "xox", "AIza", "eyJ"),
)
_KEY = re.compile(
    r"(?<![A-Za-z0-9_-])(?:(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{50,255}"
    r"|sk-(?=[A-Za-z_-]{0,199}\d)[A-Za-z0-9_-]{20,250}|xox[abeoprs]-(?=[A-Za-z-]{0,199}\d)[A-Za-z0-9-]{10,250}"
    r"|AIza[A-Za-z0-9_-]{35}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,250}"
    r"|eyJ[A-Za-z0-9_-]{10,8000}\.eyJ[A-Za-z0-9_-]{10,8000}\.[A-Za-z0-9_-]{10,8000})(?![A-Za-z0-9_-])"
)
_PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z]{2,12} ){0,2}PRIVATE KEY-----")
_PRIVATE_KEY_CHARACTERS = 10_000


def _api_keys(text: str) -> Iterator[tuple[int, int]]:
    if any(start in text for start in _KEY_STARTS):
        yield from (key.span() for key in _KEY.finditer(text) if "EXAMPLE" not in key[0])
    covered = 0
    for head in _PRIVATE_KEY.finditer(text):
        if head.start() < covered:
            continue
        foot = text.find("-----END ", head.end(), head.end() + _PRIVATE_KEY_CHARACTERS)
        covered = (
            head.end() if foot < 0 else foot + len(text[foot : foot + 60].partition("KEY-----")[0]) + len("KEY-----")
        )
        yield head.start(), min(covered, len(text))


_FINDERS = (
    ("email", _emails),
    ("phone", _phones),
    ("ipv4", _ipv4_addresses),
    ("ipv6", _ipv6_addresses),
    ("iban", _ibans),
    ("credit_card", _credit_cards),
    ("us_ssn", _us_ssns),
    ("api_key", _api_keys),
)
