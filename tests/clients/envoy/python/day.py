"""A day of mixed traffic through a gateway to a mock of Groq, with the official SDKs.

    python day.py BASE_URL API_KEY [--requests N] [--seed S] [--concurrency C]

BASE_URL is the gateway's, without a path. Each prompt tells the mock how to answer (tests/support/mock_groq), and each answer is held
against that. Prints one line of JSON, counts by kind and outcome; ends with 1 when an answer is not what was asked for.

The input of a request that breaks off is billed by the size of its body. So such a request says by itself all that a gateway
would otherwise write into it: a bound on the output, and that the stream is to tell its usage.
"""

import argparse
import asyncio
import collections
import io
import json
import random
import sys
import wave

import groq
import httpx
import openai

MODELS = ("openai/gpt-oss-120b", "openai/gpt-oss-20b")
TRANSCRIBER = "whisper-large-v3-turbo"
SPEAKER = "canopylabs/orpheus-v1-english"

# What the mock writes unless it is told otherwise, and the size of its tokens.
DEFAULT_TOKENS = 20
TOKEN_BYTES = 3

# A gateway and a mock that share a busy machine with this; none of the requests takes long by itself.
TIMEOUT_S = 60

WORDS = "when you ask how much it costs the answer is known before it is given".split()


class Mismatch(Exception):
    pass


def check(what, came, expected):
    if came != expected:
        raise Mismatch(f"{what}: expected {expected!r}, came {came!r}")


