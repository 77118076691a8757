"""The public names of `recorder.chains`, each with its module. `recorder.core.lazy_imports` reads them."""

from recorder.chains.chat_prompt_template import ChatPromptTemplate as ChatPromptTemplate
from recorder.chains.conversation_chain import ConversationChain as ConversationChain
from recorder.chains.llm_chain import LLMChain as LLMChain
from recorder.chains.message_templates import AIMessagePromptTemplate as AIMessagePromptTemplate
from recorder.chains.message_templates import HumanMessagePromptTemplate as HumanMessagePromptTemplate
from recorder.chains.message_templates import MessagesPlaceholder as MessagesPlaceholder
from recorder.chains.message_templates import SystemMessagePromptTemplate as SystemMessagePromptTemplate
from recorder.chains.prompt_template import PromptTemplate as PromptTemplate
from recorder.chains.sequence import RunnableSequence as RunnableSequence
from recorder.chains.str_output_parser import StrOutputParser as StrOutputParser
from recorder.memory.bounds import ConversationBufferMemory as ConversationBufferMemory
from recorder.memory.bounds import ConversationBufferWindowMemory as ConversationBufferWindowMemory
from recorder.memory.bounds import ConversationTokenBufferMemory as ConversationTokenBufferMemory
