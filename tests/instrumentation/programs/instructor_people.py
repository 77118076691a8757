"""Asks instructor for objects. The address and the key are in the environment."""

import asyncio

import instructor
import openai
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def ask() -> None:
    client = instructor.from_openai(openai.OpenAI())
    print(
        client.chat.completions.create(
            model="gpt-4o-mini", response_model=Person, messages=user("Who is it?")
        )
    )
    people = client.chat.completions.create_partial(
        model="gpt-4o-mini", response_model=Person, messages=user("Who is it?")
    )
    print(list(people)[-1])
    client = instructor.from_provider("openai/gpt-4o-mini")
    print(client.chat.completions.create(response_model=Person, messages=user("Who is it?")))
    try:
        client.chat.completions.create(response_model=Person, messages=user("Nonsense."), max_retries=1)
    except Exception:
        print("refused")
    print(client.chat.completions.create(response_model=Person, messages=user("Hurry.")))


async def ask_async() -> None:
    client = instructor.from_provider("openai/gpt-4o-mini", async_client=True)
    print(await client.chat.completions.create(response_model=Person, messages=user("Who is it?")))
    people = client.chat.completions.create_partial(response_model=Person, messages=user("Who is it?"))
    print([person async for person in people][-1])


if __name__ == "__main__":
    ask()
    asyncio.run(ask_async())
