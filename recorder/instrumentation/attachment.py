"""`attach`: records the model calls of a client that the application has already, or of the whole process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from types import MethodType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from recorder.errors import Closed, ConfigError
from recorder.instrumentation import process
from recorder.instrumentation.default_history import default_history
from recorder.instrumentation.hosts import Hosts

if TYPE_CHECKING:
    from recorder.instrumentation.send import Sender

#: The attribute of a replaced `send` that holds its `Sender`.
_SENDER = "recorder_sender"
_SESSION = "ClientSession"
#: The classes of HTTP clients -> their libraries.
_CLIENTS = {"Client": process.LIBRARIES, "AsyncClient": process.LIBRARIES, _SESSION: ("aiohttp",)}
_lock = threading.Lock()


class Attachment:
    """Recording of a client or of the process. `detach()` ends it, and so does the end of a `with` block."""

    def __init__(self, detach: Callable[[], None]) -> None:
        self._detach: Callable[[], None] | None = detach

    def detach(self) -> None:
        """Record no more calls. Calls that have begun are recorded to their end. May be called again.

        If the same handler was attached more often, the other attachments go on.
        """
        detach, self._detach = self._detach, None
        if detach is not None:
            detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


def attach(
    client: Any = None, callbacks: Any = None, *, include_hosts: Sequence[str] = (),
    exclude_hosts: Sequence[str] = (),
) -> Attachment:  # fmt: skip
    """Record every model call through a client, without a change to the code that calls it.

    `client` is a client of OpenAI's, Anthropic's or Ollama's SDK, synchronous or asynchronous, one of google-genai, of
    which the synchronous calls are recorded, an `httpx.Client` or `httpx.AsyncClient` (of httpx or httpx2), or an
    `aiohttp.ClientSession`. Without one, all clients of the process are recorded: those made before and those made
    later, of every library that uses httpx, httpx2 or aiohttp. `callbacks` is a `ChatHistoryCallback`, another handler,
    or a list of these; the default is a `ChatHistoryCallback()`, whose database is opened at the first model call. The
    hosts are patterns such as `"*.openai.azure.com"`; by default every host is recorded.

    Recorded are chat completions, Responses, legacy completions, Anthropic's messages, Gemini's contents and Ollama's
    chats and texts, streamed or not, in whatever way the SDK is called. Clients that `with_options` makes share the
    HTTP client, so they are recorded, too. Each HTTP attempt is a run. What the application gets stays the same:
    objects, bytes, exceptions.

    Attaching the same handler twice records once. Raises `ConfigError` for another client, for what is no handler and
    for hosts that are no list of texts, and `Closed` for a recorder that is closed.
    """
    handlers = _handlers(callbacks)
    hosts = Hosts(include_hosts, exclude_hosts)
    if client is None:
        return Attachment(process.attach_process(handlers, hosts))
    http_client, handlers = _http_client_of(client), handlers or [default_history()]
    attach_to = _attach_session if _kind_of(http_client) == _SESSION else _attach_client
    return Attachment(attach_to(http_client, handlers, hosts))


def _handlers(callbacks: Any) -> list[Any]:
    """The handlers of `callbacks`. Raises `ConfigError` and `Closed`."""
    if callbacks is None:
        return []
    from recorder.callbacks import handlers_from

    found = handlers_from(callbacks)
    for handler in found:
        _require_open(handler)
    return found


def _require_open(handler: Any) -> None:
    if getattr(getattr(handler, "recorder", None), "closed", None) is True:
        raise Closed("This recorder is closed, so it cannot record the client; open a new one")


def _http_client_of(client: Any) -> Any:
    """The HTTP client of an SDK's client, or the HTTP client itself. Raises `ConfigError`."""
    http_client: Any = client if _kind_of(client) else _inside(client)
    if _kind_of(http_client) is None:
        raise ConfigError(
            f"attach got {_shown(client)}; pass a client of the OpenAI or Anthropic SDK, such as openai.OpenAI() or "
            "anthropic.AsyncAnthropic(), an httpx client or an aiohttp.ClientSession. Handlers of recorder's own "
            "models go into callbacks="
        )
    if http_client.closed if _kind_of(http_client) == _SESSION else http_client.is_closed:
        raise ConfigError(f"{type(client).__name__} is closed, so it sends nothing; pass an open client")
    return http_client


def _inside(client: Any) -> Any:
    """The HTTP client inside of an SDK's client; of google-genai, which has several, the synchronous one."""
    own = getattr(client, "_client", None)
    return own if own is not None else getattr(getattr(client, "_api_client", None), "_httpx_client", None)


def _shown(client: Any) -> str:
    return (
        f"the class {client.__name__}"
        if isinstance(client, type)
        else f"an object of type {type(client).__name__}"
    )


def _kind_of(found: Any) -> str | None:
    """ "Client" or "AsyncClient" of httpx or httpx2, or "ClientSession" of aiohttp; None for anything else."""
    for kind in type(found).__mro__:
        if kind.__module__.partition(".")[0] in _CLIENTS.get(kind.__name__, ()):
            return kind.__name__
    return None


def _attach_client(http_client: Any, handlers: list[Any], hosts: Hosts) -> Callable[[], None]:
    """Record this HTTP client. Returns what ends it."""
    # Here, because the import takes as long as that of a small library, and `attach()` alone needs none of it.
    from recorder.instrumentation.send import Sender

    with _lock:
        sender = _sender_of(http_client, hosts) or _replace(http_client, Sender(hosts))
        sender.add(handlers)

    def detach() -> None:
        with _lock:
            sender.remove(handlers)
            if not sender.handlers:
                _restore(http_client, sender)

    return detach


def _attach_session(session: Any, handlers: list[Any], hosts: Hosts) -> Callable[[], None]:
    """Record this session of aiohttp. Returns what ends it."""
    import aiohttp

    from recorder.instrumentation import aiohttp_calls
    from recorder.instrumentation.send import Sender

    sender = Sender(hosts)
    sender.add(handlers)
    aiohttp_calls.replace(aiohttp)
    with _lock:
        aiohttp_calls.add_sender(session, sender)

    def detach() -> None:
        with _lock:
            aiohttp_calls.remove_sender(session, sender)

    return detach


def _sender_of(http_client: Any, hosts: Hosts) -> Sender | None:
    """The sender that records these hosts of the client already."""
    found: Sender | None = getattr(vars(http_client).get("send"), _SENDER, None)
    return found if found is not None and found.hosts == hosts else None


def _replace(http_client: Any, sender: Sender) -> Sender:
    from recorder.instrumentation.send import recorded_async_send, recorded_send

    is_async = _kind_of(http_client) == "AsyncClient"
    wrap: Callable[..., Any] = recorded_async_send if is_async else recorded_send
    earlier = http_client.send

    def send(client: Any, *args: Any, **kwargs: Any) -> Any:
        return earlier(*args, **kwargs)

    recorded: Any = wrap(sender, send)
    setattr(recorded, _SENDER, sender)
    recorded.earlier = vars(http_client).get("send")
    vars(http_client)["send"] = MethodType(recorded, http_client)
    return sender


def _restore(http_client: Any, sender: Sender) -> None:
    """Put the earlier `send` back, unless somebody else has replaced it since; then ours passes everything through."""
    ours = vars(http_client).get("send")
    if getattr(ours, _SENDER, None) is not sender:
        return
    earlier = ours.earlier  # set beside the sender
    if earlier is None:
        del vars(http_client)["send"]
    else:
        vars(http_client)["send"] = earlier


def _renew_lock() -> None:
    """In a forked child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
