"""Asks a model with google-genai's synchronous client. The address and the key are in the environment."""

from google import genai
from google.genai import types

MODEL = "gemini-2.5-flash"
RETRIES = types.HttpRetryOptions(attempts=2, initial_delay=0.001, max_delay=0.001)


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def ask(client: genai.Client) -> None:
    print(client.models.generate_content(model=MODEL, contents="Sing.").text)
    stream = client.models.generate_content_stream(model=MODEL, contents="Sing.")
    print("".join(chunk.text or "" for chunk in stream))
    chat = client.chats.create(model=MODEL, config=types.GenerateContentConfig(tools=[get_weather]))
    print(chat.send_message("Is it sunny in Paris?").text)
    for chunk in client.models.generate_content_stream(model=MODEL, contents="Count."):
        print(chunk.text)
        break
    try:
        client.models.generate_content(model=MODEL, contents="Nonsense.")
    except genai.errors.ClientError:
        print("refused")
    print(client.models.generate_content(model=MODEL, contents="Hurry.").text)


def stream_with_tools(client: genai.Client) -> None:
    config = types.GenerateContentConfig(tools=[get_weather])
    chat = client.chats.create(model=MODEL, config=config)
    print("".join(chunk.text or "" for chunk in chat.send_message_stream("Is it sunny in Paris?")))
    question = types.Content(role="user", parts=[types.Part(text="Is it sunny in Paris?")])
    stream = client.models.generate_content_stream(model=MODEL, contents=[question], config=config)
    print("".join(chunk.text or "" for chunk in stream))


if __name__ == "__main__":
    with genai.Client(http_options=types.HttpOptions(retry_options=RETRIES)) as client:
        ask(client)
        stream_with_tools(client)
