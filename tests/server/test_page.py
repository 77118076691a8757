"""The page in a real browser: list, filters, transcripts, live runs, replays, tokens, keyboard and widths."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.messages import HumanMessage
from recorder.server import create_app
from recorder.testing import song
from tests.oracle import begin, finish, new_url, record
from tests.server.browser import apart, launched, needs_chromium, opened
from tests.server.page_recordings import record_examples
from tests.server.serving import CLIENT, TOKEN, Served, recorded, serving, serving_processes
from tests.server.test_app import running

pytestmark = needs_chromium
#: Opens the page at a place (the part of the address behind #).
Open = Callable[..., AbstractContextManager[Page]]
MANY = 120


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield one browser for all tests."""
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield one server for all tests, with the examples and with many conversations of one user."""
    url = new_url(tmp_path_factory.mktemp("page"))
    apart(_fill, url)
    with serving(url) as found:
        yield found


def _fill(url: str) -> None:
    with ChatHistoryCallback(url) as history:
        for number in range(MANY):
            with history.conversation(f"many-{number}", "many"):
                record(history, HumanMessage(f"Question {number}"), reply=f"Answer {number}")
        with history.conversation("slow"):
            run_id = begin(history)
            recorded(history, run_id, ["One", " two", " three", " four"])
            finish(history, run_id, "One two three four")
        record_examples(history)
    _pause(url, str(run_id), before=2)


def _pause(url: str, run_id: str, before: int) -> None:
    """Let a recorded run have waited for an hour before a token."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        query = "SELECT seq, deltas FROM segments WHERE run_id = ?"
        for seq, deltas in connection.execute(query, (run_id,)).fetchall():
            items = json.loads(deltas)
            for number, item in enumerate(items, seq):
                item[0] += 3_600_000_000 if number >= before else 0
            change = "UPDATE segments SET deltas = ? WHERE run_id = ? AND seq = ?"
            connection.execute(change, (json.dumps(items), run_id, seq))


@pytest.fixture
def open_page(browser: Browser, server: Served) -> Open:
    """Return a function that opens the page of the server in a new session."""
    return lambda place="/", **options: opened(browser, f"{server.url}/#{place}", **options)


# -- the list --------------------------------------------------------------------------------------------------


def test_a_conversation_is_opened_from_the_list(open_page: Open) -> None:
    """The newest one comes first. Its address names it, and the back button leads to the list."""
    with open_page() as page:
        expect(page.locator(".rows a .title").first).to_have_text("Refund for order 1042")
        page.locator(".rows a").first.click()
        expect(page.locator("main h2")).to_have_text("Refund for order 1042")
        expect(page.locator(".rows a[aria-current=true]")).to_have_count(1)
        expect(page).to_have_url(re.compile("#/c/support-1042$"))
        expect(page).to_have_title("Refund for order 1042 – recorder")
        page.go_back()
        expect(page.locator("main h2")).to_have_text("No conversation is open")


def test_the_list_goes_on_while_it_is_scrolled(open_page: Open) -> None:
    """Each page is read when its end is seen, and each conversation is listed once."""
    with open_page("/?user=many") as page:
        rows = page.locator(".rows a")
        expect(rows).to_have_count(50)
        for count in (100, MANY):
            rows.last.scroll_into_view_if_needed()
            page.locator("#list").evaluate("list => { list.scrollTop = list.scrollHeight; }")
            expect(rows).to_have_count(count)
        expect(page.locator(".more")).to_have_count(0)
        titles = page.locator(".rows .title").all_text_contents()
        assert titles == [f"Question {number}" for number in reversed(range(MANY))]


def test_filters_are_part_of_the_address(open_page: Open) -> None:
    """They are chosen in the form, survive a reload and a visit of a conversation, and can be cleared."""
    with open_page() as page:
        page.locator("#more-filters summary").click()
        page.get_by_label("User").fill("anna")
        expect(page.locator(".rows a")).to_have_count(2)
        page.get_by_label("Model").fill("gpt-5.4-mini-2026-03-17")
        page.locator(".rows a").first.click()
        page.wait_for_selector(".message")
        page.reload()
        expect(page.locator(".rows a")).to_have_count(2)
        expect(page.get_by_label("User")).to_have_value("anna")
        page.get_by_label("Status").select_option("cancelled")
        expect(page.locator("#list .notice")).to_contain_text("No conversation matches")
        page.get_by_role("button", name="Clear the filters").click()
        expect(page.locator(".rows a")).to_have_count(50)


