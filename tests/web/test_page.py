"""The page as people meet it: in a real browser, by mouse, touch and keyboard."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.web.conftest import Server, running, until

from finescale.images import files
from finescale.networks.catalogue import NETWORKS
from finescale.web.studio import TITLES
from finescale.weights import store

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
if not CHROMIUM or not DRIVER:
    pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)", allow_module_level=True)


ELSEWHERE = "pictures.example"  # this machine by another name


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def chromium(downloads: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    options.add_argument(f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture
def page(chromium: webdriver.Chrome, server: Server) -> Iterator[webdriver.Chrome]:
    """The page, freshly opened; afterwards the browser must have complained about nothing unexpected."""
    width_of_a_desk(chromium)
    chromium.get(server.address)
    until(lambda: chromium.find_elements(By.CSS_SELECTOR, "#network option"))
    yield chromium
    log: list[dict[str, Any]] = chromium.get_log("browser")  # type: ignore[no-untyped-call]
    complaints = [entry["message"] for entry in log if entry["level"] == "SEVERE"]
    assert [message for message in complaints if not re.search("/api/jobs|/api/results|/favicon.ico", message)] == []


def width_of_a_desk(browser: webdriver.Chrome) -> None:
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    appearance(browser, "light")


def as_phone(browser: webdriver.Chrome, width: int = 390) -> None:
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


# whether the page's own script has heard of it
FOLLOWED = """
    const theme = document.documentElement.dataset.theme;
    if (!theme) return true; // a page without it
    return theme === (localStorage.getItem("finescale-theme") || arguments[0]);
"""


def appearance(browser: webdriver.Chrome, scheme: str, colours: str = "none") -> None:
    """Light or dark; without transitions, in the middle of which colours would be measured."""
    wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce", "forced-colors": colours}
    features = [{"name": name, "value": value} for name, value in wanted.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0]))")
    until(lambda: browser.execute_script(FOLLOWED, scheme))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Two pictures and a file that only says it is one."""
    rng = np.random.default_rng(5)
    found = [tmp_path / name for name in ("first.png", "second.jpg", "broken.png")]
    for path in found[:2]:
        pixels = rng.integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(path, quality=98)  # the default network suits both
    found[2].write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return found


def test_networks_are_offered_by_their_purpose_which_is_not_cut(page: webdriver.Chrome) -> None:
    as_phone(page, 320)
    network = Select(one(page, "network"))
    names = [option.get_attribute("value") for option in network.options]
    assert [option.text for option in network.options][:2] == ["Automatic", "Photographs"]
    assert network.options[names.index("rcan")].text == "rcan"  # of whose purpose nothing is known
    network.select_by_value("sa-rcan-light")
    assert one(page, "network-hint").text == "For photographs; small and fast, the default (sa-rcan-light)."
    page.execute_script("for (const title of arguments[0]) document.getElementById('network').add(new Option(title))",
                        list(TITLES.values()))  # fmt: skip
    given = page.execute_script("return document.getElementById('network').clientWidth")
    page.execute_script("document.getElementById('network').style.width = 'max-content'")
    assert given >= page.execute_script("return document.getElementById('network').clientWidth")
    assert {entry.name for entry in store.available()} & set(NETWORKS) <= set(TITLES)


@pytest.mark.slow
def test_only_what_can_be_read_is_offered(page: webdriver.Chrome) -> None:
    assert set((one(page, "files").get_attribute("accept") or "").split(",")) == set(files.READABLE)


def test_what_was_left_out_is_said_in_sight_on_a_phone(
    page: webdriver.Chrome, pictures: list[Path], tmp_path: Path
) -> None:
    as_phone(page)
    choose(page, pictures[:1])
    page.execute_script("scrollTo(0, 0)")
    (tmp_path / "notes.txt").write_text("no picture")
    one(page, "files").send_keys(str(tmp_path / "notes.txt"))
    until(lambda: one(page, "notice").is_displayed())
    place = "return document.getElementById('notice').getBoundingClientRect().bottom - innerHeight"
    until(lambda: page.execute_script(place) <= 0)


def test_a_long_name_leaves_the_buttons_in_their_row(
    page: webdriver.Chrome, pictures: list[Path], tmp_path: Path
) -> None:
    long = pictures[0].rename(tmp_path / f"{'a rather long name ' * 6}.png")
    choose(page, [long])
    enlarge(page)
    middle = "const b = document.getElementById(arguments[0]).getBoundingClientRect(); return (b.top + b.bottom) / 2"
    assert abs(page.execute_script(middle, "caption") - page.execute_script(middle, "download-current")) < 2


@pytest.mark.parametrize("device", ["desk", "phone"])
def test_a_picture_of_a_long_list_is_shown_in_sight(
    page: webdriver.Chrome, pictures: list[Path], tmp_path: Path, device: str
) -> None:
    if device == "phone":
        as_phone(page)
    choose(page, [Path(shutil.copy(pictures[0], tmp_path / f"{i}.png")) for i in range(15)])
    page.find_elements(By.CLASS_NAME, "pick")[-1].click()  # scrolls there
    box = page.execute_script("return document.getElementById('view').getBoundingClientRect()")
    assert 0 <= box["top"] < box["bottom"] <= page.execute_script("return innerHeight")


def test_only_pictures_in_sight_are_loaded(page: webdriver.Chrome, pictures: list[Path], tmp_path: Path) -> None:
    many = [Path(shutil.copy(pictures[0], tmp_path / f"{i}.png")) for i in range(150)]
    one(page, "files").send_keys("\n".join(map(str, many)))
    known = "return [...document.querySelectorAll('.thumb')].map(({ naturalWidth }) => naturalWidth)"
    until(lambda: page.execute_script(known)[:5] == [40] * 5)
    assert page.execute_script(known)[-5:] == [0] * 5
    page.execute_script("[...document.querySelectorAll('.pick')].pop().click()")
    until(lambda: one(page, "caption").text == "149.png · 40 × 30")
    until(lambda: shown(page, "before"))


def test_sentences_with_a_long_name_stay_where_they_are(
    page: webdriver.Chrome, pictures: list[Path], tmp_path: Path
) -> None:
    as_phone(page, 320)
    choose(page, [pictures[2].rename(tmp_path / f"{'broken' * 20}.png")])
    enlarge(page)
    (tmp_path / f"{'notes' * 40}.txt").write_text("no picture")
    one(page, "files").send_keys(str(tmp_path / f"{'notes' * 40}.txt"))
    until(lambda: one(page, "notice").is_displayed())
    page.find_element(By.CLASS_NAME, "pick").click()
    assert overflow(page) <= 0
    wide = "return arguments[0].scrollWidth - arguments[0].clientWidth"
    for sentence in (one(page, "notice"), one(page, "stage-note"), page.find_element(By.CLASS_NAME, "what")):
        assert sentence.is_displayed()
        assert page.execute_script(wide, sentence) <= 0, sentence.text


@pytest.mark.parametrize("size", [(200, 2), (2, 200)])
def test_a_very_wide_or_tall_picture_leaves_a_phone_its_width(
    page: webdriver.Chrome, tmp_path: Path, size: tuple[int, int]
) -> None:
    as_phone(page, 320)
    Image.new("RGB", size, "teal").save(tmp_path / "strip.png")
    choose(page, [tmp_path / "strip.png"])
    assert page.execute_script("return document.getElementById('view').clientWidth") == 292
    assert overflow(page) <= 0


def test_placeholders_can_be_read(page: webdriver.Chrome) -> None:
    colour = "return getComputedStyle(document.querySelector(arguments[0]), arguments[1]).color"
    for scheme in ("light", "dark"):
        appearance(page, scheme)
        hint = page.execute_script(colour, "#network-hint", None)  # axe measures that one, but no placeholders
        assert page.execute_script(colour, "#width", "::placeholder") == hint


def test_black_and_white_are_seen_behind_transparent_pictures(page: webdriver.Chrome, pictures: list[Path]) -> None:
    choose(page, pictures[:1])
    for scheme in ("light", "dark"):
        appearance(page, scheme)
        for place in ("#canvas", "#after-layer", ".thumb"):
            ground = page.execute_script(
                "return getComputedStyle(document.querySelector(arguments[0])).backgroundImage", place
            )
            greys = re.findall(r"rgb\((\d+), \1, \1\)", ground)
            assert greys
            assert all(90 <= int(grey) <= 148 for grey in greys), place  # 3 : 1 to both


def moving(folder: Path) -> Path:
    """An animated picture, of which only the first frame is read."""
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    return folder / "moving.gif"


def one(page: webdriver.Chrome, identity: str) -> WebElement:
    return page.find_element(By.ID, identity)


