"""Whatever was recorded is text on the page: nothing of it runs, is loaded, or changes what stands beside it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Error, Page, expect

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.cli.demo import no_proxy
from recorder.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from tests.hostile import spoil
from tests.oracle import begin, finish, new_url, say
from tests.server.browser import apart, launched, needs_chromium, opened
from tests.server.page_recordings import answer, ask
from tests.server.serving import CLIENT, Served, serving

pytestmark = needs_chromium

#: Each would set `window.attacked`, open a dialog, load something, or break out of its place.
ATTACKS = (
    "<script>window.attacked=1;alert(1)</script>",
    "</script><script>window.attacked=1</script>",
    "<img src=x onerror=window.attacked=1>",
    '"><img src=https://attack.test/x.png onload=window.attacked=1>',
    "<svg/onload=window.attacked=1>",
    "<svg><script>window.attacked=1</script></svg>",
    "<svg><animate onbegin=window.attacked=1 attributeName=x dur=1s>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.attacked=1>",
    "<iframe srcdoc='<script>parent.attacked=1</script>'></iframe>",
    "<a href=javascript:window.attacked=1>click</a>",
    "javascript:window.attacked=1",
    "data:text/html,<script>window.attacked=1</script>",
    "' onmouseover='window.attacked=1' autofocus onfocus='window.attacked=1",
    '" style="background:url(https://attack.test/x)" x="',
    "<style>@import 'https://attack.test/x.css';*{display:none}</style>",
    "<base href=https://attack.test/><link rel=stylesheet href=/x.css>",
    "<meta http-equiv=refresh content='0;url=https://attack.test/'>",
    "<form action=https://attack.test/><button>send</button></form>",
    "<template><script>window.attacked=1</script></template><dialog open>",
    "${window.attacked=1}{{constructor.constructor('window.attacked=1')()}}<%= 1 %>",
    "__proto__",
    "<scr\u0000ipt>window.attacked=1</scr\u0000ipt>",
    "\uff1cscript\uff1ewindow.attacked=1\uff1c/script\uff1e\u2028\u2029alert(1)",
    "\u202egnp.exe\u2066\u200f\u061c <b>bold</b>",
    "\x1b]0;owned\x07\x1b[31m\r\nSet-Cookie: attacked=1\r\n\r\n<script>window.attacked=1</script>",
    "id: x:9\n\nevent: end\ndata: {}\n\n",
    "#/c/x?status=error&q=<img src=x onerror=window.attacked=1>",
    "..",
    "A" * 3_000,
    "Z\u0335\u0322" * 200,
)
_LONGEST_NAME = 200


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield one browser for all tests."""
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a server whose database has each attack in every place that a text can have."""
    url = new_url(tmp_path_factory.mktemp("attacks"))
    apart(_fill, url)
    with serving(url) as found:
        yield found


def _fill(url: str) -> None:
    with ChatHistoryCallback(url) as history:
        for number, attack in enumerate(ATTACKS):
            _record(history, number, attack)


def _record(history: ChatHistoryCallback, number: int, attack: str) -> None:
    name = attack[:_LONGEST_NAME]
    call: Any = {"name": name, "args": {name: attack}, "id": f"call{number}", "type": "tool_call"}
    messages = [
        SystemMessage(attack), ChatMessage(attack, role=name), HumanMessage(attack),
        AIMessage(attack, tool_calls=[call], additional_kwargs={"reasoning_content": attack}),
        ToolMessage(attack, tool_call_id=f"call{number}", name=name),
        HumanMessage([{"type": "text", "text": attack}, {"type": name, "url": attack, "text": attack}]),
    ]  # fmt: skip
    about: dict[str, Any] = {
        "invocation_params": {"model": name}, "tags": [name], "metadata": {"found": attack}
    }  # fmt: skip
    with history.conversation(_id(number), name, title=attack, tags=[name], metadata={name: attack}):
        failed = begin(history, *messages, **about)
        say(history, failed, [attack])
        history.on_llm_error(type(_printable(name), (Exception,), {})(attack), run_id=failed)
        good = begin(history, *messages, **about)
        say(history, good, [attack, attack])
        finish(history, good, attack + attack, finish_reason=name)
    history.add_annotation(good, name, label=name, score=0.5, data={name: attack})


def _id(number: int) -> str:
    """The id of the conversation with an attack: the attack itself, where an address can name it."""
    attack = ATTACKS[number]
    return (
        attack[:_LONGEST_NAME] if attack not in ("..", "__proto__") and len(attack) < 300 else f"id {number}"
    )


def _printable(name: str) -> str:
    """A class may not have NUL in its name."""
    return name.replace("\x00", " ")


def unfold(page: Page) -> None:
    """Open whatever is folded, and wait for what it reads."""
    page.evaluate("document.querySelectorAll('main details').forEach((each) => { each.open = true; })")
    expect(page.locator("main .run dl")).to_have_count(page.locator("main .run details").count())


def check(page: Page, place: object) -> None:
    """No element and no attribute came from a text, and nothing ran."""
    found = page.evaluate(
        """() => ({
            attacked: window.attacked ?? null,
            elements: [...document.querySelectorAll("main *, #list *")].map((node) => node.localName)
                .filter((name) => !KNOWN.has(name)),
            attributes: [...document.querySelectorAll("*")].flatMap((node) => [...node.attributes])
                .filter(({name}) => name.startsWith("on") || name === "style" || name === "srcdoc").length,
            links: [...document.querySelectorAll("main a, #list a")].map((node) => node.getAttribute("href"))
                .filter((href) => !href.startsWith("#/")),
        })""".replace("KNOWN", f"new Set({sorted(KNOWN)})")
    )
    assert found == {"attacked": None, "elements": [], "attributes": 0, "links": []}, place


#: The elements that the page itself makes.
KNOWN = frozenset(
    ("a", "article", "b", "bdi", "button", "dd", "details", "div", "dl", "dt", "footer", "h2", "h3", "h4", "header",
     "label", "li", "mark", "ol", "option", "p", "pre", "code", "section", "select", "span", "summary", "time", "ul")
)  # fmt: skip


def test_recorded_texts_stay_texts(browser: Browser, server: Served) -> None:
    """In the list, in every part of a transcript, in the details of a run, in a replay, and in errors."""
    with opened(browser, server.url) as page:
        expect(page.locator(".rows a")).to_have_count(len(ATTACKS))
        check(page, "the list")
        for number, attack in enumerate(ATTACKS):
            page.goto(f"{server.url}/#/c/{quote(_id(number), safe='')}")
            expect(page.locator(".about .id")).to_have_text(_id(number), use_inner_text=False)
            unfold(page)
            check(page, attack)
            text = page.locator(".message.assistant .text").last.evaluate("node => node.textContent")
            assert text == attack + attack
            if number % 6 == 0:
                page.get_by_role("button", name="Replay").last.click()
                expect(page.locator(".replaying [role=status]")).to_have_text("Replayed to its end")
                assert page.locator(".typed").evaluate("node => node.textContent") == attack + attack
            page.get_by_role("button", name="The next branch").last.click()
            expect(page.locator(".message .error")).to_have_count(1)
            unfold(page)
            check(page, attack)


def test_hits_of_a_search_stay_texts(browser: Browser, server: Served) -> None:
    """The words around a place are texts too."""
    with opened(browser, f"{server.url}/#/?q=attacked") as page:
        page.wait_for_selector(".snippet mark")
        check(page, "the hits")


def test_addresses_and_errors_stay_texts(browser: Browser, server: Served) -> None:
    """An address that somebody else made runs nothing either."""
    with opened(browser, server.url) as page:
        for number, attack in enumerate(ATTACKS):
            given = quote(attack, safe="")
            place = f"/c/none{given}" if number % 2 else f"/?user={given}x"
            page.goto(f"{server.url}/#{place}")
            page.wait_for_selector("main .failure" if number % 2 else "#list .notice")
            check(page, place)
        page.goto(f"{server.url}/?{ATTACKS[2]}#{ATTACKS[2]}")
        expect(page.locator(".rows a")).to_have_count(len(ATTACKS))
        check(page, "an address that names nothing")


def test_a_live_run_stays_text(browser: Browser, server: Served) -> None:
    """While it is typed."""
    history = apart(ChatHistoryCallback, server.database.url, conversation_id="live")
    run_id = apart(begin, history)
    apart(say, history, run_id, ATTACKS)
    apart(lambda: history.flush().wait(10))
    with opened(browser, f"{server.url}/#/c/live") as page:
        page.wait_for_selector(".typed .text")
        expect(page.locator(".message.assistant .badge")).to_have_text("streaming")
        check(page, "live")
    apart(lambda: history.close().wait(10))


def test_tokens_of_tools_and_reasoning_stay_texts(browser: Browser, server: Served) -> None:
    """The names of tools, their arguments and the reasoning of a replay."""
    apart(_record_tools, server.database.url)
    with opened(browser, f"{server.url}/#/c/tools") as page:
        calls = page.locator(".call h4 bdi")
        expect(calls).to_have_text(list(NAMES))
        unfold(page)
        check(page, "stored")
        page.get_by_role("button", name="Replay").click()
        expect(page.locator(".replaying [role=status]")).to_have_text("Replayed to its end")
        expect(page.locator(".typed .call h4 bdi")).to_have_text(list(NAMES))
        assert page.locator(".typed .reasoning .text").text_content() == "".join(NAMES)
        check(page, "replayed")


#: Attacks that a provider's JSON can carry.
NAMES = ATTACKS[:12]


def _record_tools(url: str) -> None:
    calls = [
        {"id": f"call{number}", "name": name, "arguments": json.dumps({name: name})}
        for number, name in enumerate(NAMES)
    ]
    with no_proxy(), ChatHistoryCallback(url, conversation_id="tools") as history:
        ask(history, [HumanMessage("Hi")], answer("", interval=0, reasoning=NAMES, tool_calls=calls))


def test_a_malicious_file_is_shown_or_refused(
    browser: Browser, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Each conversation, whatever its rows hold, is shown or told to be damaged; the page itself never fails."""
    seed = pytestconfig.option.seed
    print(f"seed {seed}")
    url = new_url(tmp_path)
    spoil(tmp_path / "history.db", seed)
    with serving(url) as damaged, opened(browser, damaged.url) as page:
        expect(page.locator(".rows a")).to_have_count(50)
        found = CLIENT.get(f"{damaged.url}/conversations?limit=200").json()["conversations"]
        ids = [each["id"] for each in found if len(each["id"]) < 1_000]
        for id in random.Random(seed).sample(ids, 25):
            page.goto(f"{damaged.url}/#/")
            expect(page.locator("main h2")).to_have_text("No conversation is open")
            page.goto(f"{damaged.url}/#/c/{quote(id, safe='')}")
            page.wait_for_selector("main .message, main .failure")
            page.evaluate(
                "document.querySelectorAll('main details').forEach((each) => { each.open = true; })"
            )
            check(page, id)