def test_a_search_leads_to_the_message(open_page: Open) -> None:
    """Hits show the words around the place. The message of one is shown in its branch, with the words marked."""
    with open_page() as page:
        page.get_by_label("Search messages").fill("full refund")
        expect(page.locator(".snippet mark").first).to_have_text("full")
        expect(page.locator(".rows a")).to_have_count(1)
        page.locator(".rows a").click()
        expect(page.locator(".message.found .text")).to_contain_text("you get the full refund")
        expect(page.locator(".rows a[aria-current=true]")).to_have_count(1)
        assert page.evaluate("CSS.highlights.get('search').size") == 2
        page.keyboard.press("Escape")
        expect(page.get_by_label("Search messages")).to_have_value("full refund")
        page.get_by_label("Search messages").fill('"refund full"')
        expect(page.locator("#list .notice")).to_contain_text("No message matches")


def test_a_search_has_filters_and_pages(open_page: Open) -> None:
    """Two characters of Chinese are found; the hits of one user are listed page by page."""
    with open_page(f"/?q={quote('免运')}") as page:
        expect(page.locator(".snippet mark")).to_have_text("免运")
        page.locator("#more-filters summary").click()
        page.get_by_label("User").fill("many")
        expect(page.locator("#list .notice")).to_contain_text("No message matches")
        page.get_by_label("Search messages").fill("answer")
        expect(page.locator(".rows a")).to_have_count(50)
        for count in (100, MANY):
            page.locator("#list").evaluate("list => { list.scrollTop = list.scrollHeight; }")
            expect(page.locator(".rows a")).to_have_count(count)


def test_an_empty_database_tells_the_next_step(browser: Browser, tmp_path: Path) -> None:
    """What is recorded then appears by itself."""
    url = new_url(tmp_path)
    with serving(url) as empty, opened(browser, empty.url) as page:
        expect(page.locator("#list .notice")).to_contain_text("attach(client, callbacks=[history])")
        apart(_record_one, url)
        _look(page)
        expect(page.locator(".rows a")).to_have_count(1)


def _record_one(url: str) -> None:
    with ChatHistoryCallback(url) as history:
        record(history)


# -- a transcript ----------------------------------------------------------------------------------------------


def test_a_transcript_shows_tools_and_folds_reasoning(open_page: Open) -> None:
    """Calls and results of tools are named, reasoning and instructions unfold, and evaluations are shown."""
    with open_page("/c/support-1042") as page:
        expect(page.locator(".message h3")).to_have_text(
            ["User", "Assistant", "Result of find_order", "Assistant"]
        )
        expect(page.locator(".call h4")).to_have_text("Call of find_order")
        expect(page.locator(".call .code")).to_contain_text('"order": 1042')
        expect(page.locator(".message.tool .code")).to_contain_text('"total": 24.0')
        reasoning = page.locator(".reasoning .text")
        expect(reasoning).to_be_hidden()
        page.locator(".reasoning summary").click()
        expect(reasoning).to_contain_text("The customer wants the money back")
        page.get_by_text("Instructions").click()
        expect(page.get_by_text("You help customers of a shop")).to_be_visible()
        expect(page.locator(".chips li")).to_have_text("sentiment positive 0.72")


def test_a_run_unfolds_to_what_is_stored_of_it(open_page: Open) -> None:
    """Its line has the model, the times and the usage; the rest is read when it is unfolded."""
    with open_page("/c/support-1042") as page:
        run = page.locator(".run").last
        expect(run.locator("summary")).to_contain_text("gpt-5.4-mini-2026-03-17")
        expect(run.locator("summary")).to_contain_text("to first token")
        run.locator("summary").click()
        expect(run.locator("dl")).to_contain_text("openai.chat")
        expect(run.locator("dl")).to_contain_text("sentiment")


