"""The public names of `recorder.models`, each with its module. `recorder.core.lazy_imports` reads them."""

from recorder.models.anthropic import ChatAnthropic as ChatAnthropic
from recorder.models.azure import AzureChatOpenAI as AzureChatOpenAI
from recorder.models.base import BaseChatModel as BaseChatModel
from recorder.models.completions import OpenAI as OpenAI
from recorder.models.openai import ChatOpenAI as ChatOpenAI
from recorder.models.simple_model import SimpleChatModel as SimpleChatModel
