"""The reading page in a real browser: drop, result, heat map, a bad file, a slow server, keys, a phone, no outside."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_case import DarkGate, Live, live, png
from test_serve import TOKEN

CHROMIUM = next((path for path in map(Path, ("/usr/bin/chromium", "/usr/bin/chromium-browser")) if path.exists()), None)
DROP = """([data, name]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name));
  const stage = document.getElementById("stage");
  for (const kind of ["dragenter", "dragover", "drop"]) {
    stage.dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
  }
}"""
DARK = """(id) => {
  const canvas = document.getElementById(id);
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return data.some((value, k) => k % 4 === 3 ? false : value > 0);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium in /usr/bin")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with live(gate=DarkGate(), maps=True) as found:
        yield found


@pytest.fixture
def page(browser: Any, server: Live) -> Iterator[Any]:
    yield from opened(browser, server)


def opened(browser: Any, server: Live, **options: Any) -> Iterator[Any]:
    """Open the page; no script may fail, nothing may be refused by the policy, nothing be asked for elsewhere."""
    context = browser.new_context(**options)
    tab = context.new_page()
    faults: list[str] = []
    asked: list[str] = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda line: faults.append(line.text) if "Security Policy" in line.text else None)
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(server.url + "/")
    yield tab
    context.close()
    assert faults == []
    assert all(url.startswith((server.url, "blob:", "data:")) for url in asked)


def drop(page: Any, film: bytes, name: str = "DOE^JANE.png") -> None:
    page.evaluate(DROP, [base64.b64encode(film).decode(), name])


def test_a_dropped_film_is_shown_with_its_findings(page: Any) -> None:
    assert page.get_by_text("Research use only", exact=True).is_visible()
    drop(page, png(153))
    page.wait_for_selector("#findings li")
    names = page.locator("#findings .name").all_inner_texts()
    shares = page.locator("#findings .share").all_inner_texts()
    assert [name.split("\n")[0].strip() for name in names][1:] == ["Pleural thickening", "Mass"]
    assert names[0].startswith("Effusion")
    assert shares == ["60 %", "40 %", "30 %"]  # 0.6, 1 - 0.6 and 0.6 / 2, the highest first
    words = page.locator("#findings .why").all_inner_texts()
    assert words[0] == "Called: the model's output 0.60 is at or above the operating point 0.50."
    assert words[1] == "Neither called nor not: the model's output 0.40 has no operating point."
    assert words[2] == "Not called: the model's output 0.30 is below 0.75."
    assert "Looks like a film that the model knows" in page.inner_text("#verdict")
    assert page.evaluate(DARK, "film")
    assert not page.evaluate(DARK, "heat")


def test_the_heat_map_goes_on_and_off_and_has_a_slider(page: Any) -> None:
    drop(page, png(153))
    page.wait_for_selector("#map:not([disabled])")
    assert page.is_disabled("#opacity")
    page.click("#map")
    page.wait_for_selector("#map[aria-pressed=true]")
    assert page.evaluate(DARK, "heat")
    assert "Effusion: where the film raises" in page.inner_text("#map-note")
    page.locator("#opacity").fill("0")
    assert not page.evaluate(DARK, "heat")
    page.locator("#opacity").fill("80")
    page.locator("#findings li button").nth(2).click()
    assert "no place raises this output" in page.inner_text("#map-note")
    assert not page.evaluate(DARK, "heat")
    page.locator("#findings li button").nth(0).click()
    page.click("#map")
    assert not page.evaluate(DARK, "heat")


def test_a_bad_file_is_said_to_be_one_and_the_next_is_read(page: Any) -> None:
    drop(page, b"no film")
    page.wait_for_selector("#problem:visible")
    assert "The film cannot be read" in page.inner_text("#problem")
    assert "Neither a PNG nor a JPEG file" in page.inner_text("#problem")
    assert not page.is_visible("#findings")
    drop(page, png(200))
    page.wait_for_selector("#findings li")
    assert not page.is_visible("#problem")


