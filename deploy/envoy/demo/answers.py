"""Each kind of answer, as the official SDKs hear it."""

import json
import time

import groq
import httpx
import openai

from screen import bold, dim, say, say_headers
from servers import PATIENCE_S, Unexpected

LARGE, SMALL = "openai/gpt-oss-120b", "openai/gpt-oss-20b"
SPEAKER = "canopylabs/orpheus-v1-english"


class Show:
    """Each method shows one kind of answer, under its own first line."""

    def __init__(self, base_url, secret, settle):
        self.settle = settle
        # No retries, so that each answer is seen. SDKs retry by default: see `closed_by_groq`.
        options = {"api_key": secret, "max_retries": 0, "timeout": PATIENCE_S}
        self.groq = groq.Groq(base_url=base_url, **options)
        self.openai = openai.OpenAI(base_url=f"{base_url}/openai/v1", **options)

    def allowed(self):
        """Allowed. The limits in the headers are the team's, not those of the whole Groq organization"""
        answer = self.groq.chat.completions.with_raw_response.create(**chat("Hello!", completion_tokens=40))
        usage = answer.parse().usage
        say(f"{answer.http_response.status_code}: {usage.prompt_tokens} tokens in, {usage.completion_tokens} out")
        for counted in ("requests", "tokens"):
            say_headers(answer.headers, *(f"x-ratelimit-{what}-{counted}" for what in ("limit", "remaining", "reset")))
        say_headers(answer.headers, "x-tollgate-reservation")

    def streamed(self):
        """Streamed. Each piece passes at once; the usage is read from the last one as it goes by"""
        request = chat("Tell me more.", completion_tokens=30, chunk_ms=10)
        began, arrived, usage = time.monotonic(), [], None
        for chunk in self.groq.chat.completions.create(stream=True, **request):
            if has_text(chunk):
                arrived.append((time.monotonic() - began) * 1000)
            usage = (chunk.x_groq and chunk.x_groq.usage) or usage
        say(f"{len(arrived)} pieces, the first after {arrived[0]:.0f} ms, the last after {arrived[-1]:.0f} ms")
        say(f"x_groq.usage: {usage.prompt_tokens} tokens in, {usage.completion_tokens} out")

    def response(self):
        """The Responses API, through the `openai` SDK"""
        directed = prompt("And you?", reasoning_tokens=12, cached_tokens=9)
        answer = self.openai.responses.create(model=LARGE, input=directed)
        used = answer.usage
        cached, reasoning = used.input_tokens_details.cached_tokens, used.output_tokens_details.reasoning_tokens
        say(f"{answer.status}: {used.input_tokens} tokens in, {cached} of them cached")
        say(f"{used.output_tokens} out, {reasoning} of them reasoning")

    def clamped(self):
        """Clamped: asks for 5,000 tokens where the policy grants 1,024, and the request is rewritten on its way"""
        request = chat("Write a novel.", completion_tokens=5000)
        answer = self.groq.chat.completions.create(max_completion_tokens=5000, **request)
        say(f"200: {answer.usage.completion_tokens} tokens out, finish_reason `{answer.choices[0].finish_reason}`")
        expect("tokens granted", answer.usage.completion_tokens, 1024)

    def aborted(self):
        """The client leaves in the middle of a stream: settled at once, by what had passed"""
        seen = 0
        with self.open_stream(stall_after=7) as stream:
            for chunk in stream:
                seen += has_text(chunk)
                if seen == 7:
                    break
        say(f"left after {seen} of 30 tokens")

    def cut(self):
        """Groq breaks a stream off: the same rule"""
        seen = 0
        try:
            for chunk in self.open_stream(cut_after=11):
                seen += has_text(chunk)
        except (groq.APIConnectionError, httpx.TransportError) as error:
            say(f"{seen} of 30 tokens, then {name_of(error)}")
            say(f"“{error}”")
        else:
            raise Unexpected("the stream came to its end")

    def open_stream(self, **directive):
        """Says by itself all that the request phase would write into it: a broken request is billed by its size."""
        request = chat("Count.", completion_tokens=30, **directive)
        whole = {"max_completion_tokens": 64, "extra_body": {"stream_options": {"include_usage": True}}}
        return self.groq.chat.completions.create(stream=True, **request, **whole)

    def wrong_key(self):
        """Not a key of the policy"""
        stranger = self.groq.with_options(api_key="tgk_of_a_stranger")
        refused(groq.AuthenticationError, 401, lambda: stranger.chat.completions.create(**chat("Hello!")))

    def model_not_permitted(self):
        """Not a model of the team"""
        request = {**chat("Hello!"), "model": "qwen/qwen3.8-27b"}
        refused(groq.PermissionDeniedError, 403, lambda: self.groq.chat.completions.create(**request))

    def unknown_path(self):
        """Not a path of Groq's API"""
        refused(groq.NotFoundError, 404, lambda: self.groq.get("/openai/v1/fine_tunes", cast_to=object))

    def malformed(self):
        """A body that is no JSON: never passed on unread"""
        body = b'{"model": "openai/gpt-oss-20b", "messages": ['
        options = {"headers": {"content-type": "application/json"}}
        path = "/openai/v1/chat/completions"
        refused(
            groq.BadRequestError, 400, lambda: self.groq.post(path, cast_to=object, content=body, options=options)
        )

    def too_large(self):
        """More tokens than the limit lets pass in any minute: waiting cannot help, so the SDK is told not to retry"""
        request = chat("long " * 80_000)
        refused(groq.APIStatusError, 413, lambda: self.groq.chat.completions.create(**request))

    def too_large_for_envoy(self):
        """More bytes than Envoy holds for a decision: its own answer, in the same form"""
        request = chat("long " * 1_000_000)
        refused(groq.APIStatusError, 413, lambda: self.groq.chat.completions.create(**request))

    def rate(self):
        """A rate: each end user may make five requests a minute, and this is the sixth"""
        request = {**chat("Again!", completion_tokens=5), "user": "visitor-7"}
        for _ in range(5):
            self.groq.chat.completions.create(**request)
        refused(groq.RateLimitError, 429, lambda: self.groq.chat.completions.create(**request))

    def failed_by_groq(self):
        """Groq answers 500: passed on as it is, and free"""
        request = chat("Fail.", status=500)
        refused(groq.InternalServerError, 500, lambda: self.groq.chat.completions.create(**request))

    def closed_by_groq(self):
        """Groq itself says 429: the model is closed for as long as Groq asks, for all, without asking Groq again"""
        request = chat("Too much.", status=429, retry_after=4)
        refused(groq.RateLimitError, 429, lambda: self.groq.chat.completions.create(**request))
        self.settle()
        say("The next request, answered by Tollgate:")
        refused(groq.RateLimitError, 429, lambda: self.groq.chat.completions.create(**chat("Hello?")))
        say("The same request with the SDK's own retries, which wait as `retry-after` says:")
        began = time.monotonic()
        self.groq.with_options(max_retries=2).chat.completions.create(**chat("Hello?"))
        say(f"200, after {time.monotonic() - began:.1f} s")

    def free(self):
        """The list of models: asks for a key, and costs nothing"""
        say("200: " + ", ".join(model.id for model in self.groq.models.list().data))

    def budget(self):
        """The budget of the day, $0.50, spent on speech: 402, since no waiting of an SDK brings back money"""
        request = {"model": SPEAKER, "voice": "hannah", "input": "So it goes. " * 400, "response_format": "wav"}
        passed = 0

        def speak_until_refused():
            nonlocal passed
            for passed in range(50):
                self.groq.audio.speech.create(**request)

        refused(groq.APIStatusError, 402, speak_until_refused)
        say(f"({passed} such requests had passed)")


