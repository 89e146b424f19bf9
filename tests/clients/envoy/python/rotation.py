"""A load that goes on for a while: every answer must be 200.

    python rotation.py BASE_URL API_KEY SECONDS

An API_KEY of the form @FILE is read from the file before each request, as an application reads a mounted secret. Uses the official SDK without retries, so that not one failed request is hidden. Ends with 1 at the first that fails.
"""

import asyncio
import sys
import time
from pathlib import Path

import groq

MODEL = "openai/gpt-oss-20b"
WORKERS = 8


async def main():
    base_url, key, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    file = Path(key[1:]) if key.startswith("@") else None
    end = time.monotonic() + seconds
    sent = 0
    async with groq.AsyncGroq(base_url=base_url, api_key=key, max_retries=0, timeout=60) as client:

        async def work():
            nonlocal sent
            while time.monotonic() < end:
                if file:
                    client.api_key = file.read_text()
                messages = [{"role": "user", "content": "mock:{}"}]
                await client.chat.completions.create(model=MODEL, messages=messages, max_completion_tokens=5)
                sent += 1

        await asyncio.gather(*(work() for _ in range(WORKERS)))
    print(f"{sent} requests, none failed")


if __name__ == "__main__":
    asyncio.run(main())
