"""Shows Envoy and Tollgate before a mock of Groq, with the official SDKs: `make demo-envoy`.

    target/clients/envoy/bin/python deploy/envoy/demo DIRECTORY    with the built `tollgate` and `examples/mock-groq`

Plays each kind of answer once and says what the client hears and what it costs, then a mixed day, and at the end holds
the mock's own ledger against Tollgate's. Ends with 0 only if they agree to the nano-dollar. The configuration is that of
the directory above, with free ports, the mock in Groq's place and a key that is made for this one run.

Everything listens on loopback, keeps its state in a temporary directory and ends with this program.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import groq
import httpx
import openai

from answers import AT_THE_END, EACH_KIND, Show
from books import Books
from screen import bold, dollars, green, red, say
from servers import Unexpected, end_with_parent, port_of, run_envoy, run_mock, run_tollgate

DAY = Path(__file__).resolve().parents[3] / "tests/clients/envoy/python/day.py"
DAY_REQUESTS = 300
# For the whole day, which takes a few seconds.
DAY_PATIENCE_S = 180


def play(scenes, show, books):
    for scene in scenes:
        before = sum(books.booked().values())
        print(f"\n   {bold(scene.__doc__ + '.')}", flush=True)
        scene(show)
        cost = sum(books.booked().values()) - before
        say(green(f"cost {dollars(cost)}" if cost else "cost nothing"))


def play_day(base_url, secret):
    title = f"A mixed day: {DAY_REQUESTS} requests, 16 at a time, each answer checked by the client."
    print(f"\n   {bold(title)}", flush=True)
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
        print(f"{'└─► Tollgate':>42} :{port_of(tollgate)}, asked before and told after", flush=True)
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
