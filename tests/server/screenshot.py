"""`python -m tests.server.screenshot`: makes docs/images/page.png anew, from conversations that it records itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.messages import HumanMessage
from tests.oracle import ROOT, begin, new_url, say
from tests.server.browser import apart, launched, opened
from tests.server.page_recordings import MODEL, record_examples
from tests.server.serving import serving

IMAGE = ROOT / "docs" / "images" / "page.png"
#: README is read at about this width.
SIZE = {"width": 1180, "height": 860}


def main() -> None:
    """Record, open the page, and write the image."""
    with tempfile.TemporaryDirectory() as folder:
        url = new_url(Path(folder))
        history = apart(recorded_examples, url)
        with (
            serving(url) as server,
            launched() as browser,
            opened(browser, f"{server.url}/#/c/support-1042", viewport=SIZE, color_scheme="light") as page,
        ):
            page.wait_for_selector(".message:nth-child(4)")
            page.locator(".reasoning summary").click()
            page.mouse.move(0, 0)
            IMAGE.parent.mkdir(exist_ok=True)
            page.screenshot(path=IMAGE)
        apart(lambda: history.close().wait(10))
    print(f"{IMAGE.relative_to(ROOT)}: {IMAGE.stat().st_size:,} bytes")


def recorded_examples(url: str) -> ChatHistoryCallback:
    """Record the examples, and a run that still streams."""
    history = ChatHistoryCallback(url)
    record_examples(history)
    with history.conversation("live", "boris"):
        question = HumanMessage("How much water fits into one crate?")
        run_id = begin(history, question, invocation_params={"model": MODEL})
    say(history, run_id, ["Twelve", " bottles", " of", " one"])
    history.flush().wait(10)
    return history


if __name__ == "__main__":
    main()