def test_text_from_right_to_left_does_not_turn_its_neighbours(browser: Browser, server: Served) -> None:
    """The letters beside a name with U+202E are where they are without it."""
    number = next(place for place, attack in enumerate(ATTACKS) if attack.startswith("\u202e"))
    with opened(browser, f"{server.url}/#/c/{quote(_id(number), safe='')}") as page:
        user = page.locator(".about .facts > span", has_text="user").first
        word = user.evaluate(
            """node => { const range = document.createRange(); range.setStart(node.firstChild, 0);
            range.setEnd(node.firstChild, 4); return range.getBoundingClientRect().left; }"""
        )
        assert word == user.evaluate("node => node.getBoundingClientRect().left")


def test_the_policy_holds_where_the_code_would_not(browser: Browser, server: Served) -> None:
    """Markup cannot be assigned; scripts and styles in the page, other hosts and frames are refused."""
    page = browser.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(server.url)
    page.wait_for_selector(".rows a")
    with pytest.raises(Error, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<img src=x onerror=window.attacked=1>'")
    with pytest.raises(Error, match="TrustedScript"):
        page.evaluate("{ const s = document.createElement('script'); s.text = 'window.attacked=1'; }")
    with pytest.raises(Error, match="Failed to fetch"):
        page.evaluate("fetch('https://attack.test/')")
    page.evaluate("document.body.setAttribute('style', 'color: red')")
    attacked, color = page.evaluate("[window.attacked ?? null, getComputedStyle(document.body).color]")
    assert attacked is None
    assert color != "rgb(255, 0, 0)"
    assert any("style-src" in text for text in refused)
    assert any("connect-src" in text for text in refused)
    page.close()
    assert CLIENT.get(server.url).headers["x-content-type-options"] == "nosniff"
