"""Which conversation and which user a run has: from its metadata, from the code around it, or from its parent run."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID

from recorder.config import Thread
from recorder.core.escaping import escape
from recorder.core.ids import CONVERSATION_KEYS, MAX_CONVERSATION_ID, new_id
from recorder.redaction.masking import Mask
from recorder.storage.rows import PreviousResponse
from recorder.storage.storable_values import first_text, text_of
from recorder.storage.unnamed_conversations import HistoryOwner, UnnamedConversation

log = logging.getLogger("recorder")

F = TypeVar("F", bound=Callable[..., Any])

#: The conversations of this many parent runs are remembered, so that their child runs share them.
_MAX_FAMILIES = 10_000


class Names(NamedTuple):
    """The conversation and the user of runs that name none themselves; None for unknown."""

    conversation_id: str | None = None
    user_id: str | None = None


class Naming(NamedTuple):
    """The conversation and the user of one run."""

    conversation_id: str
    user_id: str | None
    #: Whether the conversation was created for this run, so that no message of it can be stored yet.
    fresh: bool = False
    #: The conversation, if nobody has named it and it may turn out to be a stored one.
    unnamed: UnnamedConversation | None = None
    #: Whether it has a new id because the given one was too long.
    was_replaced: bool = False


class ConversationNaming:
    """The names in the code around a call, and the conversations that child runs share."""

    def __init__(self, conversation_id: str | None, thread: Thread, within: timedelta) -> None:
        self._follows_history, self._within = thread == "history", within
        default = Names(conversation_id)
        self._names: ContextVar[Names] = ContextVar("names", default=default)
        self._families: OrderedDict[str, UnnamedConversation] = OrderedDict()

    @property
    def names(self) -> Names:
        """The conversation and the user of the code that calls."""
        return self._names.get()

    @contextmanager
    def within(self, names: Names) -> Iterator[None]:
        """In the `with` block these are the names."""
        token = self._names.set(names)
        try:
            yield
        finally:
            try:
                self._names.reset(token)
            except ValueError:
                # The block ends in another context than it began in, as in a generator whose steps a server runs on
                # several threads. That context never had these names.
                pass

    def bind(self, function: F) -> F:
        """A function that calls this one with the names of the code that calls `bind`, on any thread."""
        names = self.names
        if inspect.isasyncgenfunction(function):
            bound: Any = self._bound_async_generator(function, names)
        elif inspect.isgeneratorfunction(function):
            bound = self._bound_generator(function, names)
        elif inspect.iscoroutinefunction(function):
            bound = self._bound_coroutine(function, names)
        else:
            bound = self._bound_function(function, names)
        found: Any = functools.wraps(function)(bound)
        return cast("F", found)

    def of_run(
        self,
        metadata: Mapping[str, Any],
        parent_run_id: UUID | None,
        previous: PreviousResponse | None = None,
    ) -> Naming:
        """The conversation and the user of a run. The most specific setting wins.

        `previous` is the response that its request names; the store finds its conversation.
        """
        names = self._names.get()
        user_id = text_of(metadata.get("user_id")) or None
        if user_id is None and names.user_id is not None:
            user_id = escape(names.user_id)
        found = first_text(metadata, CONVERSATION_KEYS) if metadata else None
        if found is not None and len(found) > MAX_CONVERSATION_ID:
            log.warning("A conversation id of %d characters was replaced by a new one", len(found))
            return Naming(new_id(), user_id, fresh=True, was_replaced=True)
        if found:
            return Naming(found, user_id)
        if names.conversation_id is not None:
            return Naming(escape(names.conversation_id), user_id)
        unnamed, fresh = self._unnamed(parent_run_id)
        may_move = self._follows_history or previous is not None
        return Naming(unnamed.id, user_id, fresh, unnamed if may_move else None)

    def history_owner(self, naming: Naming, mask: Mask) -> HistoryOwner | None:
        """Who may go on with the conversation by its messages: the user, else the API key; None unless it is set."""
        if not self._follows_history:
            return None
        name = f"user {naming.user_id}" if naming.user_id is not None else f"key {mask.client_hash}"
        return HistoryOwner(name, self._within)

    def _unnamed(self, parent_run_id: UUID | None) -> tuple[UnnamedConversation, bool]:
        """The conversation that all runs with this parent share, and whether it is new."""
        opened = UnnamedConversation(new_id())
        if parent_run_id is None:
            return opened, True
        # One atomic call: two children may begin at the same time on two threads.
        shared = self._families.setdefault(str(parent_run_id), opened)
        if shared is not opened:
            return shared, False
        while len(self._families) > _MAX_FAMILIES:
            self._families.popitem(last=False)
        return opened, True

    def _bound_function(self, function: Callable[..., Any], names: Names) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.within(names):
                found = function(*args, **kwargs)
            # A callable object or a partial may return a coroutine, whose steps come later.
            return self._awaited(found, names) if asyncio.iscoroutine(found) else found

        return call

    def _bound_coroutine(self, function: Callable[..., Any], names: Names) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._awaited(function(*args, **kwargs), names)

        return call

    async def _awaited(self, coroutine: Any, names: Names) -> Any:
        with self.within(names):
            return await coroutine

    def _bound_generator(self, function: Callable[..., Any], names: Names) -> Callable[..., Any]:
        def steps(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            generator = function(*args, **kwargs)
            step: Callable[[], Any] = generator.__next__
            while True:
                with self.within(names):  # for each step, because the caller may run it on another thread
                    try:
                        item = step()
                    except StopIteration as end:
                        return end.value
                try:
                    sent = yield item
                    step = functools.partial(generator.send, sent)
                except GeneratorExit:
                    with self.within(names):
                        generator.close()
                    raise
                except BaseException as error:
                    step = functools.partial(generator.throw, error)

        return steps

    def _bound_async_generator(self, function: Callable[..., Any], names: Names) -> Callable[..., Any]:
        async def steps(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            generator = function(*args, **kwargs)
            step: Callable[[], Any] = generator.__anext__
            while True:
                with self.within(names):
                    try:
                        item = await step()
                    except StopAsyncIteration:
                        return
                try:
                    sent = yield item
                    step = functools.partial(generator.asend, sent)
                except GeneratorExit:
                    with self.within(names):
                        await generator.aclose()
                    raise
                except BaseException as error:
                    step = functools.partial(generator.athrow, error)

        return steps
