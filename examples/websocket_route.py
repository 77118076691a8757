"""A chat over a WebSocket: each message is a question, and the answer is sent back token by token and recorded."""

import json
import socket
import threading

import uvicorn
from fastapi import FastAPI, WebSocket
from websockets.sync.client import connect

from recorder import ChatHistoryCallback
from recorder.messages import AIMessage, HumanMessage
from recorder.models import ChatOpenAI

history = ChatHistoryCallback("sqlite:///chat_history.db")
chat = ChatOpenAI(model="gpt-5.4-mini", streaming=True, callbacks=[history])
app = FastAPI()


@app.websocket("/chat/{conversation}")
async def talk(websocket: WebSocket, conversation: str):
    await websocket.accept()
    messages = []
    async for question in websocket.iter_text():
        messages.append(HumanMessage(question))
        answer = ""
        with history.conversation(conversation):
            async for chunk in chat.astream(messages):
                answer += chunk.content
                await websocket.send_json({"text": chunk.content})
        messages.append(AIMessage(answer))
        await websocket.send_json({"end": True})


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    with connect(f"ws://127.0.0.1:{listening.getsockname()[1]}/chat/support-17", proxy=None) as connection:
        for question in ("Sing!", "Again!"):
            connection.send(question)
            while "end" not in (message := json.loads(connection.recv())):
                print(message["text"], end="", flush=True)
    server.should_exit = True
    thread.join()
    history.close().wait()
