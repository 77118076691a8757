"""A FastAPI route streams a model; its reader is cut in the middle, and gets the rest."""

import asyncio
import json
import socket
import threading
from uuid import uuid4

import httpx
import uvicorn
from fastapi import FastAPI, Request

from recorder import ChatHistoryCallback
from recorder.models import ChatOpenAI
from recorder.server import create_app, resumed_run, stream_response

history = ChatHistoryCallback("sqlite:///chat_history.db")
llm = ChatOpenAI(model="gpt-5.4-mini", streaming=True, callbacks=[history])
app = FastAPI()
app.mount("/recorder", create_app(history))
calls = set()


@app.get("/chat")
async def chat(question: str, request: Request):
    run_id = resumed_run(request)
    if run_id is None:
        run_id = uuid4()
        calls.add(call := asyncio.create_task(llm.ainvoke(question, config={"run_id": run_id})))
        call.add_done_callback(calls.discard)
    return await stream_response(run_id, history, request)


def read(url, cursor=None, most=1_000):
    """Print at most so many tokens; the cursor behind the last one."""
    with httpx.stream("GET", url, headers={"last-event-id": cursor or ""}) as response:
        for line in response.iter_lines():
            if line.startswith("id: "):
                cursor = line[4:]
            elif line.startswith("data: ") and most > 0:
                print(json.loads(line[6:]).get("text", ""), end="", flush=True)
                most -= 1
                if most == 0:
                    break
    return cursor


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/chat?question=Sing!"
    read(url, read(url, most=10))
    server.should_exit = True
    thread.join()
    history.close().wait()
