"""For tests of your own application: a provider on loopback, scripted answers, a fake clock.

    with LoopbackProvider(Answer.error(429)) as provider:
        chat = ChatOpenAI(base_url=provider.base_url, api_key="any", max_retries=0)

`python -m recorder.testing --port 8080` serves the same provider from a process of its own.
"""

from recorder.testing.answers import Answer, Script, scripted
from recorder.testing.fakes import FakeClock
from recorder.testing.openai_chat import openai_chat_body, openai_chat_frames, openai_error_frame
from recorder.testing.provider import LoopbackProvider, answer_openai_chat
from recorder.testing.song import pieces_of, song, song_pieces
from recorder.testing.store import MemoryStore

__all__ = [
    "Answer",
    "FakeClock",
    "LoopbackProvider",
    "MemoryStore",
    "Script",
    "answer_openai_chat",
    "openai_chat_body",
    "openai_chat_frames",
    "openai_error_frame",
    "pieces_of",
    "scripted",
    "song",
    "song_pieces",
]