def wav():
    """A tenth of a second of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(8000)
        audio.writeframes(bytes(1600))
    return file.getvalue()


class Ask:
    """One request: what the mock is told, and what must come of it."""

    def __init__(self, dice, **directive):
        self.model = dice.choice(MODELS)
        self.bound = dice.choice((None, 5, 64)) if "bound" not in directive else directive.pop("bound")
        self.told = directive
        if "completion_tokens" not in directive and dice.random() < 0.5:
            directive["completion_tokens"] = dice.randint(1, 40)
        wanted = directive.get("completion_tokens", DEFAULT_TOKENS)
        self.output = min(wanted, self.bound or wanted)
        self.is_cut_short = self.output < wanted
        if dice.random() < 0.3:
            directive["reasoning_tokens"] = dice.randint(1, 8)
        self.reasoning = min(directive.get("reasoning_tokens", 0), self.output)
        if dice.random() < 0.3:
            directive["prompt_tokens"] = dice.randint(50, 300)
            directive["cached_tokens"] = dice.randint(0, 50)
        if dice.random() < 0.2:
            directive["split"] = dice.choice((1, 3, 50, 1000))
        self.prompt = f"{' '.join(dice.choices(WORDS, k=dice.randint(0, 60)))} mock:{json.dumps(directive)}"

    def chat(self, **more):
        request = {"model": self.model, "messages": [{"role": "user", "content": self.prompt}], **more}
        if self.bound is not None:
            request["max_completion_tokens"] = self.bound
        return request

    def check_chat_usage(self, usage):
        check("output tokens", usage.completion_tokens, self.output)
        check("reasoning tokens", usage.completion_tokens_details.reasoning_tokens, self.reasoning)
        self.check_input(usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens)

    def check_input(self, prompt_tokens, cached_tokens):
        if "prompt_tokens" in self.told:
            check("input tokens", prompt_tokens, self.told["prompt_tokens"])
            check("cached tokens", cached_tokens, self.told["cached_tokens"])

    def check_text(self, content, reasoning):
        check("bytes of content", len(content.encode()), (self.output - self.reasoning) * TOKEN_BYTES)
        check("bytes of reasoning", len((reasoning or "").encode()), self.reasoning * TOKEN_BYTES)


class Day:
    def __init__(self, base_url, key):
        options = {"api_key": key, "max_retries": 0, "timeout": TIMEOUT_S}
        self.groq = groq.AsyncGroq(base_url=base_url, **options)
        self.openai = openai.AsyncOpenAI(base_url=f"{base_url}/openai/v1", **options)
        self.exceptions = collections.Counter()

    async def close(self):
        await self.groq.close()
        await self.openai.close()

    # Each of these plays one request of its kind, and names its outcome.

    async def plain(self, dice):
        ask = Ask(dice, gzip=dice.random() < 0.2)
        answer = await self.groq.chat.completions.create(**ask.chat())
        ask.check_chat_usage(answer.usage)
        message = answer.choices[0].message
        ask.check_text(message.content, message.reasoning)
        check("the reason to finish", answer.choices[0].finish_reason, "length" if ask.is_cut_short else "stop")
        return "200"

    async def stream(self, dice):
        """As most clients ask for it: the usage comes in `x_groq`, or a gateway asks for it."""
        return await self.play_stream(Ask(dice), told_usage=False)

    async def stream_with_usage(self, dice):
        return await self.play_stream(Ask(dice), told_usage=True, stream_options={"include_usage": True})

    async def play_stream(self, ask, told_usage, **more):
        content, reasoning, usage, of_groq = "", "", None, None
        async for chunk in await self.groq.chat.completions.create(**ask.chat(stream=True, extra_body=more)):
            for choice in chunk.choices:
                content += choice.delta.content or ""
                reasoning += choice.delta.reasoning or ""
            usage = chunk.usage or usage
            of_groq = (chunk.x_groq and chunk.x_groq.usage) or of_groq
        ask.check_text(content, reasoning)
        ask.check_chat_usage(of_groq)
        if told_usage:
            ask.check_chat_usage(usage)
        return "200"

    async def responses(self, dice):
        ask = Ask(dice)
        answer = await self.openai.responses.create(**self.response_request(ask))
        self.check_response(ask, answer)
        ask.check_text(answer.output_text, self.reasoning_of(answer))
        return "200"

    async def responses_stream(self, dice):
        ask, content, last = Ask(dice), "", None
        async for event in await self.openai.responses.create(stream=True, **self.response_request(ask)):
            if event.type == "response.output_text.delta":
                content += event.delta
            last = event
        check("the last event", last.type, "response.incomplete" if ask.is_cut_short else "response.completed")
        self.check_response(ask, last.response)
        ask.check_text(content, self.reasoning_of(last.response))
        return "200"

    @staticmethod
    def response_request(ask):
        request = {"model": ask.model, "input": ask.prompt}
        return request if ask.bound is None else {**request, "max_output_tokens": ask.bound}

    @staticmethod
    def reasoning_of(response):
        return "".join(part.text for item in response.output if item.type == "reasoning" for part in item.content)

    @staticmethod
    def check_response(ask, response):
        check("output tokens", response.usage.output_tokens, ask.output)
        check("reasoning tokens", response.usage.output_tokens_details.reasoning_tokens, ask.reasoning)
        ask.check_input(response.usage.input_tokens, response.usage.input_tokens_details.cached_tokens)

    async def speech(self, dice):
        text = " ".join(dice.choices(WORDS + ["déjà", "vu", "語"], k=dice.randint(1, 20)))
        answer = await self.groq.audio.speech.create(
            model=SPEAKER, voice="hannah", input=text, response_format="wav"
        )
        check("the beginning of the file", (await answer.read())[:4], b"RIFF")
        return "200"

    async def transcription(self, dice):
        seconds = dice.choice((3, 9.999, 10, 12.5, dice.randint(1, 90_000) / 1000))
        answer = await self.groq.audio.transcriptions.create(
            model=TRANSCRIBER,
            file=("silence.wav", wav()),
            prompt=f"mock:{json.dumps({'duration': seconds})}",
            response_format="verbose_json",
        )
        check("the duration", answer.model_extra["duration"], seconds)
        return "200"

    async def error(self, dice):
        """Not 429 here: that tells a gateway that the model is closed to all, and the rest of the day would wait."""
        status, kind = dice.choice(
            (
                (400, groq.BadRequestError),
                (413, groq.APIStatusError),
                (498, groq.APIStatusError),
                (500, groq.InternalServerError),
                (503, groq.InternalServerError),
            )
        )
        ask = Ask(dice, status=status)
        try:
            await self.groq.chat.completions.create(**ask.chat(stream=dice.random() < 0.5))
        except groq.APIStatusError as error:
            check("the exception", type(error), kind)
            check("the status", error.status_code, status)
            check("the body has an error", "message" in error.body["error"], True)
            self.exceptions[type(error).__name__] += 1
            return str(status)
        raise Mismatch(f"expected the error {status}, came an answer")

    async def cut(self, dice):
        """Groq breaks the stream off."""
        ask, count = self.broken(dice, "cut_after")
        seen = 0
        try:
            async for chunk in await self.open(ask):
                seen += self.tokens_in(chunk)
        except (groq.APIConnectionError, httpx.TransportError) as error:
            self.exceptions[type(error).__name__] += 1
            check("tokens before the cut", seen, count)
            return "cut"
        raise Mismatch(f"the stream ended after {seen} tokens as if it were whole")

    async def abort(self, dice):
        """The client leaves, at a token after which nothing more comes."""
        ask, count = self.broken(dice, "stall_after")
        seen = 0
        stream = await self.open(ask)
        async for chunk in stream:
            seen += self.tokens_in(chunk)
            if seen == count:
                break
        await stream.close()
        check("tokens before leaving", seen, count)
        return "aborted"

    @staticmethod
    def broken(dice, how):
        count = dice.randint(1, 12)
        return Ask(dice, bound=64, **{how: count, "completion_tokens": 30}), count

    def open(self, ask):
        request = ask.chat(stream=True, extra_body={"stream_options": {"include_usage": True}})
        return self.groq.chat.completions.create(**request)

    @staticmethod
    def tokens_in(chunk):
        return sum(bool(choice.delta.content or choice.delta.reasoning) for choice in chunk.choices)


# How often each kind comes, among a hundred.
SHARES = {
    Day.plain: 28,
    Day.stream: 14,
    Day.stream_with_usage: 12,
    Day.responses: 8,
    Day.responses_stream: 8,
    Day.speech: 5,
    Day.transcription: 5,
    Day.error: 10,
    Day.cut: 5,
    Day.abort: 5,
}


async def play(arguments):
    day = Day(arguments.base_url, arguments.api_key)
    outcomes = collections.defaultdict(collections.Counter)
    mismatches = []
    slots = asyncio.Semaphore(arguments.concurrency)

    async def one(number):
        # Each request has dice of its own: the day is the same in whatever order it goes.
        dice = random.Random(f"{arguments.seed}/{number}")
        kind = dice.choices(list(SHARES), weights=list(SHARES.values()))[0]
        async with slots:
            try:
                outcome = await kind(day, dice)
            except (Mismatch, groq.APIError, openai.APIError, httpx.HTTPError) as error:
                mismatches.append(f"request {number}, {kind.__name__}: {type(error).__name__}: {error}")
                outcome = "mismatch"
        outcomes[kind.__name__][outcome] += 1

    await asyncio.gather(*(one(number) for number in range(arguments.requests)))
    await day.close()
    summary = {
        "requests": arguments.requests,
        "seed": arguments.seed,
        "kinds": outcomes,
        "exceptions": day.exceptions,
        "mismatches": len(mismatches),
    }
    print(json.dumps(summary))
    for mismatch in mismatches[:20]:
        print(mismatch, file=sys.stderr)
    return 1 if mismatches else 0


def main():
    parser = argparse.ArgumentParser(description="Plays a day of mixed traffic.")
    parser.add_argument("base_url")
    parser.add_argument("api_key")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--concurrency", type=int, default=16)
    sys.exit(asyncio.run(play(parser.parse_args())))


if __name__ == "__main__":
    main()
