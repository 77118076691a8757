"""The public names of `recorder.integrations.langchain`, each with its module."""

from recorder.integrations.langchain.handler import ChatHistoryCallback as ChatHistoryCallback
from recorder.integrations.langchain.message_history import ChatMessageHistory as ChatMessageHistory
from recorder.integrations.langchain.record_all import record_all as record_all
from recorder.integrations.langchain.replay_chat_model import ReplayChatModel as ReplayChatModel