def choose(page: webdriver.Chrome, paths: list[Path]) -> None:
    one(page, "files").send_keys("\n".join(map(str, paths)))
    until(lambda: len(page.find_elements(By.CLASS_NAME, "item")) >= len(paths))
    until(lambda: page.execute_script("return [...document.querySelectorAll('.thumb')].every(t => t.complete)"))


def enlarge(page: webdriver.Chrome) -> None:
    """Also anew, where results are not saved, without being asked."""
    until(lambda: one(page, "go").is_enabled())
    asked(page, lambda: one(page, "go").click(), "true")
    enlarged(page)


def asked(page: webdriver.Chrome, press: Callable[[], None], answer: str = "false") -> str | None:
    """The question that comes, if one comes, when something is pressed; it is answered."""
    page.execute_script(
        "const real = window.confirm; window.asked = null; window.unask = () => (window.confirm = real);"
        f"window.confirm = (question) => {{ window.asked = question; return {answer}; }}"
    )
    press()
    question: str | None = page.execute_script("unask(); return asked")
    return question


def enlarged(page: webdriver.Chrome) -> None:
    until(lambda: not any(bar.is_displayed() for bar in page.find_elements(By.CLASS_NAME, "bar")))


def states(page: webdriver.Chrome) -> list[str]:
    return [state.text for state in page.find_elements(By.CLASS_NAME, "state")]


def overflow(page: webdriver.Chrome) -> int:
    """How far the page has to be scrolled sideways, in pixels."""
    return int(page.execute_script("return document.documentElement.scrollWidth - innerWidth"))


def split(page: webdriver.Chrome) -> int:
    return int(one(page, "knob").get_attribute("aria-valuenow") or -1)


def shown(page: webdriver.Chrome, identity: str) -> bool:
    """Whether a picture has arrived and is more than an empty frame."""
    script = "const i = document.getElementById(arguments[0]); return i.complete && i.naturalWidth"
    return bool(page.execute_script(script, identity))


def test_choose_enlarge_compare_and_download(page: webdriver.Chrome, pictures: list[Path], downloads: Path) -> None:
    assert not one(page, "go").is_enabled()
    choose(page, pictures[:2])
    assert one(page, "go").text == "Enlarge 2 pictures"
    assert one(page, "live").text == "2 pictures are added."
    assert "first.png · 40 × 30" in one(page, "caption").text
    page.find_element(By.CSS_SELECTOR, "input[name=scale][value='2']").send_keys(Keys.SPACE)
    enlarge(page)
    assert all(state.startswith("80 × 60") for state in states(page)), states(page)
    until(lambda: shown(page, "before") and shown(page, "after"))
    assert not one(page, "go").is_enabled()  # everything asked for is there

    knob = one(page, "knob")
    assert split(page) == 50
    knob.send_keys(Keys.ARROW_LEFT * 5)
    assert split(page) == 40
    clip = page.execute_script("return getComputedStyle(document.getElementById('after-layer')).clipPath")
    width = page.execute_script("return document.getElementById('canvas').clientWidth")
    assert abs(float(clip.split()[-1].rstrip("px)")) / width - 0.4) < 0.01
    knob.send_keys(Keys.END)
    assert (split(page), knob.get_attribute("aria-valuetext")) == (100, "100 % before, 0 % after")
    knob.send_keys(Keys.HOME)
    ActionChains(page).move_to_element(one(page, "view")).click_and_hold().move_by_offset(60, 0).release().perform()
    assert 50 < split(page) < 75  # by mouse
    ActionChains(page).move_to_element_with_offset(one(page, "view"), -60, 0).click().perform()
    clicked = split(page)
    assert 25 < clicked < 50  # by who cannot drag
    ActionChains(page).move_to_element_with_offset(one(page, "view"), 90, 0).double_click().perform()
    assert split(page) == clicked

    def zoom() -> int:
        return int(one(page, "zoom-value").text.split()[0])

    def corner() -> Any:
        """Of the picture, from the middle of the view."""
        script = """
            const [canvas, view] = ["canvas", "view"].map((id) => document.getElementById(id).getBoundingClientRect());
            return [canvas.left - view.left - view.width / 2, canvas.top - view.top - view.height / 2];
        """
        return np.array(page.execute_script(script))

    doubled, start, view, aim = zoom(), corner(), one(page, "view"), (90, 50)
    view.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert corner() - start == pytest.approx((-60, -60), abs=0.1)
    view.send_keys(Keys.ARROW_LEFT, Keys.ARROW_UP)
    held = ActionChains(page).move_to_element_with_offset(view, *aim).click_and_hold()
    held.move_by_offset(-30, 20).release().perform()
    assert corner() - start == pytest.approx((-30, 20), abs=0.1)
    seen = (aim - corner()) / doubled
    ActionChains(page).scroll_from_origin(ScrollOrigin.from_element(view, *aim), 0, 100).perform()
    assert zoom() < doubled
    assert (aim - corner()) / zoom() == pytest.approx(seen, abs=0.002)  # what is under the pointer stays there
    ActionChains(page).move_to_element_with_offset(view, *aim).double_click().perform()
    before = zoom()
    assert before < doubled
    view.send_keys("+")
    assert zoom() > before
    view.send_keys("-")
    assert zoom() == before
    view.send_keys("1")
    assert zoom() == 100
    view.send_keys("0")
    assert zoom() == before
    one(page, "zoom-in").click()
    assert zoom() > before
    view.send_keys("0")
    assert zoom() == before
    left = "return document.getElementById('canvas').getBoundingClientRect().left"
    for width in (1280, 1281):  # an even rest beside the picture, and an odd one
        metrics = {"width": width, "height": 757, "deviceScaleFactor": 1, "mobile": False}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        one(page, "zoom-real").click()
        assert zoom() == 100
        assert page.execute_script(left) % 1 == 0  # not blurred by half a pixel

    one(page, "download-current").click()
    result = until(lambda: next(downloads.glob("first_x2.png"), None))
    until(lambda: not list(downloads.glob("*.crdownload")))
    assert files.probe(result)[:2] == (80, 60)


def test_what_has_not_arrived_is_not_shown_as_another_picture(page: webdriver.Chrome, pictures: list[Path]) -> None:
    choose(page, pictures[:2])
    enlarge(page)
    until(lambda: shown(page, "after"))
    page.execute_cdp_cmd(
        "Fetch.enable", {"patterns": [{"urlPattern": "*/result?shown"}]}
    )  # holds what the server answers
    page.find_elements(By.CLASS_NAME, "pick")[1].click()
    until(lambda: one(page, "before").is_displayed() and shown(page, "before"))
    assert not one(page, "after").is_displayed()
    page.execute_cdp_cmd("Fetch.disable", {})
    until(lambda: one(page, "after").is_displayed() and shown(page, "after"))


