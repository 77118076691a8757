"""What recorder uses of LangChain. An environment without it gets one clear error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recorder.errors import ConfigError

if TYPE_CHECKING:
    from langchain_core.chat_history import BaseChatMessageHistory as BaseChatMessageHistory
    from langchain_core.language_models import BaseChatModel as BaseChatModel

    from recorder.callbacks.handlers import BaseCallbackHandler as BaseCallbackHandler
else:
    try:
        from langchain_core.callbacks import BaseCallbackHandler as BaseCallbackHandler
        from langchain_core.chat_history import BaseChatMessageHistory as BaseChatMessageHistory
        from langchain_core.language_models import BaseChatModel as BaseChatModel
    except ImportError as error:
        raise ConfigError(
            "recorder.integrations.langchain needs LangChain; run: pip install 'langchain-core>=1.0'"
        ) from error


def configurable() -> dict[str, Any]:
    """The `configurable` values of the chain or the graph that runs here; empty outside of one."""
    from langchain_core.runnables.config import var_child_runnable_config

    config: Any = var_child_runnable_config.get()
    found = config.get("configurable") if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}
