"""The page in real Chromium: opens from disk, works by mouse and keys, and stays inert whatever the model wrote."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hand_made import Episode, Step, answer_step, record, small_image
from PIL import Image, ImageStat
from playwright.sync_api import expect
from watched import Seen

from pyvision_env.errors import TraceError, UserError
from pyvision_env.report import write_page
from pyvision_env.trace import ImageRef, ObservationRecord, VideoRef, iter_traces, read_trace

pytestmark = pytest.mark.browser

Look = Callable[..., Seen]

PAYLOADS = (
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 2</script>",
    "<img src=x onerror='window.pwned = 3'>",
    "</template></style></pre></title><svg onload='window.pwned = 4'></svg>",
    "\" onmouseover=\"window.pwned = 5\" autofocus onfocus='window.pwned = 6' x='",
    "{{ 7 * 191 }}{% raw %}",
    "javascript:window.pwned = 7",
    "<!--<script>",
    "]]>&#60;script&#62;window.pwned = 8&#60;/script&#62;",
)


def hostile_traces(directory: Path) -> None:
    """An episode a payload, with the payload in every field that holds free text."""
    for number, evil in enumerate(PAYLOADS):
        code = f"{evil}\n<code>```python\n# {evil}\nx = '''{evil}'''\n```</code>\n{evil}"
        steps = [
            Step(code, evil, evil, [small_image(1)], terms={evil: 0.5}, info={"tool_error": evil}),
            Step(f"<answer>{evil}</answer>", evil, "answer", terms={evil: -1.0}, info={"answer": evil}),
            Step([0, evil], evil, evil),
        ]
        first = ObservationRecord(
            evil, (ImageRef("0" * 64, 9, 9),), (evil,), ({"width": evil, "height": evil, "fps": evil},)
        )
        header: dict[str, Any] = {
            "observation": first,
            "options": (evil, evil),
            "videos": (VideoRef("1" * 64, 5, evil),),
            "data_source": evil,
            "ability": evil,
            "agent": evil,
            "started_at": evil,
            "package_version": evil,
            "config": {"sandbox": {"kind": evil}},
        }
        record(
            directory,
            Episode(evil, evil, evil, steps, [small_image(0)], end=evil, correct=False, error=evil, header=header),
        )
        (directory / "episodes" / f"broken{number}<img src=x onerror=alert(1)>.jsonl").write_text(f"{evil}\n")


def open_all(seen: Seen) -> None:
    page = seen.page
    for index in range(page.locator(".row").count()):
        page.locator(".row").nth(index).click()
        for summary in page.locator("#episode summary").all():
            summary.click()
        page.locator("#episode").hover()


def test_opens_from_disk_without_network_and_without_a_word_on_the_console(
    three: Path, tmp_path: Path, look: Look
) -> None:
    seen = look(write_page(three, tmp_path / "page.html", title="Birds & boats"))
    open_all(seen)
    assert seen.page.title() == "Birds & boats"
    assert seen.complaints == []
    assert seen.outside == []


def test_headline_counts_episodes_by_outcome(three: Path, tmp_path: Path, look: Look) -> None:
    page = look(write_page(three, tmp_path / "page.html")).page
    figures = page.locator(".figures").inner_text()
    assert re.search(r"Episodes\s+3\s+2 graded", figures)
    assert re.search(r"Accuracy\s+50\.0%\s+1 of 2 correct", figures)
    assert re.search(r"Mean return\s+0\.550", figures)
    assert page.locator(".ends").inner_text().split("\n") == ["2 answered", "1 unfinished"]
    assert page.locator(".bar").get_attribute("aria-label") == "1 correct, 1 wrong, 1 unfinished"


def test_a_click_opens_an_episode_with_code_output_pictures_and_reward(three: Path, tmp_path: Path, look: Look) -> None:
    page = look(write_page(three, tmp_path / "page.html")).page
    page.get_by_text("Which bird is it?").first.click()
    episode = page.locator("#episode")
    assert "plt.imshow(image_clue_0.crop((0, 0, 40, 40)))" in episode.locator(".code").inner_text()
    assert episode.locator(".code .h-mi").count() == 4
    assert "Look closer." in episode.locator(".prose").first.inner_text()
    assert "New images: image_clue_1 (40x40)" in episode.locator(".turn").first.inner_text()
    assert "tool +0.1" in episode.locator(".turn").nth(1).inner_text()
    assert "heron" in episode.locator(".verdict").inner_text()
    pictures = episode.locator(".shot img")
    assert [pictures.nth(i).get_attribute("alt") for i in range(2)] == ["image_clue_0", "image_clue_1"]
    page.wait_for_function("[...document.querySelectorAll('#episode img')].every((i) => i.complete && i.naturalWidth)")


def test_filters_and_search_narrow_the_list(three: Path, tmp_path: Path, look: Look) -> None:
    page = look(write_page(three, tmp_path / "page.html")).page
    rows = page.locator(".row:visible .ask")
    for name, expected in (
        ("Correct", ["Which bird is it?"]),
        ("Wrong", ["How many boats?"]),
        ("Unfinished", ["Which tower leans?"]),
        ("All", ["Which bird is it?", "How many boats?", "Which tower leans?"]),
    ):
        page.get_by_role("group").get_by_role("button", name=name).click()
        expect(rows).to_have_text(expected)
    page.get_by_role("searchbox").fill("CROP heron")
    expect(rows).to_have_text(["Which bird is it?"])
    expect(page.get_by_role("status")).to_have_text("1 of 3 shown")
    page.get_by_role("searchbox").fill("nowhere to be found")
    expect(page.get_by_text("No episode matches.")).to_be_visible()


def test_everything_works_by_keys(three: Path, tmp_path: Path, look: Look) -> None:
    page = look(write_page(three, tmp_path / "page.html")).page
    press, heading = page.keyboard.press, page.locator("#episode .question")
    press("j")
    press("j")
    assert page.evaluate("document.activeElement.id") == "row-1"
    press("Enter")
    expect(heading).to_have_text("How many boats?")
    press("j")
    expect(heading).to_have_text("Which tower leans?")
    press("j")
    expect(heading).to_have_text("Which tower leans?")
    press("k")
    press("k")
    expect(heading).to_have_text("Which bird is it?")
    press("Escape")
    expect(heading).to_have_count(0)
    assert page.evaluate("document.activeElement.id") == "row-0"
    press("ArrowDown")
    assert page.evaluate("document.activeElement.id") == "row-1"
    press("/")
    page.keyboard.type("jk/tower")
    assert page.get_by_role("searchbox").input_value() == "jk/tower"
    press("Escape")
    press("/")
    page.keyboard.type("tower")
    press("Enter")
    expect(heading).to_have_text("Which tower leans?")


def test_focus_is_visible_on_every_control_that_tab_reaches(three: Path, tmp_path: Path, look: Look) -> None:
    page = look(write_page(three, tmp_path / "page.html")).page
    reached = set()
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", page.evaluate("document.activeElement.outerHTML")
    assert {"search", "row-0", "row-1", "row-2"} <= reached


def test_a_picture_enlarges_and_escape_closes_only_the_picture(three: Path, tmp_path: Path, look: Look) -> None:
    page = look(write_page(three, tmp_path / "page.html")).page
    page.get_by_text("Which bird is it?").first.click()
    page.get_by_role("button", name="Enlarge image_clue_0").click()
    viewer = page.locator("#viewer")
    expect(viewer).to_be_visible()
    expect(viewer.locator("p")).to_contain_text("image_clue_0 90×60")
    page.keyboard.press("ArrowRight")
    expect(viewer.locator("p")).to_contain_text("image_clue_1 40×40")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(page.locator("#episode .question")).to_have_text("Which bird is it?")
    page.get_by_role("button", name="Enlarge image_clue_1").click()
    viewer.locator("img").click()
    expect(viewer).to_be_hidden()


def test_an_episode_can_be_linked_to(three: Path, tmp_path: Path, look: Look) -> None:
    path = write_page(three, tmp_path / "page.html")
    page = look(path).page
    page.goto(f"{path.as_uri()}#1")
    page.reload()
    expect(page.locator("#episode .question")).to_have_text("How many boats?")


def without_policy(path: Path) -> Path:
    """The same page with nothing but its escaping to protect it."""
    html, found = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text(encoding="utf-8"))
    assert found == 1
    bare = path.with_name("bare.html")
    bare.write_text(html, encoding="utf-8")
    return bare


@pytest.mark.parametrize("policy", [True, False], ids=["with its policy", "by escaping alone"])
def test_hostile_text_in_every_field_does_not_run(tmp_path: Path, look: Look, policy: bool) -> None:
    hostile_traces(tmp_path / "traces")
    path = write_page(tmp_path / "traces", tmp_path / "page.html", title=PAYLOADS[3])
    seen = look(path if policy else without_policy(path))
    open_all(seen)
    page = seen.page
    assert page.locator(".row").count() == len(PAYLOADS)
    assert page.evaluate("window.pwned") is None
    assert seen.complaints == []
    assert seen.outside == []
    assert page.locator("script:not([type])").count() == 1
    assert page.locator("img:not([alt]), svg[onload], [onerror], [onmouseover], [onfocus]").count() == 0
    page.locator(".row").nth(0).click()
    shown = page.locator("#episode").inner_text()
    assert shown.count(page.locator(".row .ask").nth(0).inner_text()) >= 15, "the text itself must be there to read"
    assert "1337" not in page.content()


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine that notes the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_the_policy_alone_stops_a_script_and_a_request(three: Path, tmp_path: Path, look: Look) -> None:
    path = write_page(three, tmp_path / "page.html")
    html = path.read_text(encoding="utf-8")
    with listening() as (server, asked):
        smuggled = f'<script>window.pwned = 1</script><img src="{server}/leak.png">'
        path.write_text(html.replace("<main", f"{smuggled}<main"), encoding="utf-8")
        seen = look(path)
        assert seen.page.evaluate("window.pwned") is None
        assert any("Content Security Policy" in complaint for complaint in seen.complaints)
        assert asked == []
        bare = look(without_policy(path))
        assert bare.page.evaluate("window.pwned") == 1
        assert asked == ["/leak.png"], "without the policy both would have gone through"


def test_invisible_characters_are_shown_and_lone_surrogates_do_no_harm(tmp_path: Path, look: Look) -> None:
    text = "bell\x07 escape\x1b[31m zero\x00 right\u202eleft half\ud83d end"
    step = Step(f"<code>```python\nx = '{text}'\n```</code>", text)
    record(tmp_path / "traces", Episode(text, text, text, [step], end=None))
    seen = look(write_page(tmp_path / "traces", tmp_path / "page.html"))
    seen.page.locator(".row").click()
    expected = "bell␇ escape␛[31m zero␀ right\\u202eleft half� end"
    assert seen.page.locator(".question").inner_text() == expected
    assert expected in seen.page.locator(".code").inner_text()
    assert seen.complaints == []


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path: Path, look: Look) -> None:
    seen = look(write_page(tmp_path, tmp_path / "page.html"))
    expect(seen.page.get_by_role("heading", name="No episodes yet")).to_be_visible()
    seen.page.keyboard.press("j")
    seen.page.keyboard.press("Enter")
    assert seen.complaints == []


def test_damaged_unfinished_and_failed_episodes_are_named(three: Path, tmp_path: Path, look: Look) -> None:
    episodes = three / "episodes"
    whole = (episodes / "bird-0.jsonl").read_bytes()
    (episodes / "bird-0.jsonl").write_bytes(whole[:-30])
    (episodes / "lost-0.jsonl").write_text('{"type":"header","version":99}\n')
    picture = record(
        three, Episode("gone", "Lost picture?", "x", [answer_step("y", False)], [small_image(9)], correct=False)
    )
    digest = read_trace(picture).header.images[0].hash
    (three / "images" / f"{digest}.png").write_bytes(b"no picture")
    record(three, Episode("outage", "Was it up?", "yes", [], end="infrastructure", error="SandboxLostError: gone"))
    page = look(write_page(three, tmp_path / "page.html")).page
    expect(page.locator(".welcome .warn")).to_contain_text("lost-0.jsonl, line 1: expected trace version 1, found 99")
    for question, note in (
        ("Which bird is it?", "line 4: cut off in the middle of writing"),
        ("Which tower leans?", "The episode was left before its end."),
        ("Was it up?", "Infrastructure failed: SandboxLostError: gone"),
        ("Lost picture?", "image_clue_0 cannot be shown"),
    ):
        page.get_by_text(question).first.click()
        expect(page.locator("#episode")).to_contain_text(note)


def test_a_picture_that_many_episodes_show_is_stored_once(tmp_path: Path) -> None:
    for number in range(5):
        record(tmp_path / "traces", Episode(f"t{number}", given=[small_image(0)], end=None))
    html = write_page(tmp_path / "traces", tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.count("data:image/") == 1


def test_max_image_side_bounds_pictures_but_never_enlarges(tmp_path: Path, look: Look) -> None:
    record(tmp_path / "traces", Episode(given=[small_image(0, 300, 600), small_image(1, 20, 30)], end=None))
    page = look(write_page(tmp_path / "traces", tmp_path / "page.html", max_image_side=200)).page
    page.locator(".row").click()
    page.wait_for_function("[...document.querySelectorAll('#episode img')].every((i) => i.complete && i.naturalWidth)")
    sizes = page.evaluate(
        "[...document.querySelectorAll('#episode img')].map((i) => [i.naturalWidth, i.naturalHeight])"
    )
    assert sizes == [[200, 100], [30, 20]]


@pytest.mark.parametrize("width", [360, 820, 1600])
def test_nothing_overflows_sideways(three: Path, tmp_path: Path, look: Look, width: int) -> None:
    long = "x" * 3000
    record(
        three,
        Episode(long, long, long, [Step(f"{long}<code>```python\n{long}\n```</code>", long), answer_step(long, False)]),
    )
    page = look(write_page(three, tmp_path / "page.html"), viewport={"width": width, "height": 700}).page
    page.locator(".row").last.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (
        page.evaluate("(() => { const d = document.getElementById('detail'); return d.scrollWidth - d.clientWidth })()")
        <= 0
    )


def test_on_a_narrow_screen_an_episode_covers_the_list_until_it_is_closed(
    three: Path, tmp_path: Path, look: Look
) -> None:
    page = look(write_page(three, tmp_path / "page.html"), viewport={"width": 390, "height": 800}).page
    page.get_by_text("How many boats?").first.click()
    box = page.locator("#detail").bounding_box()
    assert box is not None
    assert (box["x"], box["y"], box["width"]) == (0, 0, 390)
    page.get_by_role("button", name="Back to the list").click()
    expect(page.locator("#row-1")).to_be_in_viewport()


def test_colours_follow_the_preferred_scheme(three: Path, tmp_path: Path, look: Look) -> None:
    path = write_page(three, tmp_path / "page.html")
    lightness = {}
    for scheme in ("light", "dark"):
        page = look(path, color_scheme=scheme).page
        page.get_by_text("Which bird is it?").first.click()
        page.screenshot(path=tmp_path / f"{scheme}.png")
        lightness[scheme] = ImageStat.Stat(Image.open(tmp_path / f"{scheme}.png").convert("L")).mean[0]
        code = page.evaluate("getComputedStyle(document.querySelector('.code .h-mi')).color")
        lightness[f"{scheme} code"] = sum(map(int, re.findall(r"\d+", code)[:3]))
    assert lightness["light"] > 200
    assert lightness["dark"] < 60
    assert lightness["dark code"] > lightness["light code"]


def test_hundreds_of_episodes_stay_quick(tmp_path: Path, look: Look) -> None:
    code = "\n".join(f"value_{i} = compute({i}) + {i}" for i in range(8))
    steps = [Step(f"<code>```python\n{code}\n```</code>", "x\n" * 50) for _ in range(2)]
    for number in range(300):
        record(
            tmp_path / "traces", Episode(f"t{number}", f"Question {number}?", steps=[*steps, answer_step("A", True)])
        )
    page = look(write_page(tmp_path / "traces", tmp_path / "page.html")).page
    begun = time.perf_counter()
    page.get_by_role("searchbox").fill("Question 299?")
    expect(page.get_by_role("status")).to_have_text("1 of 300 shown")
    page.keyboard.press("Enter")
    expect(page.locator("#episode .question")).to_have_text("Question 299?")
    assert time.perf_counter() - begun < 30


def test_a_folder_that_is_not_there_and_an_impossible_output_are_user_errors(three: Path, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="expected a folder of traces"):
        write_page(tmp_path / "nowhere", tmp_path / "page.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_page(three, tmp_path / "file" / "page.html")
    with pytest.raises(UserError, match="max_image_side"):
        write_page(three, tmp_path / "page.html", max_image_side=0)


def test_traces_can_be_given_instead_of_a_folder(three: Path, tmp_path: Path) -> None:
    chosen = [trace for trace in iter_traces(three) if trace.complete]
    html = write_page(chosen, tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.count('class="row"') == 2
