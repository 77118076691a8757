"""The public names of `recorder`, each with its module. `recorder.core.lazy_imports` reads them."""

from recorder.chat_history_callback import ChatHistoryCallback as ChatHistoryCallback
from recorder.config import Config as Config
from recorder.costs.budgets import Budget as Budget
from recorder.costs.budgets import BudgetEvent as BudgetEvent
from recorder.errors import Closed as Closed
from recorder.errors import ConfigError as ConfigError
from recorder.errors import MissingExtra as MissingExtra
from recorder.errors import NotFound as NotFound
from recorder.errors import RecorderError as RecorderError
from recorder.errors import SchemaError as SchemaError
from recorder.errors import StoreError as StoreError
from recorder.instrumentation.attachment import attach as attach
from recorder.recording.stats import Stats as Stats
