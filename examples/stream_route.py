"""A route that streams `AsyncIteratorCallbackHandler`, as in LangChain's documents; the run is recorded beside it."""

import asyncio
import socket
import threading

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from recorder import ChatHistoryCallback
from recorder.callbacks import AsyncIteratorCallbackHandler
from recorder.messages import HumanMessage
from recorder.models import ChatOpenAI

history = ChatHistoryCallback("sqlite:///chat_history.db")
app = FastAPI()


async def tokens(question: str):
    handler = AsyncIteratorCallbackHandler()
    chat = ChatOpenAI(model="gpt-5.4-mini", streaming=True, callbacks=[handler, history])
    task = asyncio.create_task(chat.agenerate([[HumanMessage(question)]]))
    try:
        async for token in handler.aiter():
            yield token
        await task  # raises what the model raised
    finally:
        task.cancel()  # the reader left: the run is stored as cancelled, with what has come


@app.get("/stream")
async def stream(question: str):
    return StreamingResponse(tokens(question), media_type="text/plain")


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/stream?question=Sing!"
    with httpx.stream("GET", url) as response:
        for text in response.iter_text():
            print(text, end="", flush=True)
    server.should_exit = True
    thread.join()
    history.close().wait()
