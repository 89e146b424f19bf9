#!/usr/bin/env python3
"""Measures the console's pages with 1,000 teams and 10,000 keys: what each takes on loopback, by curl, and how many bytes it has.

Usage: console-pages.py PROGRAM [--requests N] [--turns N]

It starts PROGRAM on free ports with an empty store in a temporary directory, plays synthetic traffic of all teams to it, asks for
each page so often as turns say, and prints the median. It ends with 1 if a page is above 100 ms or 100 KB.
"""

import argparse
import hashlib
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

TEAMS, KEYS_OF_TEAM = 1_000, 10
MOST_MS, MOST_BYTES = 100, 100_000
TEAM, KEY = "team-0500", "team-0500-prod-app-05"
PAGES = (
    "/",
    "/?sort=spent&page=3",
    "/teams",
    "/teams?q=07",
    f"/teams/{TEAM}",
    f"/teams/{TEAM}?by=key",
    "/decisions",
    f"/decisions?team={TEAM}",
    "/keys",
    "/keys?q=0999",
    f"/keys?team={TEAM}",
    f"/keys/{KEY}?team={TEAM}",
    "/pauses",
    "/policy",
    "/policy?line=40000",
    "/policy/proposal",
    "/reports",
    "/reports?by=key",
    "/reports?by=team&by=model",
    "/alerts",
    "/audit",
)


def policy():
    lines = [
        '[organization]\nid = "acme"\nbudget = { monthly_usd = "900000.00" }\n',
        '[reports]\nlabels = ["app"]\n',
    ]
    for team in range(TEAMS):
        name = f"team-{team:04}"
        lines.append(
            f'[teams.{name}]\nmodels = ["openai/gpt-oss-120b", "openai/gpt-oss-20b"]\nmax_output_tokens = 2048\n'
            f'budget = {{ monthly_usd = "{100 + team}.00", daily_usd = "50.00", alerts = ["80%"] }}\n'
            "requests_per_minute = 600\ntokens_per_minute = 1_000_000\nmax_in_flight = 50\n"
        )
        for key in range(KEYS_OF_TEAM):
            digest = hashlib.sha256(f"{name}/{key}".encode()).hexdigest()
            lines.append(
                f'[teams.{name}.keys.{name}-prod-app-{key:02}]\nsha256 = "{digest}"\n'
                f'budget = {{ monthly_usd = "20.00" }}\nlabels = {{ app = "app-{key}" }}\n'
            )
    return "\n".join(lines)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until_ready(admin, server):
    for _ in range(600):
        if server.poll() is not None:
            sys.exit("the service ended")
        try:
            with urllib.request.urlopen(f"http://{admin}/readyz", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    sys.exit("the service is not ready after a minute")


def measured(url, turns):
    """The median time in milliseconds, and the bytes of the largest answer."""
    format = "%{http_code} %{time_total} %{size_download}"
    times, sizes = [], []
    for _ in range(turns):
        told = subprocess.run(
            ["curl", "--silent", "--output", "/dev/null", "--write-out", format, url], capture_output=True, text=True, check=True
        )
        status, took, size = told.stdout.split()
        if status != "200":
            sys.exit(f"{url} answers {status}")
        times.append(float(took) * 1_000)
        sizes.append(int(size))
    return statistics.median(times), max(sizes)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("program", type=pathlib.Path)
    options.add_argument("--requests", type=int, default=5_000)
    options.add_argument("--turns", type=int, default=20)
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory, "policy.toml")
        file.write_text(policy())
        listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        serve = ["serve", "--policy", file, "--listen", listen, "--admin", admin, "--store", f"embedded:{directory}/store"]
        server = subprocess.Popen([options.program, *serve], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until_ready(admin, server)
            simulate = ["simulate", "--policy", file, "--address", listen, "--requests", str(options.requests), "--json"]
            # What it finds is not measured here.
            subprocess.run([options.program, *simulate], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            too_much = 0
            for page in PAGES:
                took, size = measured(f"http://{admin}/console/acme{page}", options.turns)
                is_too_much = took > MOST_MS or size > MOST_BYTES
                too_much += is_too_much
                print(f"{took:7.1f} ms {size:8,} bytes  {page}{'  too much' if is_too_much else ''}", flush=True)
        finally:
            server.terminate()
            server.wait()
    sys.exit(1 if too_much else 0)


if __name__ == "__main__":
    main()