def test_a_picture_after_another_of_its_size_fills_its_place(page: webdriver.Chrome, pictures: list[Path]) -> None:
    """Meanwhile there was no place, in which nothing fits."""
    choose(page, pictures[:1])
    until(lambda: shown(page, "before"))
    width = "return document.getElementById('canvas').clientWidth"
    before = page.execute_script(width)
    assert before > 0
    page.find_element(By.CLASS_NAME, "remove").click()
    until(lambda: not one(page, "stage").is_displayed())
    page.execute_script("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    choose(page, pictures[1:2])
    until(lambda: shown(page, "before"))
    assert page.execute_script(width) == before


def test_a_result_that_does_not_fit_is_shown_pixel_by_pixel_until_somebody_zooms(
    page: webdriver.Chrome, tmp_path: Path
) -> None:
    for name, size in (("a", (300, 225)), ("b", (310, 225))):
        Image.new("RGB", size, "teal").save(tmp_path / f"{name}.png")
    choose(page, [tmp_path / "a.png", tmp_path / "b.png"])
    pressed = "return ['zoom-fit', 'zoom-real'].map((id) => document.getElementById(id).ariaPressed)"
    assert page.execute_script(pressed) == ["true", "false"]
    enlarge(page)
    middle = """
        const box = document.getElementById(arguments[0]).getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2];
    """
    assert one(page, "zoom-value").text == "100 %"
    assert page.execute_script(pressed) == ["false", "true"]
    assert page.execute_script(middle, "canvas") == pytest.approx(page.execute_script(middle, "view"), abs=1)
    second = page.find_elements(By.CLASS_NAME, "pick")[1]
    second.click()
    assert one(page, "zoom-value").text == "100 %"  # another one, too
    one(page, "zoom-fit").click()
    for pick in page.find_elements(By.CLASS_NAME, "pick"):
        pick.click()
        assert page.execute_script(pressed) == ["true", "false"]  # whoever wants the whole of them, sees it


def test_a_result_that_cannot_be_shown_is_told(
    page: webdriver.Chrome, client: httpx.Client, pictures: list[Path]
) -> None:
    choose(page, pictures[:1])
    enlarge(page)
    until(lambda: shown(page, "after"))
    page.execute_script("document.getElementById('after').src = '/api/jobs/none/result'")
    sentence = "The enlarged picture cannot be shown here."
    until(lambda: one(page, "stage-note").text == f"{sentence} It can be downloaded.")
    assert one(page, "download-current").is_displayed()
    page.find_element(By.CLASS_NAME, "pick").click()
    until(lambda: shown(page, "after"))  # it is asked for again
    assert client.delete((one(page, "download-current").get_attribute("href") or "").removesuffix("/result")).is_success
    page.execute_script("document.getElementById('after').src = '/api/jobs/none/result'")
    until(lambda: "no longer kept" in one(page, "notice").text)


def promise(page: webdriver.Chrome) -> str:
    return str(page.execute_script("return document.querySelector('.promise').textContent"))


def test_where_pictures_go_is_said(page: webdriver.Chrome) -> None:
    assert promise(page) == "Your pictures stay on the machine where Finescale runs."  # also through a tunnel
    as_phone(page, 320)
    assert page.find_element(By.CLASS_NAME, "promise").is_displayed()
    assert overflow(page) <= 0


@pytest.mark.parametrize(("kind", "made"), [("TIFF", "TIFF"), ("HEIC", "JPEG")])
def test_a_format_that_browsers_do_not_show(
    page: webdriver.Chrome, pictures: list[Path], tmp_path: Path, kind: str, made: str
) -> None:
    file = Path(__file__).parents[1] / "images" / "heic" / "turned.heic"
    if kind == "TIFF":
        file = tmp_path / "scan.tif"
        Image.open(pictures[0]).save(file)
    choose(page, [file, Path(shutil.copy(file, tmp_path / f"other{file.suffix}"))])
    until(lambda: "cannot show this kind" in one(page, "stage-note").text)
    enlarge(page)
    for i, pick in enumerate(page.find_elements(By.CLASS_NAME, "pick")):
        pick.click()
        until(lambda: shown(page, "before") and shown(page, "after"))
        assert made in one(page, "caption").text
        assert not one(page, "stage-note").is_displayed()
        blank = [("blank" in (t.get_attribute("class") or "")) for t in page.find_elements(By.CLASS_NAME, "thumb")]
        assert blank == [False, i == 0]  # a preview only of what is looked at


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("first.png", {"result": {"format": "png", "width": 9000, "height": 8000}}, True),
        ("first.png", {"result": {"format": "tiff", "width": 40, "height": 5000}}, True),
        ("first.png", {"result": {"format": "png", "width": 5000, "height": 40}}, False),
        ("first.tif", {"source": {"width": 5000, "height": 40}}, True),
        ("first.tif", {"source": {"width": 4096, "height": 40}}, False),
    ],
)
def test_where_the_comparison_shows_less_than_the_file_has_it_says_so(
    page: webdriver.Chrome, pictures: list[Path], tmp_path: Path, name: str, change: dict[str, Any], told: bool
) -> None:
    Image.open(pictures[0]).save(tmp_path / "first.tif")
    choose(page, [tmp_path / name])
    page.execute_script(CHANGE, change)
    enlarge(page)
    assert one(page, "warnings").is_displayed() == told
    sentence = "The comparison shows a preview of at most 4096 pixels a side; the file has all of its pixels."
    assert one(page, "warnings").text == (sentence if told else "")


def test_by_touch(page: webdriver.Chrome, pictures: list[Path]) -> None:
    as_phone(page)
    choose(page, pictures[:1])
    enlarge(page)
    box: dict[str, float] = page.execute_script(
        "const v = document.getElementById('view'); v.scrollIntoView(); const b = v.getBoundingClientRect();"
        "return {x: b.left, y: b.top, width: b.width, height: b.height}"
    )
    middle = box["y"] + box["height"] / 2

    def touch(kind: str, *shares: float) -> None:
        points = [{"x": box["x"] + box["width"] * share, "y": middle, "id": i} for i, share in enumerate(shares)]
        page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.5)
    touch("touchMove", 0.4)
    touch("touchMove", 0.25)
    touch("touchEnd")
    assert 20 < split(page) < 30
    width = "return document.getElementById('canvas').clientWidth"
    before = page.execute_script(width)
    touch("touchStart", 0.45, 0.55)
    touch("touchMove", 0.3, 0.7)
    touch("touchEnd")
    assert page.execute_script(width) > 2 * before  # two fingers zoom
    assert overflow(page) <= 0


def test_what_goes_wrong_is_said(page: webdriver.Chrome, pictures: list[Path], tmp_path: Path) -> None:
    torn = tmp_path / "100%.png"  # its name is another there
    torn.write_bytes(pictures[0].read_bytes()[:-1500])
    choose(page, [torn])
    enlarge(page)
    assert states(page)[0].startswith("damaged")
    page.find_element(By.CLASS_NAME, "remove").click()
    choose(page, [pictures[2].rename(tmp_path / "bro\u202fke\u0301n.png")])  # as macOS names pictures
    enlarge(page)
    assert states(page) == ["damaged or cut off (no reason given)."]
    assert one(page, "stage-note").text == one(page, "live").text == f"bro k\u00e9n.png: {states(page)[0]}"
    assert one(page, "live").get_attribute("role") == "status"
    assert one(page, "notice").get_attribute("role") == "alert"
    assert not one(page, "notice").is_displayed()
    large = tmp_path / "large.png"
    large.write_bytes(bytes(2 << 20))
    one(page, "files").send_keys(str(large))
    too_large = "large.png was left out: this server takes files of up to 1 MiB."
    until(lambda: one(page, "notice").text == too_large)
    raw = tmp_path / "raw.nef"
    raw.write_bytes(b"")
    one(page, "files").send_keys(str(raw))
    kinds = "AVIF, BMP, GIF, HEIC, JPEG, PNG, PPM, TIFF and WEBP"
    sentence = f"raw.nef was left out: only pictures of the types {kinds} can be read here."
    until(lambda: one(page, "notice").text == sentence)
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    one(page, "files").send_keys(f"{raw}\n{text}\n{large}")
    until(
        lambda: one(page, "notice").text == f"raw.nef and notes.txt{sentence[7:].replace(' was', ' were')} {too_large}"
    )
    others = [Path(shutil.copy(text, tmp_path / f"{i}.txt")) for i in range(4)]
    one(page, "files").send_keys("\n".join(map(str, [raw, *others])))
    until(lambda: one(page, "notice").text.startswith("raw.nef, 0.txt, 1.txt and 2 more were left out: only pictures"))
    page.find_element(By.CLASS_NAME, "remove").click()
    assert page.switch_to.active_element.get_attribute("id") == "files"