def test_branches_are_turned_with_buttons(open_page: Open) -> None:
    """The newest branch is shown first; another answer to the same question has nothing behind it."""
    with open_page("/c/naming") as page:
        texts = page.locator(".message .text")
        expect(texts).to_have_text(
            ["Name our new lemon water in one word.", "Citronade.", "Why?", "It sounds like summer."]
        )
        page.get_by_role("button", name="The branch before").click()
        expect(texts).to_have_text(["Name our new lemon water in one word.", "Zest."])
        expect(page.get_by_role("button", name="The branch before")).to_be_disabled()
        page.get_by_role("button", name="The next branch").click()
        expect(texts).to_have_count(4)


def test_failed_runs_are_branches_with_their_errors(open_page: Open) -> None:
    """The answer that succeeded is shown; the partial of the cut one and the refused one are beside it."""
    with open_page("/c/retries") as page:
        answer = page.locator(".message.assistant")
        expect(answer.locator(".text")).to_contain_text("Carbon dioxide from deep rock")
        page.get_by_role("button", name="The branch before").click()
        expect(answer.locator(".text")).to_have_text("Yes, the spring is")
        expect(answer.locator(".error")).to_contain_text("APIConnectionError")
        for _ in range(2):
            page.get_by_role("button", name="The next branch").click()
        expect(answer.locator(".badge").first).to_have_text("error")
        expect(answer.locator(".error")).to_contain_text("RateLimitError")


def test_an_address_leads_to_one_message(open_page: Open, server: Served) -> None:
    """Its branch is chosen, and it is marked."""
    rows = CLIENT.get(f"{server.url}/conversations/naming").json()["messages"]
    [zest] = [row["message_id"] for row in rows if row["content"] == "Zest."]
    with open_page(f"/c/naming/m/{zest}") as page:
        expect(page.locator(".message.found .text")).to_have_text("Zest.")


def test_a_long_conversation_begins_with_its_end(browser: Browser, tmp_path: Path) -> None:
    """Two hundred messages are shown at first, and two hundred more with each step."""
    url = new_url(tmp_path)
    apart(_add_messages, url, 450)
    with serving(url) as long, opened(browser, f"{long.url}/#/c/long") as page:
        expect(page.locator(".message")).to_have_count(200)
        expect(page.locator(".message .text").last).to_have_text("Message 449")
        for count in (400, 450):
            page.locator(".earlier").click()
            expect(page.locator(".message")).to_have_count(count)
        expect(page.locator(".earlier")).to_have_count(0)


def _add_messages(url: str, count: int) -> None:
    with ChatHistoryCallback(url) as history:
        history.add_messages([f"Message {number}" for number in range(count)], conversation_id="long")


# -- live runs and replays ---------------------------------------------------------------------------------------


def test_a_live_run_goes_on_after_the_server_was_killed(browser: Browser, tmp_path: Path) -> None:
    """The text types itself. The page connects to the next server with its cursor, and nothing is lost or twice."""
    url = new_url(tmp_path)
    history = apart(ChatHistoryCallback, url, conversation_id="live")
    run_id = apart(begin, history)
    apart(recorded, history, run_id, ["One", " two"])
    with serving_processes(url, 1) as [(process, address)], opened(browser, f"{address}/#/c/live") as page:
        typed = page.locator(".typed .text")
        expect(typed).to_have_text("One two")
        expect(page.locator(".message .badge")).to_have_text("streaming")
        apart(recorded, history, run_id, [" three"])
        expect(typed).to_have_text("One two three")
        process.kill()
        process.wait(10)
        expect(page.locator(".message[data-connection=cut]")).to_have_count(1)
        apart(recorded, history, run_id, [" four"])
        with serving_processes(url, 1, "--port", address.rpartition(":")[2]):
            expect(typed).to_have_text("One two three four")
            apart(recorded, history, run_id, [" five"])
            expect(typed).to_have_text("One two three four five")
            apart(finish, history, run_id, "One two three four five")
            apart(lambda: history.close().wait(10))
            expect(page.locator(".message.assistant .badge")).to_have_count(0)
            expect(page.locator(".message.assistant .text")).to_have_text("One two three four five")
            expect(typed).to_have_count(0)