def prompt(text, **directive):
    """The mock answers as the prompt tells it."""
    return f"{text} mock:{json.dumps(directive)}"


def chat(text, **directive):
    return {"model": SMALL, "messages": [{"role": "user", "content": prompt(text, **directive)}]}


def has_text(chunk):
    return bool(chunk.choices and chunk.choices[0].delta.content)


def refused(kind, status, ask):
    """Shows the exception that the SDK raises, which is to be of just this kind."""
    try:
        ask()
    except (groq.APIError, openai.APIError) as error:
        expect("the exception", (type(error), getattr(error, "status_code", None)), (kind, status))
        told = error.body["error"]
        say(bold(f"{name_of(error)}: {status} {told.get('code') or told['type']}"))
        say(f"“{told['message']}”")
        say_headers(error.response.headers, "retry-after", "x-should-retry")
        return
    raise Unexpected(f"expected {kind.__name__}, came an answer")


def expect(what, came, expected):
    if came != expected:
        raise Unexpected(f"{what}: expected {expected}, came {came}")


def name_of(error):
    return f"{type(error).__module__.partition('.')[0]}.{type(error).__name__}"


# The budget comes last: after it nothing passes that costs.
EACH_KIND = [
    Show.allowed,
    Show.streamed,
    Show.response,
    Show.clamped,
    Show.aborted,
    Show.cut,
    Show.failed_by_groq,
    Show.closed_by_groq,
    Show.free,
    Show.wrong_key,
    Show.model_not_permitted,
    Show.unknown_path,
    Show.malformed,
    Show.too_large,
    Show.too_large_for_envoy,
    Show.rate,
]
AT_THE_END = [Show.budget]