def test_what_is_too_large_is_not_sent(page: webdriver.Chrome, server: Server, tmp_path: Path) -> None:
    for name, size in (("large", (1200, 900)), ("result", (600, 500))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    choose(page, [tmp_path / "large.png", tmp_path / "result.png"])
    page.execute_script(
        "window.sent = 0; const fetched = window.fetch;"
        "window.fetch = (...words) => { if (words[1]?.method === 'POST') window.sent += 1; return fetched(...words); };"
    )
    enlarge(page)
    assert states(page) == [
        "1200 × 900 pixels are more than the 1 megapixels this server takes (its option --max-megapixels).",
        "2400 × 2000 pixels are more than the 4 megapixels this server makes; choose 3× or a smaller size.",
    ]
    assert page.execute_script("return window.sent") == 0


def test_warnings_are_shown_with_their_result(page: webdriver.Chrome, pictures: list[Path], tmp_path: Path) -> None:
    choose(page, [moving(tmp_path), pictures[0]])
    enlarge(page)
    sentence = "moving.gif: has several frames or pages; only the first is read"
    until(lambda: one(page, "warnings").text == sentence)
    assert not one(page, "notice").is_displayed()  # nothing is wrong
    assert [state.endswith("see note") for state in states(page)] == [True, False]
    page.find_elements(By.CLASS_NAME, "pick")[1].click()
    assert not one(page, "warnings").is_displayed()
    page.find_elements(By.CLASS_NAME, "pick")[0].click()
    assert one(page, "warnings").text == sentence


def test_of_an_animation_both_sides_stand_still(page: webdriver.Chrome, tmp_path: Path) -> None:
    choose(page, [moving(tmp_path)])
    assert (one(page, "before").get_attribute("src") or "").startswith("blob:")
    enlarge(page)
    until(lambda: shown(page, "before") and shown(page, "after"))
    assert (one(page, "before").get_attribute("src") or "").endswith("/preview/source")


def test_the_size_of_the_result_is_told_before_it_is_made(page: webdriver.Chrome, pictures: list[Path]) -> None:
    hint = one(page, "size-hint")
    assert not hint.is_displayed()
    choose(page, pictures[:1])
    until(lambda: hint.text == "The picture becomes 160 × 120 pixels, 1.4 × 1 cm in print (300 dpi).")
    choose(page, pictures[1:2])
    page.find_element(By.CSS_SELECTOR, "input[value=own]").send_keys(Keys.SPACE)
    assert not hint.is_displayed()
    one(page, "width").send_keys("590")
    assert hint.text == "The picture shown becomes 590 × 443 pixels, 5 × 3.8 cm in print (300 dpi)."
    one(page, "height").send_keys("60")
    assert hint.text == "The picture shown becomes 80 × 60 pixels, 0.7 × 0.5 cm in print (300 dpi)."
    enlarge(page)
    assert all(state.startswith("80 × 60") for state in states(page)), states(page)


def test_quality_is_asked_where_the_type_of_the_result_has_one(page: webdriver.Chrome, pictures: list[Path]) -> None:
    quality, kind = one(page, "quality"), Select(one(page, "format"))
    choose(page, pictures[:1])
    assert not quality.is_displayed()
    choose(page, pictures[1:2])
    offered = {}
    for option in kind.options:
        kind.select_by_value(option.get_attribute("value") or "")
        offered[option.text] = quality.is_displayed() and quality.get_attribute("placeholder")
    usual = {"JPEG": "95", "WEBP": "90", "AVIF": "90"}
    assert offered == {"As it was": "95", "PNG": False, **usual, "TIFF": False}
    kind.select_by_value("")
    quality.send_keys("0")
    hold(page)
    page.execute_script("release()")
    one(page, "go").click()
    assert page.switch_to.active_element.get_attribute("id") == "quality"  # the browser says there what is wrong
    quality.send_keys(Keys.BACKSPACE + "40")
    enlarge(page)
    quality.send_keys(Keys.BACKSPACE * 2)
    assert one(page, "go").text == "Enlarge"  # the PNG is not another then
    enlarge(page)
    jpeg = {**USUAL, "quality": "40"}
    assert sent(page) == [("first.png", USUAL), ("second.jpg", jpeg), ("second.jpg", USUAL)]


def test_a_wrong_size_is_forgotten_with_another_scale(page: webdriver.Chrome, pictures: list[Path]) -> None:
    choose(page, pictures[:1])
    page.find_element(By.CSS_SELECTOR, "input[value=own]").send_keys(Keys.SPACE)
    one(page, "width").send_keys("1.5")
    one(page, "go").click()
    assert page.switch_to.active_element.get_attribute("id") == "width"  # the browser says there what is wrong
    assert states(page) == ["40 × 30"]
    page.find_element(By.CSS_SELECTOR, "input[name=scale][value='2']").send_keys(Keys.SPACE)
    enlarge(page)
    assert states(page)[0].startswith("80 × 60")
    page.find_element(By.CSS_SELECTOR, "input[value=own]").send_keys(Keys.SPACE)
    assert one(page, "width").is_enabled()
    assert one(page, "width").get_attribute("value") == "1.5"
    one(page, "width").clear()
    one(page, "width").send_keys("1e2")  # a number in every browser
    enlarge(page)
    assert states(page)[0].startswith("100 × 75")


def test_a_scale_chosen_while_the_networks_are_awaited_stays(page: webdriver.Chrome) -> None:
    wait = """
        const real = window.fetch, released = new Promise((resolve) => (window.release = resolve));
        window.fetch = async (...request) => {
          await released;
          return real(...request);
        };
    """
    script = page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": wait})
    page.refresh()
    page.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    page.find_element(By.CSS_SELECTOR, "input[name=scale][value='2']").send_keys(Keys.SPACE)
    page.execute_script("release()")
    until(lambda: page.find_elements(By.CSS_SELECTOR, "#network option"))
    page.execute_async_script("setTimeout(arguments[0])")
    assert page.find_element(By.CSS_SELECTOR, "input[name=scale]:checked").get_attribute("value") == "2"


def test_dropped_and_pasted_pictures_arrive_and_can_be_cancelled(page: webdriver.Chrome, server: Server) -> None:
    script = """
        const [kind, done] = arguments;
        const canvas = Object.assign(document.createElement("canvas"), { width: 230, height: 230 });
        const context = canvas.getContext("2d");
        context.fillRect(10, 10, 30, 30);
        canvas.toBlob((blob) => {
          const data = new DataTransfer();
          data.items.add(new File([blob], `${kind}.png`, { type: "image/png" }));
          const name = kind === "drop" ? "dataTransfer" : "clipboardData";
          const make = kind === "drop" ? DragEvent : ClipboardEvent;
          document.dispatchEvent(new make(kind, { [name]: data, bubbles: true, cancelable: true }));
          done(getComputedStyle(document.getElementById("divider")).display);
        });
    """
    before = set(server.folders()[0].iterdir())
    for kind in ("drop", "paste"):
        assert page.execute_async_script(script, kind) == "none"  # nothing is known of the picture in that moment
    thumb = page.find_element(By.CLASS_NAME, "thumb")  # dragged to the stage, it is not dropped there as one more
    ActionChains(page, 50).drag_and_drop_by_offset(thumb, -300, 0).perform()
    assert [name.text for name in page.find_elements(By.CLASS_NAME, "name")] == ["drop.png", "paste.png"]
    page.execute_script("document.querySelector('#network').value = 'rcan'")
    page.find_element(By.CSS_SELECTOR, "input[value=own]").send_keys(Keys.SPACE)
    one(page, "width").send_keys("900")
    until(lambda: one(page, "go").is_enabled())
    one(page, "go").click()
    until(lambda: any("before it" in state or "Next" in state or "Enlarging" in state for state in states(page)))
    for button in page.find_elements(By.CLASS_NAME, "remove"):
        assert (button.get_attribute("aria-label") or "").startswith("Cancel")
        button.click()
    assert states(page) == ["230 × 230", "230 × 230"]
    until(lambda: set(server.folders()[0].iterdir()) <= before)


def drop(page: webdriver.Chrome, path: Path) -> None:
    """As from a program that shows files."""
    box = page.execute_script("return document.querySelector('.drop').getBoundingClientRect()")
    place = {"x": box["x"] + 9, "y": box["y"] + 9, "data": {"items": [], "files": [str(path)], "dragOperationsMask": 1}}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, **place})


def test_the_pictures_of_a_folder_can_be_dropped(page: webdriver.Chrome, pictures: list[Path], tmp_path: Path) -> None:
    holiday = tmp_path / "holiday"
    (holiday / "beach" / ".cache").mkdir(parents=True)
    wanted = [f"beach/{i:03}.png" for i in range(120)] + ["last.JPG"]  # more than a browser tells at once
    for name in [*wanted, "notes.txt", "beach/.cache/small.png", ".hidden.png"]:
        shutil.copy(pictures[0], holiday / name)
    drop(page, holiday)
    until(lambda: page.find_elements(By.CLASS_NAME, "item"))
    names = "return [...document.querySelectorAll('.name')].map((name) => name.textContent)"
    assert page.execute_script(names) == [Path(name).name for name in wanted]
    assert not one(page, "notice").is_displayed()
    drop(page, holiday / "beach" / ".cache" / "small.png")
    until(lambda: page.execute_script(names)[-1] == "small.png")
    shutil.rmtree(holiday / "beach")
    (holiday / "last.JPG").unlink()
    drop(page, holiday)
    until(lambda: one(page, "notice").text == "There are no pictures in it that can be read here.")
    assert len(page.execute_script(names)) == 122


# Notes what is sent, and does not send it before it is released.
HOLD = """
    window.sent = [];
    const held = new Promise((resolve) => (window.release = resolve));
    const real = window.fetch;
    window.fetch = async (path, options = {}) => {
      if (options.method === "POST") {
        const { picture, ...wanted } = Object.fromEntries(options.body);
        sent.push([picture.name, wanted]);
        await held;
      }
      return real(path, options);
    };
"""


HASTE = """
    const usual = setTimeout;
    window.pauses = [];
    window.setTimeout = (work, time, ...more) => {
      pauses.push(time);
      return usual(work, time / 50, ...more);
    };
"""

# Changes what the page hears of its jobs.
CHANGE = """
    const change = arguments[0], real = window.fetch;
    window.fetch = async (path, options = {}) => {
      const reply = await real(path, options);
      if (options.method || !reply.ok || !/^.api.jobs.[^/]+$/.test(path)) return reply;
      return Response.json({ ...(await reply.json()), ...change });
    };
"""