def test_a_hidden_page_reads_nothing(browser: Browser, tmp_path: Path) -> None:
    """Its stream is closed, and goes on from its cursor when the page is seen again."""
    url = new_url(tmp_path)
    history = apart(ChatHistoryCallback, url, conversation_id="live")
    run_id = apart(begin, history)
    apart(recorded, history, run_id, ["One"])
    with serving(url) as live, opened(browser, f"{live.url}/#/c/live") as page:
        expect(page.locator(".typed .text")).to_have_text("One")
        _set_hidden(page, True)
        _wait_for_followers(live, 0)
        apart(recorded, history, run_id, [" two"])
        requests: list[str | None] = []
        page.on("request", lambda request: requests.append(request.headers.get("last-event-id")))
        _set_hidden(page, False)
        expect(page.locator(".typed .text")).to_have_text("One two")
        _wait_for_followers(live, 1)
        assert f"{run_id}:1" in requests
    apart(lambda: history.close().wait(10))


def _set_hidden(page: Page, hidden: bool) -> None:
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def _look(page: Page) -> None:
    """Let the page look for what is new now, as it does from time to time and when it is seen again."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def _wait_for_followers(server: Served, count: int) -> None:
    """Wait until so many readers follow streams."""
    deadline = time.monotonic() + 20
    while CLIENT.get(f"{server.url}/healthz").json()["followers"] != count:
        assert time.monotonic() < deadline


def test_a_new_run_is_typed_into_an_open_conversation(browser: Browser, tmp_path: Path) -> None:
    """The branch with the new run is shown, and the error that ends it."""
    url = new_url(tmp_path)
    history = apart(ChatHistoryCallback, url, conversation_id="live")
    apart(lambda: (record(history), history.flush().wait(10)))
    with serving(url) as live, opened(browser, f"{live.url}/#/c/live") as page:
        expect(page.locator(".message")).to_have_count(2)
        run_id = apart(begin, history, HumanMessage("Hi"), HumanMessage("And now?"))
        apart(recorded, history, run_id, ["Now"])
        _look(page)
        expect(page.locator(".typed .text")).to_have_text("Now")
        apart(history.on_llm_error, ValueError("the model failed"), run_id=run_id)
        apart(lambda: history.flush().wait(10))
        expect(page.locator(".message .error")).to_have_text("ValueError: the model failed")
    apart(lambda: history.close().wait(10))


def test_a_run_is_replayed_with_speed_and_pauses(open_page: Open) -> None:
    """The text types itself, and is there again when the replay is closed."""
    with open_page("/c/song") as page:
        stored = page.locator(".message.assistant .body").first
        expect(stored).to_have_text(song())
        page.get_by_role("button", name="Replay").click()
        expect(page.locator(".replaying [role=status]")).to_have_text("Replayed to its end")
        expect(page.locator(".typed")).to_have_text(song())
        expect(stored).to_be_hidden()
        page.get_by_role("button", name="Close").click()
        expect(stored).to_be_visible()
        expect(page.locator(".typed")).to_have_count(0)


def test_a_replay_goes_on_from_its_cursor_with_another_speed(open_page: Open) -> None:
    """What was chosen holds for the next replay; the tokens before the change do not come twice."""
    with open_page("/c/song") as page:
        page.get_by_role("button", name="Replay").click()
        page.get_by_label("Longest pause").select_option("as recorded")
        page.goto(page.url.replace("/c/song", "/c/slow"))
        expect(page.locator(".about .id")).to_have_text("slow")
        requests: list[tuple[str, str | None]] = []
        page.on("request", lambda sent: requests.append((sent.url, sent.headers.get("last-event-id"))))
        page.get_by_role("button", name="Replay").click()
        expect(page.locator(".typed")).to_have_text("One two")  # and then an hour of nothing
        page.get_by_label("Speed").select_option("50 ×")
        expect(page.locator(".replaying [role=status]")).to_have_text("Replayed to its end")
        expect(page.locator(".typed")).to_have_text("One two three four")
    sent = [(url.partition("?")[2], cursor) for url, cursor in requests if "/streams/" in url]
    assert [query for query, _ in sent] == ["speed=1", "speed=50"]
    assert [cursor and cursor.rpartition(":")[2] for _, cursor in sent] == [None, "2"]


# -- tokens, errors, keyboard, widths ------------------------------------------------------------------------------


def test_the_page_asks_for_a_token(browser: Browser, server: Served) -> None:
    """A wrong token is told so. The right one is sent, also in streams, until the tab is closed."""
    tokens = {TOKEN: None, "a-token-of-the-user-boris": "boris"}
    with serving(server.database.url, tokens) as guarded, opened(browser, guarded.url) as page:
        field = page.get_by_label("Token", exact=True)
        expect(field).to_be_visible()
        expect(page.locator("#token-error")).to_be_hidden()
        for token, rows in [("wrong", 0), ("a-token-of-the-user-boris", 1)]:
            field.fill(token)
            page.keyboard.press("Enter")
            if not rows:
                expect(page.locator("#token-error")).to_have_text("The server does not accept this token.")
        expect(page.locator(".rows a")).to_have_count(1)
        page.reload()
        page.locator(".rows a").click()
        page.get_by_role("button", name="Replay").click()
        expect(page.locator(".typed")).to_contain_text("whisper in the glass")
        assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]


def test_errors_are_told_with_what_the_server_says(open_page: Open) -> None:
    """The list stays usable."""
    with open_page("/c/nothing") as page:
        expect(page.locator("main .failure")).to_contain_text("No conversation 'nothing' is stored")
        page.locator(".rows a").first.click()
        expect(page.locator(".message")).to_have_count(4)


def test_a_server_that_went_away_is_told(open_page: Open) -> None:
    """What was read stays on the page, and the page connects again."""
    with open_page("/c/song") as page:
        page.wait_for_selector(".message")
        page.context.set_offline(True)
        _look(page)
        expect(page.locator("#connection")).to_have_text("The server does not answer")
        expect(page.locator(".message")).to_have_count(2)
        page.context.set_offline(False)
        _look(page)
        expect(page.locator("#connection")).to_have_text("")


def test_the_keyboard_is_enough(open_page: Open) -> None:
    """`/` searches, j and k move, Enter opens, Escape goes back."""
    with open_page() as page:
        page.wait_for_selector(".rows a")
        page.keyboard.press("/")
        expect(page.locator("#search")).to_be_focused()
        page.keyboard.press("Escape")
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("k")
        expect(page.locator(".rows a").nth(1)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main h2")).to_have_text("Write me a song about sparkling water.")
        expect(page.locator("main")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator("main h2")).to_have_text("No conversation is open")


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (900, "dark"), (1600, "light")])
def test_nothing_is_wider_than_the_window(open_page: Open, width: int, scheme: str) -> None:
    """A narrow window has the list or the transcript, a wide one has both."""
    with open_page(viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        for place in ("/", "/c/support-1042", "/c/multilingual", "/c/nothing"):
            page.goto(f"{page.url.split('#')[0]}#{place}")
            page.wait_for_selector(".rows a" if place == "/" else ".messages, .failure")
            wide = page.evaluate(
                "[document.documentElement, ...document.querySelectorAll('main, #list, #side')]"
                ".filter(node => node.scrollWidth > node.clientWidth).map(node => node.id)"
            )
            assert wide == [], place
        expect(page.locator("#side")).to_be_visible(visible=width > 760)
        page.locator(".back").first.click() if width < 760 else None
        expect(page.locator("#side")).to_be_visible()


def test_text_of_other_scripts_has_its_own_direction(open_page: Open) -> None:
    """An Arabic answer begins at the right."""
    with open_page("/c/multilingual") as page:
        page.wait_for_selector(".message")
        directions = page.locator(".message .text").evaluate_all(
            "nodes => nodes.map(node => node.matches(':dir(rtl)'))"
        )
        assert directions == [True, True, False, False]


def test_a_mounted_page_finds_its_routes(browser: Browser, server: Served) -> None:
    """Its addresses are relative; without the last slash the browser is sent there."""
    app = FastAPI()
    app.mount("/recorder", create_app(server.database.url))
    with running(app) as url, opened(browser, f"{url}/recorder#/c/{quote('song')}") as page:
        expect(page.locator(".message")).to_have_count(2)
        expect(page.locator(".rows a")).to_have_count(50)
        assert page.url.startswith(f"{url}/recorder/#")
