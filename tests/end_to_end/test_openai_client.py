"""The official client, as users have it, against `havoc serve`: what it is promised, and the errors it is typed for."""

from __future__ import annotations

import asyncio
import concurrent.futures

import pytest

openai = pytest.importorskip("openai", reason="the official client is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

HELLO = [{"role": "user", "content": "What is a mean?"}]


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0, timeout=60) as made:
        yield made


def in_async(served, ask):
    """What `ask` gives for the asynchronous client."""

    async def go():
        async with openai.AsyncOpenAI(
            base_url=f"{served.url}/v1", api_key=served.key, max_retries=0, timeout=60
        ) as made:
            return await ask(made)

    return asyncio.run(go())


def test_it_lists_the_model(client, served):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "havoc"

    async def ask(made):
        return [model.id async for model in made.models.list()]

    assert in_async(served, ask) == ["tiny"]


def test_it_chats(client, served):
    asked = {"model": "tiny", "messages": HELLO, "max_completion_tokens": 8, "temperature": 0}
    answer = client.chat.completions.create(**asked)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in {"stop", "length"}
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens

    async def ask(made):
        return await made.chat.completions.create(**asked)

    assert in_async(served, ask).choices == answer.choices
    again = client.chat.completions.create(
        model="tiny", messages=[*HELLO, answer.choices[0].message, *HELLO], max_tokens=2
    )
    assert again.usage.completion_tokens <= 2


def test_it_streams_and_is_told_what_it_cost(client, served):
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 10, "seed": 3}
    whole = client.chat.completions.create(**asked)
    *chunks, last = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage == whole.usage
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content

    async def ask(made):
        pieces = await made.chat.completions.create(**asked, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in pieces])

    assert in_async(served, ask) == text


def test_it_completes_with_log_probs_of_everything(client):
    out = client.completions.create(
        model="tiny",
        prompt="The mean",
        max_tokens=3,
        temperature=0,
        logprobs=2,
        echo=True,
        extra_body={"ignore_eos": True},
    )
    scores = out.choices[0].logprobs
    assert out.choices[0].text.startswith("The mean")
    assert scores.token_logprobs[0] is None
    assert all(
        value in top.values() for value, top in zip(scores.token_logprobs[1:], scores.top_logprobs[1:], strict=True)
    )
    assert len(scores.tokens) == len(scores.text_offset) == len(scores.token_logprobs)
    chat = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2, logprobs=True, top_logprobs=3)
    assert all(len(entry.top_logprobs) >= 3 for entry in chat.choices[0].logprobs.content)


def test_it_gets_as_many_answers_as_it_asks_for(client):
    out = client.completions.create(model="tiny", prompt=["The", "A"], n=2, max_tokens=8, seed=1)
    assert [choice.index for choice in out.choices] == [0, 1, 2, 3]
    assert out.choices[0].text != out.choices[1].text
    assert len(client.chat.completions.create(model="tiny", messages=HELLO, n=2, max_tokens=4).choices) == 2


def test_a_seed_repeats_and_a_stop_text_stops(client):
    asked = {"model": "tiny", "prompt": "The mean", "max_tokens": 30, "seed": 7, "extra_body": {"ignore_eos": True}}
    first, second = (client.completions.create(**asked).choices[0].text for _ in range(2))
    assert first == second != client.completions.create(**{**asked, "seed": 8}).choices[0].text
    stop = first[5:8]
    stopped = client.completions.create(**asked, stop=[stop]).choices[0]
    assert (stopped.text, stopped.finish_reason) == (first[: first.index(stop)], "stop")


def test_it_embeds(client):
    """The client asks for base64 unless it is told otherwise."""
    packed = client.embeddings.create(model="tiny", input=["The mean", "A rank"])
    plain = client.embeddings.create(model="tiny", input=["The mean", "A rank"], encoding_format="float")
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)


def test_every_refusal_has_its_type(client, served):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=HELLO, temperature=9)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="tiny", prompt="word " * 500)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="tiny", messages=HELLO, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    assert refused.value.param == "tools"
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert refused.value.code == "model_not_found"
    stranger = openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()

    async def ask(made):
        with pytest.raises(openai.NotFoundError):
            await made.completions.create(model="../tiny", prompt="a")
        with pytest.raises(openai.BadRequestError):
            await made.completions.create(model="tiny", prompt="a", n=10_000)

    in_async(served, ask)


def test_a_full_queue_is_a_rate_limit_that_the_client_can_wait_for(client, served):
    asked = {"model": "tiny", "prompt": "The mean", "max_tokens": 40, "extra_body": {"ignore_eos": True}}
    with pytest.raises(openai.RateLimitError) as refused:
        client.completions.create(**asked, n=16)
    assert int(refused.value.response.headers["retry-after"]) >= 1
    # Twenty at once, where there is room for eight: the client asks again by itself, and all are answered.
    patient = openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=10)
    with patient, concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda seed: patient.completions.create(**asked, seed=seed), range(20)))
    assert all(answer.usage.completion_tokens == 40 for answer in answers)
