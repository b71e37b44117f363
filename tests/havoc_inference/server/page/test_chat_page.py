"""The chat page under somebody's hands, in a real browser."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.slow


def test_the_page_says_what_the_model_is_and_waits_for_a_question(page):
    assert page.one("#model-name").text == "havoc-nano"
    assert "Only a demo: a model of this size answers in form, not in fact." in page.one("#demo").text
    assert len(page.all("#examples button")) == 3
    assert page.browser.switch_to.active_element == page.one("#question")
    page.one("#model").click()
    card = page.one("#facts").text.split("\n")
    assert card == [
        "Parameters",
        "1.6 million",
        "Step of training",
        "1,200",
        "Context",
        "2,048 tokens",
        "Licence",
        "Apache-2.0",
    ]


def test_dummy_data_is_said_and_a_large_model_is_no_demo(page, stub):
    stub.havoc = {**stub.havoc, "dummy_data": True}
    page.open()
    assert page.one("#demo").text.startswith("Dummy data: this model learnt from random words.")
    stub.havoc = {**stub.havoc, "dummy_data": False, "demo": False}
    page.open()
    assert not page.one("#demo").is_displayed()


def test_an_answer_grows_as_it_comes_and_ends_as_markdown_with_formulas_and_code(page, stub):
    stub.allow(1)
    page.all("#examples button")[0].click()
    page.until(lambda: page.shown().startswith("The variance of a sample is"))  # rendered: the stars are gone
    assert page.one("#stop").is_displayed() and not page.one("#send").is_displayed()
    assert page.one(".answer").get_attribute("aria-busy") == "true"
    stub.allow(2)
    page.until(lambda: page.all(".answer math"))
    stub.allow(9)
    page.finished()
    assert [tag.text for tag in page.all(".answer pre code")] == ["import numpy\n\nnumpy.var(x, ddof=1)"]
    assert [cell.text for cell in page.all(".answer td")] == ["5", "1.58"]
    assert page.run("return document.querySelector('.answer math').getBoundingClientRect().height") > 10
    facts = page.one(".tools .facts").text
    assert facts.startswith("42 tokens · ") and facts.endswith(" tokens/s · prompt 11")
    assert stub.asked[0]["messages"] == [{"role": "user", "content": "Why does the sample variance divide by n − 1?"}]
    assert (stub.asked[0]["stream"], stub.asked[0]["max_completion_tokens"]) == (True, 512)


@pytest.mark.parametrize("how", ["button", "escape"])
def test_an_answer_is_stopped_here_and_on_the_server_and_what_came_stays(page, stub, how):
    stub.allow(1)
    page.ask("hello")
    page.until(lambda: "variance" in page.shown())
    if how == "button":
        page.one("#stop").click()
    else:
        page.type(Keys.ESCAPE)
    page.finished()
    page.until(lambda: stub.left == 1)
    assert page.shown() == "The variance of a sample is"
    assert page.one(".tools .facts").text == "stopped"
    stub.allow(9)
    page.ask("go on")
    page.finished(2)
    assert [message["content"] for message in stub.asked[1]["messages"]] == ["hello", stub.pieces[0], "go on"]


def test_regenerating_asks_the_same_again_with_another_seed(page, stub):
    page.one("#open-settings").click()
    page.one("[name=seed]").send_keys("5", Keys.ENTER)
    page.ask("hello")
    page.finished()
    stub.pieces = ["another"]
    page.tool("Regenerate").click()
    page.until(lambda: page.shown() == "another")
    page.finished()
    assert stub.asked[0]["messages"] == stub.asked[1]["messages"]
    assert stub.asked[0]["seed"] != stub.asked[1]["seed"]


def test_the_last_question_is_edited_with_an_arrow_and_what_followed_it_is_gone(page, stub):
    for number, text in enumerate(("one", "two"), start=1):
        page.ask(text)
        page.finished(number)
    page.type(Keys.ARROW_UP)
    page.type(" and more", Keys.ENTER)
    page.finished(2)
    assert [said.text for said in page.all(".said")] == ["one", "two and more"]
    page.tool("Edit").click()
    page.type("x", Keys.ESCAPE)
    assert [said.text for said in page.all(".said")] == ["one", "two and more"]
    page.tool("Edit").click()
    page.type("!", Keys.ENTER)
    page.finished(1)
    assert [said.text for said in page.all(".said")] == ["one!"]
    assert [message["content"] for message in stub.asked[-1]["messages"]] == ["one!"]


def test_a_question_may_have_lines_and_the_field_grows_with_them(page, stub):
    before = page.one("#question").size["height"]
    page.type("one", Keys.SHIFT + Keys.ENTER + Keys.NULL, "two", Keys.SHIFT + Keys.ENTER + Keys.NULL, "three")
    assert page.one("#question").size["height"] > 2 * before
    page.type(Keys.ENTER)
    page.finished()
    assert stub.asked[0]["messages"][0]["content"] == "one\ntwo\nthree"
    assert page.one("#question").size["height"] == before


def test_a_conversation_outlives_the_page_and_its_deletion_can_be_undone(page):
    page.ask("hello")
    page.finished()
    page.open()
    page.until(lambda: page.all(".answer math"))
    page.one("#clear").click()
    assert page.all(".said") == [] and page.one("#empty").is_displayed()
    page.one("#notice button").click()
    assert [said.text for said in page.all(".said")] == ["hello"]
    page.one("#clear").click()
    page.open()
    assert page.all(".said") == []


@pytest.mark.parametrize("is_secure", [True, False])
def test_an_answer_and_its_code_are_copied_as_they_were_written(page, stub, is_secure):
    """Without https there is no `navigator.clipboard`; an older way is taken."""
    page.ask("hello")
    page.finished()
    page.run(
        "window.copied = []; navigator.clipboard.writeText = async (text) => window.copied.push(text)"
        if is_secure
        else "window.copied = []; Object.defineProperty(navigator, 'clipboard', {value: undefined}); "
        "document.addEventListener('copy', () => window.copied.push(getSelection().toString() || document.activeElement.value))"
    )
    page.run("document.querySelector('.assistant .tools button').click()")
    page.run("document.querySelector('.code .copy').click()")
    page.until(lambda: len(page.run("return window.copied")) == 2)
    assert page.run("return window.copied") == ["".join(stub.pieces), "import numpy\n\nnumpy.var(x, ddof=1)\n"]
    assert page.one(".code .copy").text == "Copied"


def test_a_page_that_is_left_while_an_answer_comes_keeps_what_came(page, stub):
    stub.allow(1)
    page.ask("hello")
    page.until(lambda: "variance" in page.shown())
    page.open()
    page.until(lambda: "variance" in page.shown())
    assert [said.text for said in page.all(".said")] == ["hello"]


def test_settings_reach_the_server_and_outlive_the_page(page, stub):
    page.one("#open-settings").click()
    page.type("Be brief.")
    page.type(Keys.TAB, Keys.HOME, Keys.TAB, Keys.END, Keys.TAB)
    page.type(Keys.CONTROL + "a" + Keys.NULL, "64", Keys.TAB, "7", Keys.ENTER)
    page.open()
    page.ask("hello")
    page.finished()
    asked = stub.asked[0]
    assert (asked["temperature"], asked["top_p"], asked["max_completion_tokens"]) == (0, 1, 64)
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert isinstance(asked["seed"], int)


def test_a_failure_is_said_in_its_place_and_can_be_tried_again(page, stub):
    stub.refusals = [(429, {"message": "The server is busy: its queue is full. Ask again in 2 s."})]
    page.ask("hello")
    page.until(lambda: page.all(".failure"))
    assert page.one(".failure").text.startswith("The server is busy: its queue is full.")
    page.one(".failure button").click()
    page.finished()
    assert page.all(".failure") == []


def test_a_question_without_an_answer_is_not_sent_with_the_next_one(page, stub):
    stub.refusals = [(500, {"message": "The model failed."})]
    page.ask("one")
    page.until(lambda: page.all(".failure"))
    page.ask("two")
    page.finished(2)
    assert [message["content"] for message in stub.asked[-1]["messages"]] == ["two"]


def test_an_answer_that_breaks_off_keeps_what_came(page, stub):
    stub.breaks = True
    page.ask("hello")
    page.until(lambda: page.all(".failure"))
    assert "The connection ended before the answer did." in page.one(".failure").text
    assert "numpy.var" in page.one(".answer").text


def test_what_no_longer_fits_is_forgotten_from_its_beginning(page, stub):
    page.ask("one")
    page.finished()
    stub.refusals = [(400, {"message": "too long", "code": "context_length_exceeded"})]
    page.ask("two")
    page.finished(2)
    assert [message["content"] for message in stub.asked[-1]["messages"]] == ["two"]
    assert "without the first 2 messages" in page.all(".tools .facts")[-1].text


def test_a_server_with_keys_is_given_one_that_is_kept_in_the_tab(page, stub):
    stub.key = "right"
    page.browser.get(page.address)
    page.until(lambda: page.one("#key").is_displayed())
    page.type("wrong", Keys.ENTER)
    page.until(lambda: page.one("#key-problem").text == "The server does not know this key.")
    page.type("right", Keys.ENTER)
    page.until(lambda: page.one("#model-name").text == "havoc-nano")
    page.ask("hello")
    page.finished()
    assert page.all(".answer math")
    assert page.run("return sessionStorage.getItem('havoc-key')") == "right"
    assert "right" not in page.run("return JSON.stringify(localStorage)")


def test_dark_follows_the_system_until_it_is_chosen(page):
    def paper():
        return page.run("return getComputedStyle(document.body).backgroundColor")

    light, dark = "rgb(251, 250, 247)", "rgb(21, 24, 28)"
    assert paper() == light
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    assert paper() == dark
    page.one("#theme-toggle").click()
    assert paper() == light
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    page.one("#theme-toggle").click()
    page.open()
    assert paper() == dark


def test_on_the_narrowest_screen_nothing_is_wider_than_it(page, stub):
    stub.pieces = [
        "word" * 60,
        "\n\n```\n" + "code " * 60 + "\n```\n\n$$" + "x + " * 60 + "y$$\n\n",
        "|" + "wide column|" * 12 + "\n|" + "-|" * 12,
    ]
    screen = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        page.ask("q" * 200)
        page.finished()
        assert page.run("return document.documentElement.scrollWidth") == 320
        page.one("#open-settings").click()
        assert page.one("#settings").size["width"] <= 320
        assert page.run("return document.documentElement.scrollWidth") == 320
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_everything_is_reached_with_the_keyboard(page):
    page.ask("hello")
    page.finished()
    page.run("document.activeElement.blur()")
    reached = set()
    for _ in range(20):
        page.type(Keys.TAB)
        focus = page.browser.switch_to.active_element
        reached.add(focus.get_attribute("aria-label") or focus.get_attribute("title") or focus.text)
        outline = page.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or focus.get_attribute("id") in ("question", "") or focus.tag_name == "body"
    wanted = {
        "About the model",
        "New conversation",
        "Settings",
        "Dark or light",
        "Edit the question",
        "Copy",
        "Regenerate the answer",
        "Question",
        "Send",
    }
    assert wanted <= reached


def test_what_a_model_writes_runs_nothing(page, stub):
    stub.pieces = [
        "<img src=x onerror=\"document.title='x'\"> $\\text{<script>document.title='x'</script>}$ ![p](https://x.invalid/p.png)"
    ]
    page.ask("hello")
    page.finished()
    assert page.all(".answer img, .answer script") == []
    assert "<img src=x onerror=" in page.shown()


def test_the_page_talks_to_the_real_server_and_stops_it(visit, guarded, keys):
    page = visit(guarded.url + "/")
    page.until(lambda: page.one("#key").is_displayed())
    page.type(keys[0], Keys.ENTER)
    page.until(lambda: page.one("#model-name").text == "tiny")
    assert page.one("#demo").text.startswith("Dummy data")
    page.ask("hello")
    page.finished()
    assert page.all(".failure") == []
    assert " tokens" in page.one(".tools .facts").text
    with guarded.slow_motion(0.05):
        page.ask("hello")
        page.until(lambda: page.shown())
        page.one("#stop").click()
        page.finished(2)
        guarded.until(guarded.is_idle)
    assert page.all(".tools .facts")[-1].text.startswith("stopped")
