"""Pages are owned, shared, forgotten and never lost."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from havoc_inference.pages import PageNames, PagePool


def test_a_full_page_is_found_by_its_name_also_after_its_owner_left() -> None:
    pool = PagePool(3, 16)
    page = pool.take()
    assert page is not None
    pool.name(page, b"a")
    pool.release([page])
    assert pool.num_owned == 0
    assert pool.find([b"a", b"b"]) == [page]
    assert pool.num_owned == 1


def test_a_page_of_two_owners_is_free_when_both_have_left() -> None:
    pool = PagePool(1, 16)
    page = pool.take()
    assert page == 0
    pool.name(page, b"a")
    assert pool.find([b"a"]) == [0]
    pool.release([0])
    assert pool.take() is None
    pool.release([0])
    assert pool.take() == 0
    assert pool.find([b"a"]) == []  # its content has gone


def test_the_end_of_a_text_is_forgotten_before_its_beginning() -> None:
    pool = PagePool(3, 16)
    pages = [pool.take() for _ in range(3)]
    names = [b"1", b"2", b"3"]
    for page, name in zip(pages, names, strict=True):
        pool.name(page, name)
    pool.release(pages)
    pool.take()
    assert pool.find(names) == pages[:2]


def test_the_second_page_of_the_same_content_is_not_found_twice() -> None:
    pool = PagePool(2, 16)
    first, second = pool.take(), pool.take()
    pool.name(first, b"a")
    pool.name(second, b"a")
    pool.release([first, second])
    assert pool.find([b"a"]) == [first]
    assert pool.num_free == 1


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=40))
def test_names_are_equal_as_far_as_the_texts_are(first: list[int], second: list[int]) -> None:
    one, other = PageNames(4).of(first), PageNames(4).of(second)
    assert (len(one), len(other)) == (len(first) // 4, len(second) // 4)
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        assert (a == b) == (first[: 4 * number + 4] == second[: 4 * number + 4])


def test_names_grow_with_their_text() -> None:
    names = PageNames(4)
    ids = list(range(20))
    assert names.of(ids[:9]) == PageNames(4).of(ids)[:2]
    assert names.of(ids) == PageNames(4).of(ids)


class Owners(RuleBasedStateMachine):
    """Texts take, share and return pages in any order."""

    texts = Bundle("texts")

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(6, 16)
        self.held: list[list[int]] = []

    @rule(target=texts, shared=st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=3), count=st.integers(0, 3))
    def join(self, shared: list[bytes], count: int) -> list[int]:
        pages = self.pool.find(shared)
        for _ in range(count):
            page = self.pool.take()
            if page is not None:
                assert all(page not in other for other in self.held), "a page was given to two"
                pages.append(page)
        self.held.append(pages)
        return pages

    @rule(pages=texts, name=st.sampled_from([b"a", b"b", b"c"]))
    def fill(self, pages: list[int], name: bytes) -> None:
        if pages and any(pages is held for held in self.held):
            self.pool.name(pages[-1], name)

    @rule(pages=consumes(texts))
    def leave(self, pages: list[int]) -> None:
        self.pool.release(pages)
        self.held = [held for held in self.held if held is not pages]

    @invariant()
    def none_is_lost(self) -> None:
        owned = {page for pages in self.held for page in pages}
        assert self.pool.num_owned == len(owned)
        assert self.pool.num_free + len(owned) == 6


TestOwners = Owners.TestCase
TestOwners.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