USUAL = {"network": "auto", "scale": "2"}  # what is wanted after `hold`


def hold(page: webdriver.Chrome, scale: str = "2") -> None:
    page.execute_script(HOLD)
    page.find_element(By.CSS_SELECTOR, f"input[name=scale][value='{scale}']").send_keys(Keys.SPACE)
    until(lambda: one(page, "go").is_enabled())


def sent(page: webdriver.Chrome) -> list[tuple[str, dict[str, str]]]:
    """The name of each picture that was sent, and what was wanted of it."""
    found: list[list[Any]] = page.execute_script("return sent")
    return [(name, wanted) for name, wanted in found]


def test_pressing_twice_sends_nothing_twice(page: webdriver.Chrome, server: Server, pictures: list[Path]) -> None:
    before = set(server.folders()[0].iterdir())
    choose(page, pictures[:2])
    hold(page)
    page.execute_script("for (const _ of [1, 2]) document.getElementById('settings').requestSubmit()")
    until(lambda: states(page) == ["Sending", "Waiting to be sent"])
    assert (one(page, "go").is_enabled(), one(page, "go").text) == (False, "Enlarging …")
    page.execute_script("document.getElementById('settings').requestSubmit(); release()")
    enlarged(page)
    assert sent(page) == [("first.png", USUAL), ("second.jpg", USUAL)]
    assert len(set(server.folders()[0].iterdir()) - before) == 2


def test_pictures_added_while_others_are_sent_are_sent_after_them(page: webdriver.Chrome, pictures: list[Path]) -> None:
    choose(page, pictures[:1])
    hold(page)
    one(page, "go").click()
    one(page, "files").send_keys(str(pictures[1]))
    until(lambda: one(page, "go").is_enabled())
    one(page, "go").click()
    assert states(page) == ["Sending", "Waiting to be sent"]
    page.execute_script("release()")
    enlarged(page)
    assert sent(page) == [("first.png", USUAL), ("second.jpg", USUAL)]


@pytest.mark.slow
def test_how_far_all_are_is_told_in_the_list_and_in_the_title(page: webdriver.Chrome, pictures: list[Path]) -> None:
    choose(page, pictures[:2])
    hold(page)
    one(page, "go").click()
    until(lambda: page.title == "0 of 2 done – Finescale")
    page.execute_script("""
        const real = window.fetch, now = Date.now;
        Object.assign(window, { share: 0.1, later: 0 });
        Date.now = () => now() + later;
        window.fetch = async (path, options = {}) => {
          const reply = await real(path, options);
          if (!share || options.method || !/^.api.jobs.[^/]+$/.test(path)) return reply;
          return Response.json({ ...(await reply.json()), state: "running", progress: share, seconds_left: 9 });
        };
        release();
    """)
    until(lambda: all(state.startswith("10 %") for state in states(page)))
    page.execute_async_script("setTimeout(arguments[0], 800)")
    page.execute_script("share = 0.5; later = 240_000")  # 80 % of one in four minutes
    until(lambda: one(page, "overall").text == "0 of 2 done, about 5 minutes left")
    assert page.title == "0 of 2 done, about 5 minutes left – Finescale"
    assert not page.find_elements(By.CSS_SELECTOR, "[aria-live]:not([aria-live=off]) #overall, #overall[aria-live]")
    page.execute_script("share = 0")
    enlarged(page)
    assert (one(page, "overall").text, page.title) == ("All 2 done", "All 2 done – Finescale")
    assert one(page, "live").text.endswith(" is done. All 2 done.")  # with what is said of each anyway
    choose(page, pictures[2:])
    assert (one(page, "overall").is_displayed(), page.title) == (False, "Finescale")


@pytest.mark.parametrize("how", ["cancel", "clear"])
def test_what_is_taken_away_before_its_turn_is_not_sent(
    page: webdriver.Chrome, server: Server, pictures: list[Path], tmp_path: Path, how: str
) -> None:
    before = set(server.folders()[0].iterdir())
    last = Path(shutil.copy(pictures[0], tmp_path / "last.png"))
    choose(page, [*pictures[:2], last])
    hold(page)
    one(page, "go").click()
    if how == "clear":
        one(page, "clear").click()
    else:
        page.find_elements(By.CLASS_NAME, "remove")[1].click()
        assert states(page) == ["Sending", "40 × 30", "Waiting to be sent"]
    page.execute_script("release()")
    enlarged(page)
    page.execute_async_script("setTimeout(arguments[0], 500)")
    names = ["first.png"] if how == "clear" else ["first.png", "last.png"]
    assert [name for name, _ in sent(page)] == names
    assert len(set(server.folders()[0].iterdir()) - before) == (0 if how == "clear" else 2)


def test_cancelling_one_that_waits_for_a_full_queue_lets_the_next_go(
    page: webdriver.Chrome, pictures: list[Path]
) -> None:
    choose(page, pictures[:2])
    hold(page)
    full = "Promise.resolve(new Response('{}', { status: 429, headers: { 'Retry-After': '600' } }))"
    page.execute_script(
        "release(); const usual = window.fetch; window.fetch = (path, options) => "
        f"options?.body?.get('picture').name === 'first.png' ? {full} : usual(path, options)"
    )
    page.execute_script(HASTE)
    one(page, "go").click()
    until(lambda: states(page) == ["The queue is full, waiting", "Waiting to be sent"])
    until(lambda: page.execute_script("return pauses.length"))
    assert set(page.execute_script("return pauses")) == {2000}  # not many short ones: browsers slow them down
    page.find_element(By.CLASS_NAME, "remove").click()
    enlarged(page)
    assert states(page)[0] == "40 × 30"
    assert states(page)[1].startswith("80 × 60")


def test_settings_are_those_of_the_press(page: webdriver.Chrome, pictures: list[Path]) -> None:
    choose(page, pictures[:2])
    hold(page)
    one(page, "go").click()
    page.find_element(By.CSS_SELECTOR, "input[name=scale][value='3']").send_keys(Keys.SPACE)
    page.execute_script("release()")
    enlarged(page)
    assert all(state.startswith("80 × 60") for state in states(page)), states(page)
    assert one(page, "go").text == "Enlarge 2 pictures"  # to the size that is chosen now
    Select(one(page, "network")).select_by_value("rcan")
    Select(one(page, "format")).select_by_visible_text("WEBP")
    page.find_element(By.CSS_SELECTOR, "input[value=own]").send_keys(Keys.SPACE)
    one(page, "height").send_keys("80")
    enlarge(page)
    assert all(state.startswith("107 × 80") for state in states(page)), states(page)
    one(page, "width").send_keys("90")
    enlarge(page)
    assert all(state.startswith("90 × 68") for state in states(page)), states(page)
    assert "WEBP" in one(page, "caption").text
    chosen = [{"network": "rcan", "format": "webp", **size} for size in ({"height": "80"}, {"fit": "90x80"})]
    assert [wanted for _, wanted in sent(page)] == [each for each in (USUAL, *chosen) for _ in range(2)]


@pytest.mark.slow
def test_every_picture_gets_the_network_made_for_it_unless_one_is_chosen(
    page: webdriver.Chrome, pictures: list[Path], tmp_path: Path
) -> None:
    Image.open(pictures[0]).save(tmp_path / "poor.jpg", quality=40)
    choose(page, [tmp_path / "poor.jpg", pictures[0]])
    hold(page)
    page.execute_script("release()")
    network = Select(one(page, "network"))
    assert [option.get_attribute("value") for option in network.options][:2] == ["auto", "sa-rcan-light"]
    assert network.first_selected_option.text == "Automatic"
    assert one(page, "network-hint").text.endswith("each by the network made for them.")
    enlarge(page)
    sentence = "poor.jpg: a JPEG of quality 40; network: sa-rcan-light-jpeg, which takes the traces of JPEG away"
    assert one(page, "warnings").text == sentence
    assert [state.endswith("see note") for state in states(page)] == [True, False]
    network.select_by_value("sa-rcan-light")
    assert one(page, "network-hint").text.startswith("For photographs")
    enlarge(page)
    assert not one(page, "warnings").is_displayed()
    assert [wanted["network"] for _, wanted in sent(page)] == ["auto", "auto", "sa-rcan-light", "sa-rcan-light"]


