"""What is written: paragraphs, and colours where there is a terminal."""

import os
import sys
import textwrap


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