def test_a_film_that_the_gate_flags_has_its_reasons_and_numbers_only_on_request(page: Any) -> None:
    drop(page, png(10))
    page.wait_for_selector("#verdict.flagged")
    assert "does not look like a chest film" in page.inner_text("#verdict")
    assert not page.is_visible("#findings")
    page.click("#anyway")
    page.wait_for_selector("#findings li")
    assert "mean little" in page.inner_text("#verdict")


def test_a_slow_server_is_waited_for_and_can_be_given_up(page: Any, server: Live) -> None:
    server.engine.go.clear()
    try:
        drop(page, png(153))
        page.wait_for_selector("#busy:has-text('the server is busy')")
        assert page.is_visible("#cancel")
        page.keyboard.press("Escape")
        page.wait_for_selector("#problem:has-text('Cancelled')")
        drop(page, png(204))
        page.wait_for_selector("#busy:visible")
    finally:
        server.engine.go.set()
    page.wait_for_selector("#findings li")
    assert page.locator("#findings .share").first.inner_text() == "80 %"
    assert not page.is_visible("#busy")


def test_a_server_that_is_gone_is_said_to_be(browser: Any) -> None:
    with live() as found:
        tabs = opened(browser, found)
        tab = next(tabs)
        found.stop()
        drop(tab, png(100))
        tab.wait_for_selector("#problem:visible")
        assert "does not answer" in tab.inner_text("#problem")
        next(tabs, None)


def test_without_a_keras_model_the_page_says_why_there_is_no_map(browser: Any) -> None:
    with live() as found:
        for tab in opened(browser, found):
            drop(tab, png(153))
            tab.wait_for_selector("#findings li")
            assert tab.inner_text("#map-note") == "No heat map: there is no Keras model."
            assert tab.is_disabled("#map")
            assert "Not checked" in tab.inner_text("#verdict")


def test_everything_can_be_done_with_the_keyboard(page: Any) -> None:
    page.on("filechooser", lambda _: None)  # the browser hands choosers over before a key is pressed, not while
    page.focus("#stage")  # a reader's Tab; a tab without the focus may open no file chooser
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("o")
    chooser.value.set_files({"name": "film.png", "mimeType": "image/png", "buffer": png(153)})
    page.wait_for_selector("#findings li")
    page.keyboard.press("i")
    assert "invert" in page.evaluate("document.getElementById('film').style.filter")
    page.keyboard.press("b")
    assert page.input_value("#brightness") == "110"
    page.keyboard.press("Shift+C")
    assert page.input_value("#contrast") == "90"
    page.keyboard.press("0")
    assert page.input_value("#brightness") == "100"
    page.keyboard.press("j")
    assert page.locator("#findings [aria-pressed=true] .name").inner_text().startswith("Pleural")
    page.keyboard.press("k")
    page.keyboard.press("h")
    page.wait_for_selector("#map[aria-pressed=true]")
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.keyboard.press("Escape")
    assert not page.is_visible("#help")
    page.keyboard.press("t")
    assert page.get_attribute("html", "data-theme") == "light"
    page.keyboard.press("+")
    assert page.evaluate("view.zoom") == 1.25
    page.focus("#stage")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("view.x") == 40


def test_the_model_card_is_a_click_away(page: Any) -> None:
    with page.context.expect_page() as other:
        page.click("text=Model card")
    other.value.wait_for_load_state()
    assert "Model card" in other.value.title()
    assert "int8" in other.value.inner_text("main")


def test_a_token_is_asked_for_once_and_kept_in_the_tab(browser: Any) -> None:
    with live(token=TOKEN) as found:
        for tab in opened(browser, found):
            drop(tab, png(153))
            tab.wait_for_selector("#token[open]")
            tab.fill("#secret", TOKEN)
            tab.keyboard.press("Enter")
            tab.wait_for_selector("#findings li")
            assert tab.evaluate("sessionStorage.getItem('token')") == TOKEN
            assert tab.evaluate("document.cookie") == ""


def test_a_phone_shows_all_of_it_without_scrolling_sideways(browser: Any, server: Live) -> None:
    for tab in opened(browser, server, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True):
        drop(tab, png(153))
        tab.wait_for_selector("#findings li")
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        box = tab.locator("#map").bounding_box()
        assert box["height"] >= 32
        assert tab.locator("#findings li").first.bounding_box()["width"] > 300
