"""Callbacks: handlers with LangChain's method names, and how one run reaches all of them."""

from recorder.callbacks.dispatch import Dispatch, handlers_from
from recorder.callbacks.handlers import BaseCallbackHandler, CallbackHandler, StreamingStdOutCallbackHandler
from recorder.callbacks.iterator import AsyncIteratorCallbackHandler
from recorder.callbacks.pending import Pending, failures, settle, settle_now

__all__ = [
    "AsyncIteratorCallbackHandler",
    "BaseCallbackHandler",
    "CallbackHandler",
    "Dispatch",
    "Pending",
    "StreamingStdOutCallbackHandler",
    "failures",
    "handlers_from",
    "settle",
    "settle_now",
]
