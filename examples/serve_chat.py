"""`recorder serve` calls a model for its clients: an answer is streamed, and the conversation goes on."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

CONFIG = Path(__file__).with_name("recorder.toml")


def start():
    """Start a server on a free port; its process and its address."""
    command = [sys.executable, "-m", "recorder", "serve", "--port", "0", "--config", str(CONFIG)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    return process, re.search(r"http://\S+:\d+", process.stderr.readline())[0]


def chat(url, text, conversation_id=None):
    """Print the answer while it streams; the id of the conversation."""
    body = {"model": "small", "messages": text, "conversation_id": conversation_id}
    with httpx.stream("POST", f"{url}/chat", json=body, timeout=60) as response:
        for line in response.raise_for_status().iter_lines():
            if line.startswith("data: "):
                print(json.loads(line[6:]).get("text", ""), end="", flush=True)
        print()
        return response.headers["x-recorder-conversation"]


if __name__ == "__main__":
    server, address = start()
    try:
        conversation = chat(address, "Write me a song about sparkling water.")
        chat(address, "And one about tea.", conversation)
        found = httpx.get(f"{address}/conversations/{conversation}").json()
        print([message["role"] for message in found["messages"]])
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=20)
