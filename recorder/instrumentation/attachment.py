"""`attach`: records the model calls of a client that the application has already."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from recorder.callbacks import handlers_from
from recorder.errors import Closed, ConfigError
from recorder.instrumentation.send import Sender, recorded_async_send, recorded_send

#: The attribute of a replaced `send` that holds its `Sender`.
_SENDER = "recorder_sender"
_lock = threading.Lock()


class Attachment:
    """Recording of one client. `detach()` ends it, and so does the end of a `with` block."""

    def __init__(self, http_client: Any, sender: Sender, handlers: list[Any]) -> None:
        self._http_client = http_client
        self._sender = sender
        self._handlers = handlers

    def detach(self) -> None:
        """Record no more calls of the client. Calls that have begun are recorded to their end. May be called again."""
        self._sender.remove(self._handlers)
        if not self._sender.handlers:
            _restore(self._http_client, self._sender)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


def attach(client: Any, callbacks: Any) -> Attachment:
    """Record every model call through a client, without a change to the code that calls it.

    `client` is a client of OpenAI's or Anthropic's SDK, synchronous or asynchronous, or an `httpx.Client` or
    `httpx.AsyncClient` (of httpx or httpx2). `callbacks` is a `ChatHistoryCallback`, another handler, or a list of
    these. Recorded are chat completions, legacy completions and Anthropic's messages, streamed or not, in whatever way
    the SDK is called. Clients that `with_options` makes share the HTTP client, so they are recorded, too. Each HTTP
    attempt is a run. What the application gets stays the same: objects, bytes, exceptions.

    Attaching the same handler twice records once. Raises `ConfigError` for another client and for what is no handler,
    and `Closed` for a recorder that is closed.
    """
    handlers = handlers_from(callbacks)
    if not handlers:
        raise ConfigError("attach got no callbacks; pass callbacks=[ChatHistoryCallback(...)]")
    for handler in handlers:
        _require_open(handler)
    http_client = _http_client_of(client)
    with _lock:
        sender = _sender_of(http_client) or _replace(http_client, Sender(type(client).__name__))
        sender.add(handlers)
    return Attachment(http_client, sender, handlers)


def _require_open(handler: Any) -> None:
    if getattr(getattr(handler, "recorder", None), "closed", None) is True:
        raise Closed("This recorder is closed, so it cannot record the client; open a new one")


def _http_client_of(client: Any) -> Any:
    """The HTTP client of an SDK's client, or the HTTP client itself. Raises `ConfigError`."""
    http_client: Any = client if _kind_of(client) else getattr(client, "_client", None)
    if _kind_of(http_client) is None:
        raise ConfigError(
            f"attach got {_shown(client)}; pass a client of the OpenAI or Anthropic SDK, such as openai.OpenAI() or "
            "anthropic.AsyncAnthropic(), or an httpx client. Handlers of recorder's own models go into callbacks="
        )
    if http_client.is_closed:
        raise ConfigError(f"{type(client).__name__} is closed, so it sends nothing; pass an open client")
    return http_client


def _shown(client: Any) -> str:
    return f"the class {client.__name__}" if isinstance(client, type) else f"a {type(client).__name__}"


def _kind_of(found: Any) -> str | None:
    """ "Client" or "AsyncClient" of either HTTP library; None for anything else."""
    for kind in type(found).__mro__:
        if kind.__name__ in ("Client", "AsyncClient") and kind.__module__.partition(".")[0] in (
            "httpx",
            "httpx2",
        ):
            return kind.__name__
    return None


def _sender_of(http_client: Any) -> Sender | None:
    found = getattr(vars(http_client).get("send"), _SENDER, None)
    return found if isinstance(found, Sender) else None


def _replace(http_client: Any, sender: Sender) -> Sender:
    wrap: Callable[..., Any] = recorded_send if _kind_of(http_client) == "Client" else recorded_async_send
    replaced: Any = wrap(sender, http_client.send)
    setattr(replaced, _SENDER, sender)
    vars(http_client)["send"] = replaced
    return sender


def _restore(http_client: Any, sender: Sender) -> None:
    """Put the earlier `send` back, unless somebody else has replaced it since; then ours passes everything through."""
    with _lock:
        if _sender_of(http_client) is not sender or sender.handlers:
            return
        earlier: Any = vars(http_client)["send"].__wrapped__
        if getattr(earlier, "__self__", None) is http_client:  # the method of the class
            vars(http_client).pop("send")
        else:
            vars(http_client)["send"] = earlier