def test_a_file_that_is_no_longer_what_was_chosen(page: webdriver.Chrome, pictures: list[Path]) -> None:
    choose(page, pictures[:2])
    pictures[0].unlink()
    os.utime(pictures[1], (0, 0))
    enlarge(page)
    sentence = "the file was changed or removed after it was chosen; choose it again."
    assert states(page) == [sentence, sentence]
    assert one(page, "live").text == f"second.jpg: {sentence}"
    page.refresh()
    pictures[2].write_bytes(b"x")
    choose(page, pictures[2:])
    page.execute_script(HASTE)
    page.execute_script("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    enlarge(page)
    assert states(page) == ["The server does not answer. Is it still running?"]
    assert one(page, "live").text == "broken.png: The server does not answer. Is it still running?"
    page.execute_script("window.fetch = () => Promise.resolve(new Response('{}', { status: 401 }))")
    enlarge(page)
    assert states(page) == ["The server asks for its token: reload the page to give it."]


def test_a_short_silence_is_waited_for(page: webdriver.Chrome, pictures: list[Path]) -> None:
    """The connection is lost before a request, within an answer, and behind a proxy; then all goes on."""
    choose(page, pictures[:2])
    page.execute_script(HASTE)
    page.execute_script("""
        const real = window.fetch, wrong = [
          () => Promise.reject(new TypeError("Failed to fetch")),
          () => Promise.resolve(new Response("{", { status: 200 })),
          () => Promise.resolve(new Response("", { status: 502 })),
          () => Promise.resolve(new Response("Service Unavailable", { status: 503 })),
        ];
        window.count = 0;
        window.seen = new Set();
        new MutationObserver(() => seen.add(document.querySelector(".state").textContent))
          .observe(document.getElementById("list"), { childList: true, subtree: true, characterData: true });
        const fails = (path) => path !== "/api/health" && ++count % 2;
        window.fetch = (path, options) => fails(path) ? wrong[(count >> 1) % 4]() : real(path, options);
    """)
    enlarge(page)
    assert all(state.startswith("160 × 120") for state in states(page)), states(page)
    assert "No answer, trying again" in page.execute_script("return [...seen]")
    assert page.execute_script("return count") >= 7  # each kind of silence came
    said = "window.fetch = () => Promise.resolve(Response.json({ error: 'There are no weights.' }, { status: 503 }))"
    page.execute_script(said)
    page.find_element(By.CSS_SELECTOR, "input[name=scale][value='2']").send_keys(Keys.SPACE)
    enlarge(page)
    assert one(page, "notice").text == "second.jpg: There are no weights."


def test_unsaved_results_are_not_replaced_unasked(page: webdriver.Chrome, pictures: list[Path]) -> None:
    choose(page, pictures[:2])
    hold(page)
    page.execute_script("release()")
    enlarge(page)
    page.find_element(By.CSS_SELECTOR, "input[name=scale][value='4']").send_keys(Keys.SPACE)
    assert asked(page, one(page, "go").click) == "2 results are not saved. Replace them all the same?"
    assert (len(sent(page)), one(page, "go").text) == (2, "Enlarge 2 pictures")
    assert all(state.startswith("80 × 60") for state in states(page)), states(page)
    one(page, "download-all").click()
    until(lambda: not page.execute_script(ASKS))
    assert asked(page, one(page, "go").click) is None
    enlarged(page)
    assert all(state.startswith("160 × 120") for state in states(page)), states(page)


@pytest.mark.parametrize("how", ["refused", "failed", "forgotten", "cancelled"])
def test_a_result_stays_until_another_is_done(
    page: webdriver.Chrome, server: Server, client: httpx.Client, pictures: list[Path], how: str
) -> None:
    before = set(server.folders()[0].iterdir())
    choose(page, pictures[:1])
    page.find_element(By.CSS_SELECTOR, "input[name=scale][value='2']").send_keys(Keys.SPACE)
    enlarge(page)
    (old,) = set(server.folders()[0].iterdir()) - before
    page.find_element(By.CSS_SELECTOR, "input[name=scale][value='4']").send_keys(Keys.SPACE)
    if how == "refused":
        page.find_element(By.CSS_SELECTOR, "input[value=own]").send_keys(Keys.SPACE)
        one(page, "width").send_keys("900")
        reason = "first.png: 40 x 30 pixels can be enlarged 16 times"
    elif how == "failed":
        page.execute_script(CHANGE, {"state": "failed", "error": "first.png: damaged"})
        reason = "first.png: damaged"
    else:
        page.execute_script(CHANGE, {"state": "running", "progress": 0.5, "seconds_left": 9})
        reason = "first.png: The server no longer has this picture." if how == "forgotten" else ""
    question = "One result is not saved. Replace it all the same?"
    assert asked(page, one(page, "go").click, "true") == question
    if how in ("forgotten", "cancelled"):
        until(lambda: states(page) == ["50 %, 9 s left"])
        assert not page.find_element(By.CLASS_NAME, "download").is_displayed()
        question = "One result is not saved. Clear the list all the same?"
        assert asked(page, one(page, "clear").click) == question
        if how == "cancelled":
            page.find_element(By.CLASS_NAME, "remove").click()
            assert one(page, "live").text == "first.png is cancelled."
        else:
            (new,) = set(server.folders()[0].iterdir()) - before - {old}
            client.delete(f"/api/jobs/{new.name}")
    enlarged(page)
    assert states(page)[0].startswith("80 × 60")
    assert reason.removeprefix("first.png: ") in states(page)[0].partition("not made anew: ")[2]
    assert ("not made anew" in states(page)[0]) == bool(reason)
    assert one(page, "notice").text.startswith(reason)
    assert one(page, "notice").is_displayed() == bool(reason)
    assert one(page, "go").is_enabled()
    result = client.get(one(page, "download-current").get_attribute("href") or "")
    assert files.probe(result.content)[:2] == (80, 60)
    until(lambda: set(server.folders()[0].iterdir()) - before == {old})
    if how == "refused":
        page.find_element(By.CSS_SELECTOR, "input[name=scale][value='4']").send_keys(Keys.SPACE)
        enlarge(page)
        assert states(page)[0].startswith("160 × 120")
        assert "not made anew" not in states(page)[0]


def test_a_result_is_kept_while_another_is_waited_for(page: webdriver.Chrome, pictures: list[Path]) -> None:
    script = "window.setInterval = (work) => { window.lookAfterAll = work; }"
    once = page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    page.refresh()
    page.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", once)
    choose(page, pictures[:2])
    hold(page)
    page.execute_script("release()")
    enlarge(page)
    links = [link.get_attribute("href") or "" for link in page.find_elements(By.CLASS_NAME, "download")]
    old = [link[link.index("/api") : link.index("/result")] for link in links]
    page.execute_script("""
        const fetched = window.fetch;
        window.asked = [];
        window.fetch = (path, options) => {
          if (path.startsWith("/api/jobs/")) asked.push(path);
          return fetched(path, options);
        };
        return lookAfterAll().then(lookAfterAll);
    """)
    assert page.execute_script("return asked") == old[:1] * 2  # the first goes first, the other need not be asked for
    hold(page, "4")
    asked(page, one(page, "go").click, "true")
    page.execute_script("""
        const now = Date.now;
        window.asked = [];
        return lookAfterAll().then(() => {
          Date.now = () => now() + 3e7; // more than half of the time that results are kept
          return lookAfterAll();
        });
    """)
    assert page.execute_script("return asked") == old
    page.execute_script("release()")
    enlarged(page)
    page.execute_script("""
        window.fetch = (path) => new Promise(() => asked.push(path)); // no answer
        asked = [];
        lookAfterAll();
        lookAfterAll();
    """)
    assert len(page.execute_script("return asked")) == 1  # who waits does not ask once more


def test_a_network_that_loses_everything_is_not_waited_for_without_end(
    page: webdriver.Chrome, pictures: list[Path]
) -> None:
    choose(page, pictures[:1])
    page.execute_script(HASTE)
    page.execute_script("""
        const real = window.fetch, { timeout } = AbortSignal;
        AbortSignal.timeout = (time) => timeout.call(AbortSignal, time / 50);
        window.lost = new Set();
        window.fetch = (path, options = {}) => {
          if (options.method || lost.has(path)) return real(path, options);
          lost.add(path);
          return new Promise((_, fail) => options.signal.addEventListener("abort", () => fail(options.signal.reason)));
        };
    """)
    enlarge(page)
    assert states(page)[0].startswith("160 × 120")
    assert len(page.execute_script("return [...lost]")) == 2  # whether there is room, and how far it is


def test_another_result_takes_the_place_of_the_one_before(
    page: webdriver.Chrome, server: Server, pictures: list[Path]
) -> None:
    before = set(server.folders()[0].iterdir())
    choose(page, pictures[:1])
    for scale, size in ((2, "80 × 60"), (4, "160 × 120")):
        page.find_element(By.CSS_SELECTOR, f"input[name=scale][value='{scale}']").send_keys(Keys.SPACE)
        enlarge(page)
        assert states(page)[0].startswith(size)
    until(lambda: len(set(server.folders()[0].iterdir()) - before) == 1)


def test_a_page_opened_before_its_server_recovers(page: webdriver.Chrome, server: Server) -> None:
    script = """
        const real = window.fetch;
        window.there = false;
        window.fetch = (path, options) =>
          there ? real(path, options) : Promise.reject(new TypeError("Failed to fetch"));
    """
    once = page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script + HASTE})
    try:
        page.get(server.address)
        until(lambda: one(page, "network-hint").text == "The server does not answer. Is it still running?")
        page.execute_script("there = true")
        until(lambda: page.find_elements(By.CSS_SELECTOR, "#network option"))
        assert one(page, "network-hint").text.startswith("Photographs, JPEGs")
    finally:
        page.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", once)


