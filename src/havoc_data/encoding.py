"""Bytes to characters: byte order marks, UTF-8, the encodings of older systems, and text that was decoded wrongly.

What is UTF-8 is read as UTF-8. What is not, line for line, is read in the encoding that charset-normalizer finds for it.
Mojibake such as "Ã©" is mended by ftfy on the lines that its own test calls bad. Both come with the extra `formats`;
without them bytes that are not UTF-8 become U+FFFD where they are few. Characters are never normalised: NFKC would
turn 10⁻³ into 10−3.
"""

from __future__ import annotations

import codecs
import importlib.metadata
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache

from havoc_data.inputs import InputError

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is how this one begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks and what they say."""
DETECTED_BYTES = 2**20
"""How much of what is not UTF-8 is looked at to find its encoding."""
INSTALL = "pip install 'havoc[formats]'"
"""What brings charset-normalizer and ftfy."""

_MAGIC = (
    (b"%PDF-", "a PDF"),
    (b"\x89PNG\r\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"PK\x03\x04", "a ZIP archive (a .docx, say)"),
    (b"\xd0\xcf\x11\xe0", "an old Office file"),
    (b"\x1f\x8b\x08", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"\x7fELF", "a program"),
)
_CONTROLS = bytes(code for code in (*range(32), 127) if code not in b"\t\n\r\v\f\b\x1b")
_WORST_CONTROLS = 0.1
"""Share of control bytes above which a file is no text."""
_WORST_INVALID = 0.25
"""Share of bytes in no known encoding above which a file is not read. German, French or Polish in a one-byte encoding
have 0.1 at most and can be read with gaps; random bytes have 0.4, Russian or Greek in one byte 0.8."""
_WESTERN = (
    "àâæçéèêëîïôœùûüÿ",
    "äöüßé",
    "áéíñóúüªº",
    "ãáàâçéêíóôõúªº",
    "àèéìíîòóùú",
    "åäöæøéü",
    "ðþáéíóúýæö",
    "ëïéèöüá",
)
_EASTERN = ("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "ăâîşţ", "čćđšž")
_ALPHABETS: Mapping[str, tuple[str, ...]] = {
    "cp1252": _WESTERN,
    "cp1250": _EASTERN,
    "iso8859_2": _EASTERN,
    "cp1254": ("çğıiöşüâîû",),
    "cp1257": ("ąčęėįšųūž", "āčēģīķļņšūž", "äöõüšž"),
    "mac_roman": _WESTERN,
    "cp850": _WESTERN,
}
"""Latin code pages, likeliest first -> letters beyond a to z of the languages they are for. The pages differ in few letters,
and a detector that knows only how often characters occur takes French for Polish."""
_SIGNS = "“”„‘’«»–—…¿¡§©€£·°±²³µ×÷¼½¾"
"""What every language uses."""
_OTHERS = (
    "cp1251",
    "koi8_r",
    "cp866",
    "cp1253",
    "cp1255",
    "cp1256",
    "shift_jis",
    "euc_jp",
    "gb18030",
    "big5",
    "euc_kr",
)
_MISTAKEN_FOR = (
    "latin-1",
    "cp1252",
    "cp1250",
    "cp1251",
    "cp1253",
    "cp1254",
    "cp1257",
    "iso8859_2",
    "mac_roman",
    "cp437",
)
_LEADS = bytes((*range(0xC2, 0xD2), 0xD8, 0xD9, *range(0xE0, 0xF1)))
"""First bytes of characters in UTF-8, but for Armenian, Hebrew and rarer ones: as Mac Roman those are quotation marks, as
cp1252 the sign of multiplication, and stand before other characters in sound text all the time."""
_RUN = re.compile(rb"[\x80-\xff]+")
_CHARACTER = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)


def mark_of(head: bytes) -> tuple[bytes, str]:
    """(byte order mark, encoding) of a text that begins with `head`; (b"", "utf-8") where there is no mark."""
    return next(((mark, name) for mark, name in MARKS if head.startswith(mark)), (b"", "utf-8"))


def magic_of(head: bytes) -> str | None:
    """Why a file that begins like this is no text, whatever its name says; None if nothing tells."""
    what = next((what for start, what in _MAGIC if head.startswith(start)), None)
    return f"it is {what}, whatever its name says; convert it to text" if what else None


def packages() -> str:
    """Names and versions of the packages that what is decoded here depends on, as far as they are installed."""
    found = []
    for name in ("charset-normalizer", "ftfy"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def lines_not_utf8(raw: bytes) -> bytes:
    """The lines of `raw` that are not UTF-8, as far as an encoding can be found from them."""
    if is_utf8(raw):
        return b""
    return b"".join(line for line in raw.splitlines(keepends=True) if not is_utf8(line))[:DETECTED_BYTES]


def is_utf8(raw: bytes) -> bool:
    """Whether `raw` is valid UTF-8."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def detect(raw: bytes) -> str | None:
    """The encoding of text that is not UTF-8, by Python's name for it; None if none fits.

    charset-normalizer says which encodings fit; among Latin ones that wins whose letters belong to one of its languages.

    Args:
        raw: lines that are not UTF-8; the first MiB is looked at.

    Raises:
        ImportError: charset-normalizer is not installed.
    """
    from charset_normalizer import from_bytes

    raw = raw[:DETECTED_BYTES]
    runs = [len(run) for run in _RUN.findall(raw)]
    # In Latin text an accented letter stands among plain ones; in other scripts such bytes come in rows, or are most.
    latin = sum(length == 1 for length in runs) > len(runs) / 2 and sum(runs) < len(raw) / 4
    matches = list(from_bytes(raw, cp_isolation=[*_ALPHABETS, *(() if latin else _OTHERS)]))
    if not matches or matches[0].encoding not in _ALPHABETS:
        return matches[0].encoding if matches else None
    # A match stands for all pages in which the text is the same.
    fits = {page: match.chaos for match in reversed(matches) for page in (match.encoding, *match.could_be_from_charset)}
    pages = [page for page in _ALPHABETS if page in fits]
    return max(pages, key=lambda page: (_familiar(raw, page) - fits[page], -pages.index(page)))


