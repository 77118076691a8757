"""A client of OpenAI's SDK is recorded: one line, and the calls stay as they are."""

import openai

from recorder import ChatHistoryCallback, attach

client = openai.OpenAI()
with ChatHistoryCallback("sqlite:///chat_history.db") as history, attach(client, callbacks=[history]):
    question = {"role": "user", "content": "Write me a song about sparkling water."}
    stream = client.chat.completions.create(model="gpt-5.4-mini", messages=[question], stream=True)
    for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