def test_what_a_picture_waits_for_is_told_by_its_bar_and_asked_more_rarely(
    page: webdriver.Chrome, pictures: list[Path]
) -> None:
    choose(page, pictures[:2])
    hold(page)
    page.execute_script(HASTE)
    one(page, "go").click()
    bars = page.find_elements(By.CLASS_NAME, "bar")

    def told() -> list[tuple[str | None, str | None]]:
        return [(bar.get_attribute("aria-valuetext"), bar.get_attribute("aria-valuenow")) for bar in bars]

    assert told() == [("Sending", None), ("Waiting to be sent", "0")]
    page.execute_script(CHANGE, {"state": "waiting", "position": 3})
    page.execute_script("release()")
    until(lambda: told() == [("3 pictures before it", "0")] * 2)
    assert 1000 in page.execute_script("return pauses")
    assert 300 not in page.execute_script("return pauses")
    page.execute_script(CHANGE, {"state": "running", "progress": 0.5, "seconds_left": None})
    until(lambda: told() == [("Enlarging", None)] * 2)
    page.execute_script(CHANGE, {"state": "running", "progress": 0.5, "seconds_left": 9})
    until(lambda: told() == [(None, "50")] * 2)  # what a share is, screen readers know
    page.execute_script("pauses = []")
    until(lambda: set(page.execute_script("return pauses")) == {300})


def test_the_description_of_the_api_leaves_the_pictures_where_they_are(
    page: webdriver.Chrome, pictures: list[Path]
) -> None:
    choose(page, pictures[:1])
    here = page.current_window_handle
    page.find_element(By.LINK_TEXT, "API for scripts").click()
    until(lambda: len(page.window_handles) == 2)
    page.switch_to.window(next(handle for handle in page.window_handles if handle != here))
    until(lambda: page.current_url.endswith("/api/openapi.json"))
    page.close()
    page.switch_to.window(here)
    assert states(page) == ["40 × 30"]


def test_progress_is_not_in_the_name_that_is_spoken_with_the_focus(
    page: webdriver.Chrome, pictures: list[Path]
) -> None:
    choose(page, pictures[:1])
    hold(page)
    pick = page.find_element(By.CLASS_NAME, "pick")
    assert pick.accessible_name == "first.png, 40 × 30"
    one(page, "go").click()
    assert pick.accessible_name == "first.png"
    page.execute_script("release()")
    enlarged(page)
    assert pick.accessible_name.startswith("first.png, 80 × 60")


def test_a_server_that_has_forgotten_a_picture_is_told(page: webdriver.Chrome, pictures: list[Path]) -> None:
    choose(page, pictures[:1])
    page.execute_script("""
        const real = window.fetch;
        window.fetch = (path, options) => real(options?.method ? path : "/api/jobs/of-another-life", options);
    """)
    enlarge(page)
    assert states(page) == ["The server no longer has this picture. Enlarge it again."]
    assert one(page, "go").is_enabled()


def test_results_that_are_no_longer_kept_are_missed(
    page: webdriver.Chrome, client: httpx.Client, pictures: list[Path]
) -> None:
    page.execute_script("for (let timer = setInterval(Object, 1e6); timer; timer--) clearInterval(timer)")
    choose(page, pictures[:2])
    enlarge(page)
    links = page.find_elements(By.CLASS_NAME, "download")
    for link in links:
        assert client.delete((link.get_attribute("href") or "").removesuffix("/result")).status_code == 204
    links[1].click()
    until(lambda: one(page, "notice").text == "The result of second.jpg is no longer kept. Enlarge it again.")
    assert states(page)[1] == "The result is no longer kept"
    page.find_element(By.CLASS_NAME, "pick").click()
    until(lambda: one(page, "notice").text == "The results of 2 pictures are no longer kept. Enlarge them again.")
    assert not any(link.is_displayed() for link in [*links, one(page, "download-current")])
    assert one(page, "go").text == "Enlarge 2 pictures"
    enlarge(page)
    assert all(state.startswith("160 × 120") for state in states(page)), states(page)
    assert not one(page, "notice").is_displayed()


@pytest.mark.slow
def test_results_that_expire_are_missed_without_a_click(
    chromium: webdriver.Chrome, weights: Path, pictures: list[Path], tmp_path: Path
) -> None:
    width_of_a_desk(chromium)
    with running(weights, tmp_path, "--keep", "0.02") as brief:
        chromium.get(brief.address)
        until(lambda: chromium.find_elements(By.CSS_SELECTOR, "#network option"))
        choose(chromium, pictures[:1])
        enlarge(chromium)
        until(lambda: states(chromium) == ["The result is no longer kept"])
        assert one(chromium, "go").is_enabled()
        chromium.get("about:blank")
    chromium.get_log("browser")  # type: ignore[no-untyped-call]  # the 404 that told it


@pytest.mark.slow
def test_nothing_is_sent_that_would_push_out_what_is_not_saved(
    chromium: webdriver.Chrome, weights: Path, pictures: list[Path], tmp_path: Path
) -> None:
    width_of_a_desk(chromium)
    sentence = "The server keeps no more. Save the results that are done, or remove some; then the rest goes on."
    # three pictures of 4 kB and their results of 5 kB
    with running(weights, tmp_path, "--keep-size", "0.000028") as small:
        chromium.get(small.address)
        until(lambda: chromium.find_elements(By.CSS_SELECTOR, "#network option"))
        choose(chromium, [Path(shutil.copy(pictures[0], tmp_path / f"{i}.png")) for i in range(6)])
        chromium.find_element(By.CSS_SELECTOR, "input[name=scale][value='2']").send_keys(Keys.SPACE)
        one(chromium, "go").click()
        rest = ["Waiting until results are saved", "Waiting to be sent", "Waiting to be sent"]
        until(lambda: states(chromium)[3:] == rest)
        assert all(state.startswith("80 × 60") for state in states(chromium)[:3])
        assert one(chromium, "notice").text == sentence
        chromium.find_elements(By.CLASS_NAME, "remove")[3].click()  # who does not want it lets no other go
        until(lambda: states(chromium)[3:] == ["40 × 30", *rest[:2]])
        links = chromium.find_elements(By.CLASS_NAME, "download")
        links[0].click()
        until(lambda: states(chromium)[0] == "Saved, and no longer kept")  # and nothing is missed
        until(lambda: states(chromium)[4].startswith("80 × 60") and states(chromium)[5] == rest[0])
        assert one(chromium, "notice").text == sentence
        assert one(chromium, "go").text == "Enlarge"  # the one that was cancelled, not the one that is saved
        chromium.find_elements(By.CLASS_NAME, "pick")[0].click()  # whoever wants to see it can make it again
        until(lambda: states(chromium)[0] == "The result is no longer kept")
        assert one(chromium, "go").text == "Enlarge 2 pictures"
        one(chromium, "download-all").click()
        until(lambda: states(chromium)[5].startswith("80 × 60"))
        until(lambda: not one(chromium, "notice").is_displayed())
        chromium.get("about:blank")
    chromium.get_log("browser")  # type: ignore[no-untyped-call]  # the 404 of what was no longer kept


# whether a browser that is about to leave would ask; the question itself no script can see
ASKS = "const e = new Event('beforeunload', { cancelable: true }); dispatchEvent(e); return e.defaultPrevented"


