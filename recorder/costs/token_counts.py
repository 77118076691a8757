"""The tokens of texts and messages: counted with tiktoken for OpenAI's models where it has its data, else estimated.

The rule of thumb is one token for four bytes of UTF-8. For English it is OpenAI's own rule, four characters
(https://help.openai.com/en/articles/4936856). Vocabularies are made of bytes, so it holds roughly for other scripts:
Latin letters with accents, Greek, Cyrillic, Hebrew and Arabic have two bytes and get half a token a letter; Chinese,
Japanese, Korean, Devanagari and Thai have three and get three quarters of a token; an emoji has four and gets one.
Tokenizers differ up to several times for one text (Petrov et al., https://arxiv.org/abs/2305.15425). `docs/costs.md`
says how far the rule is off for genuine answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from recorder.core.json import dumps
from recorder.costs.encodings import local_encoding_of
from recorder.messages import BaseMessage

#: OpenAI's numbers: the tokens around each message, and before the reply.
#: https://github.com/openai/openai-cookbook/blob/main/examples/How_to_count_tokens_with_tiktoken.ipynb
MESSAGE, REPLY = 3, 3
#: The tokens of an image with `detail: low`. Those of other images depend on their size.
SMALL_IMAGE = 85
#: The bytes of a token.
_BYTES = 4
#: The most characters that tiktoken gets in one call. Its time can grow with the square of the length.
_PIECE = 20_000
#: Kinds of blocks that are counted as an image.
_IMAGES = frozenset(("image", "image_url", "input_image"))
#: Keys of blocks whose values the model does not read as text.
_NOT_TEXT = frozenset(
    ("type", "id", "index", "signature", "data", "url", "image_url", "source", "cache_control", "call_id", "base64",
     "file_data", "file_id", "file_url", "mime_type", "encrypted_content")
)  # fmt: skip

#: Parameters of a request that the model reads: schemas of tools and of the answer, in the words of the providers.
_SCHEMAS = ("tools", "functions", "response_format", "text", "format")

Counter = Callable[[str], int]


def counter_for(model: str | None) -> Counter:
    """How the tokens of a model's texts are counted here, without a download."""
    encoding = local_encoding_of(model) if model else None
    if encoding is None:
        return rule_of_thumb
    return lambda text: sum(
        len(encoding.encode_ordinary(text[start : start + _PIECE])) for start in range(0, len(text), _PIECE)
    )


def rule_of_thumb(text: str) -> int:
    """One token for four bytes; at least one if there is a text."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return -(-size // _BYTES)


def schemas_in(request: Any) -> list[Any]:
    """The schemas of tools and of the answer in a request's body; it may be None."""
    return [request[key] for key in _SCHEMAS if request.get(key)] if isinstance(request, Mapping) else []


def generated_tokens(replies: Sequence[BaseMessage], count: Counter) -> int:
    """The tokens of replies: their texts, reasoning and calls of tools."""
    return sum(_message(reply, count) - count(reply.role) for reply in replies)


def input_tokens(messages: Sequence[BaseMessage], tools: Sequence[Any], count: Counter) -> int:
    """The tokens of a request: its messages, and the schemas of its tools and of its answer."""
    schemas = sum(count(dumps(tool)) for tool in tools if tool)
    return sum(MESSAGE + _message(message, count) for message in messages) + schemas + REPLY


def _message(message: BaseMessage, count: Counter) -> int:
    content = message.content
    texts = [message.role, message.name or "", *([content] if isinstance(content, str) else ())]
    blocks = content if isinstance(content, list) else ()
    calls = [*getattr(message, "tool_calls", ()), *getattr(message, "invalid_tool_calls", ())]
    # A call may be a block and a call of the message, too. It is counted as the latter.
    parts = [block for block in blocks if not (calls and _kind(block) in ("tool_use", "function_call"))]
    texts += [text for block in parts for text in _texts(block)]
    texts += [dumps({"name": call.get("name"), "arguments": call.get("args")}) for call in calls]
    images = sum(_kind(block) in _IMAGES for block in blocks)
    return sum(count(text) for text in texts if text) + images * SMALL_IMAGE


def _kind(block: Any) -> str | None:
    found = block.get("type") if isinstance(block, Mapping) else None
    return found if isinstance(found, str) else None


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """The texts in a block, also in blocks inside of it. No deeper than a request can sensibly be."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping) and _kind(value) not in _IMAGES and depth < 20:
        for key, inner in value.items():
            if key not in _NOT_TEXT:
                yield from _texts(inner, depth + 1)
    elif isinstance(value, list) and depth < 20:
        for inner in value:
            yield from _texts(inner, depth + 1)
