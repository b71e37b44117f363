"""Text comes in whole characters, and never a stop string or what may become one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from havoc_inference.request import TokenScore
from havoc_inference.text_stream import TextStream


def run(pieces: list[bytes], stop: list[str]) -> tuple[list[str], list[int], list[int], bool]:
    """Every text that was given, all ids in order, the ids of their scores, and whether it was stopped."""
    stream = TextStream(pieces.__getitem__, stop=stop)
    texts, ids, scored = [], [], []
    for token in range(len(pieces)):
        text, new, scores = stream.add(token, TokenScore(token, -1.0, ()))
        texts.append(text)
        ids += new
        scored += [score.id for score in scores]
        if stream.stopped:
            break
    text, new, scores = stream.finish()
    return [*texts, text], ids + new, scored + [score.id for score in scores], stream.stopped


def test_a_character_of_several_tokens_comes_whole_and_with_all_of_its_tokens() -> None:
    face = "😀".encode()
    texts, ids, _, _ = run([b"a", face[:1], face[1:3], face[3:], b"b"], [])
    assert texts == ["a", "", "", "😀", "b", ""]
    assert ids == [0, 1, 2, 3, 4]


def test_bytes_that_are_no_text_come_as_replacement_characters() -> None:
    texts, ids, _, _ = run([b"a\xff", b"\xf0\x9f"], [])
    assert "".join(texts) == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"
    assert ids == [0, 1]


def test_what_may_become_a_stop_string_is_held_back_and_given_when_it_does_not() -> None:
    texts, ids, _, stopped = run([b"one E", b"N", b"X two"], ["END"])
    assert texts == ["one ", "", "ENX two", ""]
    assert ids == [0, 1, 2]
    assert not stopped


def test_a_stop_string_ends_the_text_before_it_and_drops_the_tokens_behind() -> None:
    texts, ids, scored, stopped = run([b"one", b" E", b"N", b"D two", b"three"], ["END"])
    assert "".join(texts) == "one "
    assert ids == scored == [0, 1]
    assert stopped


def test_the_first_of_several_stop_strings_counts() -> None:
    texts, _, _, _ = run([b"ab", b"cd", b"ef"], ["de", "bc"])
    assert "".join(texts) == "a"


def test_a_stop_string_at_the_very_beginning_leaves_nothing() -> None:
    texts, ids, _, stopped = run([b"\n\n", b"x"], ["\n"])
    assert ("".join(texts), ids, stopped) == ("", [], True)


def test_an_empty_stop_string_stops_nothing() -> None:
    texts, _, _, stopped = run([b"a", b"b"], [""])
    assert ("".join(texts), stopped) == ("ab", False)


@given(
    st.lists(
        st.one_of(st.binary(min_size=1, max_size=3), st.text("ab😀é", min_size=1, max_size=3).map(str.encode)),
        max_size=12,
    ),
    st.lists(st.text("ab😀é", min_size=1, max_size=4), max_size=3),
)
def test_any_tokens_give_the_text_up_to_the_first_stop_string(pieces: list[bytes], stop: list[str]) -> None:
    whole = b"".join(pieces).decode("utf-8", errors="replace")
    places = [at for at in (whole.find(text) for text in stop) if at >= 0]
    texts, ids, scored, stopped = run(pieces, stop)
    assert stopped == bool(places)
    if places:
        # What was given cannot be taken back: the first stop string that is complete ends it, also where another
        # one that is longer began before.
        assert whole.startswith("".join(texts))
        assert not any(text in "".join(texts) for text in stop)
    else:
        assert "".join(texts) == whole
        assert ids == list(range(len(pieces)))
    assert scored == ids == list(range(len(ids)))
