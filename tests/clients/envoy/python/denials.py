"""Every denial as the official SDKs take it: the exception that they raise, and how often they ask.

    python denials.py BASE_URL KEYS

KEYS is a JSON object of virtual keys by the name of their team in tests/clients/envoy/policy.toml. Both SDKs are left with
their usual two retries: they must use them when, and only when, asking again can help. Ends with 1 at the first surprise.
"""

import collections
import json
import sys
import threading

import groq
import httpx
import openai

MODEL = "openai/gpt-oss-20b"
USUAL_RETRIES = 2


class Counting(httpx.HTTPTransport):
    """Counts what is really sent."""

    def __init__(self):
        super().__init__()
        self.sent = 0

    def handle_request(self, request):
        self.sent += 1
        return super().handle_request(request)


def prompt(directive):
    return [{"role": "user", "content": f"mock:{directive}"}]


class Sdk:
    """One of the two SDKs, which are made alike."""

    def __init__(self, module, base_url):
        self.module = module
        self.base_url = base_url if module is groq else f"{base_url}/openai/v1"

    def client(self, key, **more):
        client_class = groq.Groq if self.module is groq else openai.OpenAI
        return client_class(base_url=self.base_url, api_key=key, max_retries=USUAL_RETRIES, **more)

    def ask(self, key, directive="{}", model=MODEL, **fields):
        """The answer or the exception, and how many requests were sent for it."""
        transport = Counting()
        with self.client(key, http_client=httpx.Client(transport=transport)) as client:
            try:
                came = client.chat.completions.create(model=model, messages=prompt(directive), **fields)
            except self.module.APIError as error:
                came = error
        return came, transport.sent

    def expect(self, exception, status, code, words="", **request):
        """The exception of a request that is sent once, since asking again could not help."""
        came, sent = self.ask(**request)
        name = f"{self.module.__name__} {request}"
        assert type(came) is getattr(self.module, exception), f"{name}: {came!r}"
        assert came.status_code == status, f"{name}: {came.status_code}"
        body = came.body["error"] if "error" in came.body else came.body
        assert body["code"] == code, f"{name}: {came.body}"
        assert words in str(came), f"{name}: {came}"
        assert sent == 1, f"{name}: sent {sent} times"
        return came


def play(sdk, keys):
    roomy = keys["roomy"]
    sdk.expect("AuthenticationError", 401, "invalid_api_key", key="tgk_wrong")
    sdk.expect("PermissionDeniedError", 403, "permission_denied", key=roomy, model="whisper-large-v3")
    sdk.expect("NotFoundError", 404, "model_not_found", key=roomy, model="openai/unpriced")
    sdk.expect("BadRequestError", 400, "max_output_tokens_exceeded", key=roomy, max_completion_tokens=9_999)
    sdk.expect("BadRequestError", 400, "invalid_request_error", "`n`", key=roomy, n=0)
    sdk.expect("APIStatusError", 402, "insufficient_quota", "teams.poor", key=keys["poor"])
    sdk.expect("APIStatusError", 413, "request_too_large", "never passes", key=keys["small"])

    # One an hour: that is too long to wait for.
    key = keys[f"slow-{sdk.module.__name__}"]
    came, sent = sdk.ask(key)
    assert not isinstance(came, Exception) and sent == 1, came
    error = sdk.expect("RateLimitError", 429, "rate_limit_exceeded", "requests_per_hour", key=key)
    assert 3_500 < int(error.response.headers["retry-after"]) <= 3_661, error.response.headers
    assert error.response.headers["x-ratelimit-remaining-requests"] == "0"

    # One at a time: the place is free soon, so both SDKs get their answer.
    with sdk.client(keys["single"]) as client:
        slow = client.chat.completions.create(model=MODEL, messages=prompt('{"chunk_ms":40}'), stream=True)
        next(iter(slow))
        rest = threading.Thread(target=lambda: collections.deque(slow, maxlen=0))
        rest.start()
        came, sent = sdk.ask(keys["single"])
        rest.join()
    assert not isinstance(came, Exception) and sent > 1, f"{came!r} after {sent}"

    # Groq asks to wait for a second: everyone waits as long, and then is served.
    model = "openai/gpt-oss-120b"
    came, sent = sdk.ask(roomy, '{"status":429,"retry_after":1}', model=model)
    assert isinstance(came, sdk.module.RateLimitError), came
    came, sent = sdk.ask(roomy, model=model)
    assert not isinstance(came, Exception), came


def main():
    base_url, keys = sys.argv[1], json.loads(sys.argv[2])
    for module in (groq, openai):
        play(Sdk(module, base_url), keys)
    print("every denial was taken as it was meant")


if __name__ == "__main__":
    main()