def _familiar(raw: bytes, page: str) -> float:
    """Share of the characters beyond ASCII that belong to that language of a code page which they fit best."""
    found = Counter(each for each in raw.decode(page, "replace").lower() if not each.isascii())
    total = found.total() or 1
    return max(sum(found[each] for each in alphabet + _SIGNS) / total for alphabet in _ALPHABETS[page])


def decode(raw: bytes, encoding: str | None = None) -> tuple[str, int, int]:
    """Text of bytes that are UTF-8, at least in part.

    Each line that is UTF-8 is read as such; one that is not is read in `encoding`, unless most of its other characters
    are UTF-8, for then the rest is damage. Damage becomes U+FFFD.

    Args:
        raw: bytes without a byte order mark.
        encoding: of the lines that are not UTF-8, as found by `detect`; None if it is not known.

    Returns:
        (text, bytes that became U+FFFD, bytes that were read in `encoding`). Line ends are as they were.
    """
    try:
        return raw.decode(), 0, 0
    except UnicodeDecodeError:
        pass
    pieces, invalid, converted = [], 0, 0
    for line in re.split(rb"(?<=\n)", raw):
        try:
            pieces.append(line.decode())
            continue
        except UnicodeDecodeError:
            text = line.decode("utf-8", "replace")
        wrong = len(line) - len(line.decode("utf-8", "ignore").encode())
        if encoding is not None and wrong > len(_CHARACTER.findall(line)):
            text = line.decode(encoding, "replace")
            converted += len(line)
            wrong = text.count("\ufffd")
        pieces.append(text)
        invalid += wrong
    return "".join(pieces), invalid, converted


