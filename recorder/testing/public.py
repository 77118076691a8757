"""The public names of `recorder.testing`, each with its module. `recorder.core.lazy_imports` reads them."""

from recorder.testing.answers import Answer as Answer
from recorder.testing.answers import Script as Script
from recorder.testing.answers import scripted as scripted
from recorder.testing.anthropic_messages import anthropic_error_frame as anthropic_error_frame
from recorder.testing.anthropic_messages import anthropic_messages_body as anthropic_messages_body
from recorder.testing.anthropic_messages import anthropic_messages_frames as anthropic_messages_frames
from recorder.testing.azure import azure_chat_body as azure_chat_body
from recorder.testing.azure import azure_chat_frames as azure_chat_frames
from recorder.testing.fakes import FakeClock as FakeClock
from recorder.testing.memory_store import MemoryStore as MemoryStore
from recorder.testing.openai_chat import openai_chat_body as openai_chat_body
from recorder.testing.openai_chat import openai_chat_frames as openai_chat_frames
from recorder.testing.openai_chat import openai_error_frame as openai_error_frame
from recorder.testing.openai_completions import openai_completion_body as openai_completion_body
from recorder.testing.openai_completions import openai_completion_frames as openai_completion_frames
from recorder.testing.provider import LoopbackProvider as LoopbackProvider
from recorder.testing.provider import answer_anthropic_messages as answer_anthropic_messages
from recorder.testing.provider import answer_azure_chat as answer_azure_chat
from recorder.testing.provider import answer_openai_chat as answer_openai_chat
from recorder.testing.provider import answer_openai_completion as answer_openai_completion
from recorder.testing.song import pieces_of as pieces_of
from recorder.testing.song import song as song
from recorder.testing.song import song_pieces as song_pieces
