"""The public names of `recorder.callbacks`, each with its module. `recorder.core.lazy` reads them."""

from recorder.callbacks.dispatch import Dispatch as Dispatch
from recorder.callbacks.dispatch import handlers_from as handlers_from
from recorder.callbacks.handlers import BaseCallbackHandler as BaseCallbackHandler
from recorder.callbacks.handlers import CallbackHandler as CallbackHandler
from recorder.callbacks.handlers import StreamingStdOutCallbackHandler as StreamingStdOutCallbackHandler
from recorder.callbacks.iterator import AsyncIteratorCallbackHandler as AsyncIteratorCallbackHandler
from recorder.callbacks.pending import Pending as Pending
from recorder.callbacks.pending import failures as failures
from recorder.callbacks.pending import settle as settle
from recorder.callbacks.pending import settle_now as settle_now
