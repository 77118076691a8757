"""What recorder uses of LangChain. An environment without it gets one clear error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recorder.errors import ConfigError

#: The lowest version that the tests run on.
_INSTALL = "pip install 'langchain-core>=1.7'"


def is_too_old(version: str) -> bool:
    """Whether this version of langchain-core has other messages and callbacks than those that are read here."""
    major = version.partition(".")[0]
    return major.isdecimal() and int(major) < 1


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
        raise ConfigError(f"recorder.integrations.langchain needs LangChain; run: {_INSTALL}") from error
    from langchain_core import __version__

    if is_too_old(__version__):
        raise ConfigError(
            f"recorder.integrations.langchain needs LangChain 1, and langchain-core {__version__} is installed; "
            f"run: {_INSTALL}"
        )


def configurable() -> dict[str, Any]:
    """The `configurable` values of the chain or the graph that runs here; empty outside of one."""
    from langchain_core.runnables.config import var_child_runnable_config

    config: Any = var_child_runnable_config.get()
    found = config.get("configurable") if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}
