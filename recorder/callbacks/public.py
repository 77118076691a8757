"""The public names of `recorder.callbacks`, each with its module. `recorder.core.lazy_imports` reads them."""

from recorder.callbacks.async_iterator import AsyncIteratorCallbackHandler as AsyncIteratorCallbackHandler
from recorder.callbacks.dispatch import Dispatch as Dispatch
from recorder.callbacks.dispatch import handlers_from as handlers_from
from recorder.callbacks.handler_results import Pending as Pending
from recorder.callbacks.handler_results import failures as failures
from recorder.callbacks.handler_results import settle as settle
from recorder.callbacks.handler_results import settle_now as settle_now
from recorder.callbacks.handlers import BaseCallbackHandler as BaseCallbackHandler
from recorder.callbacks.handlers import CallbackHandler as CallbackHandler
from recorder.callbacks.handlers import StreamingStdOutCallbackHandler as StreamingStdOutCallbackHandler
