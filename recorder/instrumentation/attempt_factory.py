"""Makes the run of a model call that an HTTP client sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from recorder.instrumentation.attempt import Attempt
from recorder.instrumentation.deferred_attempt import DeferredAttempt
from recorder.instrumentation.linked_run import LinkedRun
from recorder.instrumentation.model_calls import ModelCall
from recorder.instrumentation.provider_errors import stream_error
from recorder.redaction.masking import Mask
from recorder.runs.anthropic_run import AnthropicRun
from recorder.runs.chat_run import ChatRun
from recorder.runs.completion_run import CompletionRun
from recorder.runs.run import TEXT_MODEL, Request, WireRun
from recorder.wire.formats import translator_of
from recorder.wire.openai.responses import WIRE as RESPONSES
from recorder.wire.openai.responses_request import conversation_id
from recorder.wire.reply import Translator
from recorder.wire.request_hash import CONTENT_KEYS, TRANSPORT_KEYS

#: Keys of a body that are no parameters: the messages, and what only controls the transport.
_NOT_PARAMETERS = (CONTENT_KEYS | TRANSPORT_KEYS | {"images"}) - {"stream_options"}
#: Hosts that the SDKs ask by default -> what recorder's own models call them.
_DEFAULT_HOSTS = {"api.openai.com": "openai", "api.anthropic.com": "anthropic"}
#: The SDKs that send through httpx only. Without them their formats are spoken through aiohttp, too.
_ON_HTTPX = ("openai", "anthropic")


class NumberedRun(NamedTuple):
    """Which run an attempt is. The first attempt of a call names no other run."""

    run_id: UUID
    attempt: int = 1
    first_run_id: UUID | None = None


AnyAttempt = Attempt | DeferredAttempt


def attempt_of(
    call: ModelCall, request: Any, handlers: Sequence[Any], names: Mapping[str, str], *,
    client: str, run: NumberedRun,
) -> AnyAttempt | None:  # fmt: skip
    """The attempt that records a call; None for a wire format without a translator.

    `names` are the conversation and the user that headers name, `client` is the name of the SDK's client.
    """
    translator = translator_of(call.endpoint.wire, call.body)
    if translator is None:
        return None
    mask = Mask()
    mask.learn_request(request)
    made = Request(
        input=call.messages,
        serialized={"lc": 1, "type": "not_implemented", "id": [call.endpoint.sdk, client], "name": client},
        provider_name=call.endpoint.sdk,
        messages=call.messages,
        body=call.body,
        stream=call.stream,
        handlers=list(handlers),
        name=client,
        tags=[],
        metadata={**_langsmith_metadata(call), **_conversation(call), **names},
        invocation_params=_parameters(call),
        input_hash=call.input_hash,
        model_type=call.model_type,
        mask=mask,
        run_id=run.run_id,
        conversation_of=run.first_run_id or run.run_id,
        attempt=run.attempt,
        first_run_id=run.first_run_id,
        host=_host_of(request),
    )
    found = Attempt(
        _run(made, translator, request, call.endpoint.sdk), _errors_of(request, call.endpoint.sdk)
    )
    only = handlers[0] if len(handlers) == 1 else None
    # Another handler wants its tokens while they stream, on the application's thread.
    return DeferredAttempt(found, only) if getattr(only, "takes_bytes", False) is True else found


def linked_attempt(
    linked: LinkedRun, call: ModelCall, request: Any, handlers: Sequence[Any], names: Mapping[str, str], *, client: str
) -> AnyAttempt | None:  # fmt: skip
    """The attempt of a request of a linked run. It is the same run for all handlers."""
    mine = [linked if each is linked.recorder_handler else each for each in handlers]
    found = attempt_of(call, request, mine, names, client=client, run=NumberedRun(linked.run_id))
    if found is not None:
        linked.follow(found)
    return found


def _errors_of(request: Any, sdk: str) -> str:
    """The library whose exceptions the application gets."""
    found: str = getattr(request, "errors_of", sdk) if sdk in _ON_HTTPX else sdk
    return found


def _run(made: Request, translator: Translator, request: Any, sdk: str) -> WireRun[Any]:
    error_of: Callable[[Any, Any], Exception] = partial(_stream_error, sdk)
    if made.model_type == TEXT_MODEL:
        return CompletionRun(made, translator, error_of)
    if sdk == "anthropic":
        return AnthropicRun(made, translator, error_of)
    return ChatRun(made, translator, error_of, host=_host_of(request) if sdk == "openai" else None)


def _stream_error(sdk: str, error: Any, _response: Any) -> Exception:
    return stream_error(sdk, error)


def _host_of(request: Any) -> str:
    """The host and the port, without user and password; a short name for the SDK's default."""
    host, port = request.url.host, request.url.port
    return _DEFAULT_HOSTS.get(host) or (f"{host}:{port}" if port is not None else host)


def _conversation(call: ModelCall) -> dict[str, str]:
    """The conversation that OpenAI keeps, if the request of the Responses API names one."""
    found = conversation_id(call.body) if call.endpoint.wire == RESPONSES else None
    return {"conversation_id": found} if found is not None else {}


def _parameters(call: ModelCall) -> dict[str, Any]:
    found = {key: value for key, value in call.body.items() if key not in _NOT_PARAMETERS}
    return found if call.input_hash and found else {**found, "body_bytes": call.size}


def _langsmith_metadata(call: ModelCall) -> dict[str, Any]:
    options = _options_of(call.body)
    found = {
        "ls_provider": call.endpoint.sdk,
        "ls_model_name": call.body.get("model"),
        "ls_model_type": call.model_type,
        "ls_temperature": options.get("temperature"),
    }
    if limit := _first_of(options, "max_tokens", "max_completion_tokens", "maxOutputTokens", "num_predict"):
        found["ls_max_tokens"] = limit
    if stop := _first_of(options, "stop", "stop_sequences", "stopSequences"):
        found["ls_stop"] = stop
    return found


def _options_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the answer is controlled with: in the body itself, or in an object of it (Gemini, Ollama)."""
    inside = body.get("generationConfig") or body.get("options")
    return {**body, **inside} if isinstance(inside, dict) else body


def _first_of(options: Mapping[str, Any], *names: str) -> Any:
    return next((found for name in names if (found := options.get(name))), None)
