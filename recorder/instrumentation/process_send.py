"""Replaces the method `send` of the clients of an HTTP library, for clients that were made before and later ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from recorder.instrumentation.default_history import default_history
from recorder.instrumentation.linked_run import linked_handler
from recorder.instrumentation.model_calls import endpoint_of
from recorder.instrumentation.process_recordings import ProcessRecording, recordings
from recorder.instrumentation.send import Sender, recorded_async_send, recorded_send

#: The classes of a library, and whether they are asynchronous.
CLIENTS = {"Client": False, "AsyncClient": True}


def replace(library: ModuleType) -> None:
    """Replace `send` of both classes."""
    for name, is_async in CLIENTS.items():
        kind = getattr(library, name)
        kind.send = (_recorded_async if is_async else _recorded)(kind.send)


def _recorded(send: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(send)
    def recorded(client: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        if endpoint_of(request) is None or _is_replay(client):
            return send(client, request, *args, **kwargs)
        call = send
        for recording in recordings():
            call = recorded_send(sender_of(recording), call)
        return call(client, request, *args, **kwargs)

    return recorded


def _recorded_async(send: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(send)
    async def recorded(client: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        if endpoint_of(request) is None or _is_replay(client):
            return await send(client, request, *args, **kwargs)
        call = send
        for recording in recordings():
            call = recorded_async_send(sender_of(recording), call)
        return await call(client, request, *args, **kwargs)

    return recorded


def _is_replay(client: Any) -> bool:
    """Whether recorder made this client, which answers from a recording."""
    return getattr(client, "answers_from_recording", False) is True


def sender_of(recording: ProcessRecording) -> Sender:
    """The sender of a recording of the process."""
    if recording.sender is None:  # two threads may make one each; both are alike
        default = linked_handler if recording.is_linked else default_history
        sender = Sender(recording.hosts, None if recording.handlers else default)
        sender.add(recording.handlers)
        recording.sender = sender
    found: Sender = recording.sender
    return found