def test_all_results_come_in_one_file_and_are_saved_when_it_has_arrived(
    page: webdriver.Chrome, client: httpx.Client, pictures: list[Path], downloads: Path, tmp_path: Path
) -> None:
    choose(page, [*pictures[:2], Path(shutil.copy(pictures[0], tmp_path / "third.png"))])
    enlarge(page)
    third = page.find_elements(By.CLASS_NAME, "download")[2].get_attribute("href") or ""
    client.delete(third.removesuffix("/result"))
    before = set(downloads.glob("*.zip"))
    held = {"urlPattern": "*/results.zip*", "resourceType": "Document"}
    page.execute_cdp_cmd("Fetch.enable", {"patterns": [held]})  # not the question whether all are there
    one(page, "download-all").click()
    until(lambda: one(page, "notice").text == "The result of third.png is no longer kept. Enlarge it again.")
    page.execute_async_script("setTimeout(arguments[0], 700)")
    assert asked(page, one(page, "clear").click) == "2 results are not saved. Clear the list all the same?"
    assert set(downloads.glob("*.zip")) == before
    page.execute_cdp_cmd("Fetch.disable", {})
    until(lambda: not page.execute_script(ASKS))
    (archive,) = until(lambda: set(downloads.glob("*.zip")) - before)
    assert ZipFile(archive).namelist() == ["first_x4.png", "second_x4.jpg"]
    assert asked(page, one(page, "clear").click) is None
    assert states(page) == []


def test_leaving_asks_while_there_is_something_to_lose(page: webdriver.Chrome, pictures: list[Path]) -> None:
    choose(page, pictures[:2])
    assert not page.execute_script(ASKS)  # they are still where they were chosen
    one(page, "go").click()
    assert page.execute_script(ASKS)
    enlarged(page)
    assert page.execute_script(ASKS)
    one(page, "download-current").click()
    clear, sentence = one(page, "clear"), "One result is not saved. Clear the list all the same?"
    until(lambda: asked(page, clear.click) == sentence)  # the other
    assert page.execute_script(ASKS)
    page.find_elements(By.CLASS_NAME, "remove")[1].click()  # as by who wanted to cancel it, a moment too late
    question = page.switch_to.alert
    assert question.text == "One result is not saved. Remove second.jpg all the same?"
    question.dismiss()
    one(page, "download-all").click()
    until(lambda: not page.execute_script(ASKS))
    page.find_elements(By.CLASS_NAME, "remove")[1].click()
    assert len(states(page)) == 1
    one(page, "clear").click()
    assert states(page) == []


def test_leaving_the_page_removes_its_pictures(page: webdriver.Chrome, server: Server, pictures: list[Path]) -> None:
    before = set(server.folders()[0].iterdir())
    choose(page, pictures[:1])
    enlarge(page)
    assert set(server.folders()[0].iterdir()) - before
    page.get("about:blank")
    until(lambda: not set(server.folders()[0].iterdir()) - before)
    page.back()
    until(lambda: not states(page) or states(page) == ["40 × 30"])
    assert not page.find_elements(By.CSS_SELECTOR, ".download:not([hidden])")


def test_the_appearance_can_be_chosen_and_is_remembered(page: webdriver.Chrome) -> None:
    def ground() -> str:
        return str(page.execute_script("return getComputedStyle(document.body).backgroundColor"))

    button, light = one(page, "theme"), ground()
    assert button.get_attribute("aria-pressed") == "false"
    button.send_keys(Keys.ENTER)
    dark = ground()
    assert dark != light
    assert button.get_attribute("aria-pressed") == "true"
    page.refresh()
    assert ground() == dark
    page.execute_script("localStorage.clear()")
    page.refresh()
    assert ground() == light  # the system's choice again
    appearance(page, "dark")
    assert ground() == dark


def test_what_colours_tell_is_seen_in_forced_colours(page: webdriver.Chrome, pictures: list[Path]) -> None:
    choose(page, pictures[:2])
    enlarge(page)
    appearance(page, "dark", "active")
    style = "return getComputedStyle(document.querySelector(arguments[0]), arguments[1])[arguments[2]]"
    assert "rgba(0, 0, 0, 0)" in page.execute_script(style, "#knob", "::before", "borderColor")  # no square
    assert page.execute_script(style, "#knob", None, "backgroundColor") == "rgb(255, 255, 255)"
    fill, track = [page.execute_script(style, part, None, "backgroundColor") for part in (".fill", ".bar")]
    assert fill != track
    edges = [page.execute_script(style, item, None, "borderColor") for item in (".item.current", ".item:not(.current)")]
    assert edges[0] != edges[1]


def test_everything_is_reached_by_the_tab_key(page: webdriver.Chrome, pictures: list[Path]) -> None:
    choose(page, pictures[:1])
    assert one(page, "live").text == "first.png is added."
    until(lambda: one(page, "go").is_enabled())
    one(page, "go").send_keys(Keys.ENTER)
    enlarged(page)
    assert page.switch_to.active_element.get_attribute("class") == "pick"  # not lost with the disabled button
    assert one(page, "live").text == "first.png is done."
    page.execute_script("document.getElementById('theme').focus()")  # the first one
    reached, focus = [], "const e = document.activeElement; return e.id || e.value || e.className"
    for _ in range(20):
        ActionChains(page).send_keys(Keys.TAB).perform()
        reached.append(page.execute_script(focus))
        outline = "return getComputedStyle(document.activeElement).outlineStyle"
        if reached[-1] in ("view", "knob", "download-current", "pick", "network"):
            assert page.execute_script(outline) == "solid", reached[-1]
    wanted = ["view", "knob", "zoom-out", "zoom-in", "zoom-fit", "zoom-real", "download-current", "files", "4"]
    wanted += ["network", "format", "clear", "pick"]
    assert [name for name in reached if name in wanted][: len(wanted)] == wanted, reached


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, which looks for what keeps people out."""
    pytest.importorskip("axe_playwright_python", reason="axe-core comes with the extra 'dev'")
    return resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")


def violations(page: webdriver.Chrome, axe: str) -> list[str]:
    """What axe-core finds, in light and in dark; nothing is left out, not even what it calls minor."""
    found: list[str] = []
    for scheme in ("light", "dark"):
        appearance(page, scheme)
        page.execute_script(axe)
        result: dict[str, Any] = page.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
        assert len(result["passes"]) > 10
        assert "color-contrast" in [rule["id"] for rule in result["passes"]]
        found += [f"{scheme}: {v['id']}: {[node['html'] for node in v['nodes']]}" for v in result["violations"]]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("device", ["desk", "phone"])
def test_axe_finds_nothing(page: webdriver.Chrome, axe: str, pictures: list[Path], tmp_path: Path, device: str) -> None:
    if device == "phone":
        as_phone(page)
    assert violations(page, axe) == []
    choose(page, [pictures[0], pictures[2], moving(tmp_path)])
    page.find_element(By.CSS_SELECTOR, "input[value=own]").send_keys(Keys.SPACE)
    one(page, "width").send_keys("100")
    assert violations(page, axe) == []
    enlarge(page)
    until(lambda: page.find_elements(By.CLASS_NAME, "failed"))
    assert violations(page, axe) == []
    page.find_element(By.CLASS_NAME, "pick").click()
    until(lambda: one(page, "knob").is_displayed())  # the first one is compared
    assert violations(page, axe) == []
    page.find_elements(By.CLASS_NAME, "pick")[2].click()
    until(lambda: one(page, "warnings").is_displayed())
    assert violations(page, axe) == []


def test_axe_sees_what_is_wrong(page: webdriver.Chrome, axe: str) -> None:
    page.execute_script(
        "document.querySelector('#network').closest('label').replaceWith(document.querySelector('#network'))"
    )
    page.execute_script("document.querySelector('.promise').style.color = '#c8c8c8'")
    found = " ".join(violations(page, axe))
    assert "light: select-name" in found
    assert "light: color-contrast" in found


@pytest.mark.slow
def test_the_page_that_asks_for_a_token(chromium: webdriver.Chrome, axe: str, weights: Path, tmp_path: Path) -> None:
    width_of_a_desk(chromium)
    with running(weights, tmp_path, "--host", "0.0.0.0", "--token", "a-token-of-20-letters") as guarded:
        chromium.get(guarded.address.replace("127.0.0.1", ELSEWHERE))
        field = chromium.find_element(By.CSS_SELECTOR, "input[name=token]")
        assert violations(chromium, axe) == []
        said = chromium.find_element(By.CLASS_NAME, "notice")
        assert not said.is_displayed()
        assert chromium.switch_to.active_element == field
        field.send_keys("a-token-of-20-letter" + Keys.ENTER)
        until(lambda: chromium.find_element(By.CLASS_NAME, "notice").is_displayed())
        assert violations(chromium, axe) == []
        field = chromium.find_element(By.CSS_SELECTOR, "input[name=token]")
        field.send_keys("a-token-of-20-letters" + Keys.ENTER)
        until(lambda: chromium.find_elements(By.CSS_SELECTOR, "#network option"))
        assert promise(chromium) == f"Your pictures go to {ELSEWHERE}, and nowhere else."
        assert "token" not in chromium.current_url  # neither in the history nor in a shared link
        chromium.get("about:blank")
    chromium.get_log("browser")  # type: ignore[no-untyped-call]  # the 401 that asked for it