def mend(text: str) -> tuple[str, int]:
    """Text that was written as UTF-8 and decoded as something else, put right: "Ã©" is "é" again.

    Only lines are touched that hold two characters which such a mistake puts side by side, and that ftfy's test calls
    bad; `ftfy.fix_encoding` alone mends them, and changes nothing else. A matrix that is called Ã stays one.

    Returns:
        (text, number of characters that were replaced); the text as it is where ftfy is not installed.
    """
    if text.isascii() or not (suspicious := _suspicious()).search(text):
        return text, 0
    try:
        from ftfy import fix_encoding
        from ftfy.badness import is_bad
    except ImportError:
        return text, 0
    lines, replaced = [], 0
    for line in re.split(r"(?<=\n)", text):
        # The search comes first because ftfy's test takes a hundred times as long.
        mended = fix_encoding(line) if suspicious.search(line) and is_bad(line) else line
        if mended != line:
            replaced += (Counter(line) - Counter(mended)).total()
        lines.append(mended)
    return "".join(lines), replaced


@cache
def _suspicious() -> re.Pattern[str]:
    """What the first two bytes of a character in UTF-8 become in the one-byte encodings that ftfy knows; and controls of
    Latin-1, which nobody writes."""
    firsts, seconds = set[str](), set[str]()
    for encoding in _MISTAKEN_FOR:
        firsts.update(_LEADS.decode(encoding, "ignore"))
        seconds.update(bytes(range(0x80, 0xC0)).decode(encoding, "ignore"))
    first, second = (re.escape("".join(sorted(each))) for each in (firsts, seconds))
    return re.compile(f"[{first}][{second}]|[\x80-\x84\x86-\x9f]")


def why_no_text(raw: bytes, invalid: int) -> str | None:
    """Why these bytes are no text, or None if they are.

    Args:
        raw: bytes of a file without a byte order mark, or its text as UTF-8.
        invalid: how many of them are no character in any known encoding.
    """
    zeros = raw.count(0)
    controls = len(raw) - len(raw.translate(None, _CONTROLS))
    if zeros > 0.3 * len(raw) and zeros == controls:
        return "every other byte is zero: UTF-16 without a byte order mark? Save it as UTF-8"
    if controls > _WORST_CONTROLS * len(raw):
        return f"{controls / len(raw):.0%} of its bytes are control characters: it is no text"
    if invalid > _WORST_INVALID * len(raw):
        return f"{invalid / len(raw):.0%} of its bytes are not UTF-8: no text, or another encoding; save it as UTF-8"
    return None


def found_encoding(raw: bytes) -> tuple[str | None, str]:
    """(encoding of the lines of `raw` that are not UTF-8, what to add to a refusal if it could not be looked for)."""
    lines = lines_not_utf8(raw)
    try:
        return (detect(lines) if lines else None), ""
    except ImportError:
        return None, f", or {INSTALL}, which finds encodings"


def decode_whole(raw: bytes, *, mend_encoding: bool = True) -> tuple[str, tuple[tuple[str, int], ...]]:
    """The text of a whole file that is not plain text: HTML, XML, LaTeX, CSV and the like.

    Args:
        raw: all bytes of the file, byte order mark included.
        mend_encoding: whether encodings other than UTF-8 are looked for and mojibake is mended.

    Returns:
        (text without a byte order mark, counts). Line ends are as they were. Counts are for `Document.counts`:
        invalid_bytes, decoded_from_<encoding> (1), mended_characters; none that are 0.

    Raises:
        InputError: it is no text.
    """
    mark, encoding = mark_of(raw)
    reason = magic_of(raw)
    if reason:
        raise InputError(reason)
    body, counts = raw[len(mark) :], Counter[str]()
    if encoding == "utf-8":
        found, hint = found_encoding(body) if mend_encoding else (None, "")
        text, invalid, converted = decode(body, found)
        reason = why_no_text(body, invalid)
        if converted:
            counts[f"decoded_from_{found}"] = 1
    else:
        hint = ""
        text = body.decode(encoding, "replace")
        # An author's own U+FFFD is not told from damage here; both are rare.
        invalid = text.count("\ufffd")
        reason = why_no_text(text.encode(), invalid)
    if reason:
        raise InputError(reason + (hint if "not UTF-8" in reason else ""))
    counts["invalid_bytes"] = invalid
    if mend_encoding:
        text, counts["mended_characters"] = mend(text)
    return text, tuple((name, count) for name, count in sorted(counts.items()) if count)
