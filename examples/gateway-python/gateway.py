"""A gateway to Groq's chat completions: Tollgate decides before each request, and learns of each what it really used."""

import asyncio
import json
import os
import socket
import uuid
from contextlib import asynccontextmanager, suppress

import grpc
import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from tollgate.v1 import policy_service_pb2 as policy
from tollgate.v1 import types_pb2 as types

from answer import Answer
from client import Tollgate, retry_info
from errors import denial, failure

HOST, PORT = os.environ.get("LISTEN", "127.0.0.1:8080").rsplit(":", 1)
TEAM = os.environ.get("TEAM")
MAX_WAIT_S = float(os.environ.get("MAX_WAIT_SECONDS", 5))
DRAIN_S = int(os.environ.get("DRAIN_SECONDS", 20))

LONGEST_S = 9 * 60  # less than a reservation lives, so that usage is reported before it expires
MAX_BODY = 4 * 1024 * 1024
ANY_GRANT = 100_000_000  # stands for a grant while the input is estimated: as long in the body as any


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.tollgate = Tollgate(os.environ.get("TOLLGATE_ADDRESS", "127.0.0.1:50051"), os.environ.get("TOLLGATE_TOKEN"))
    app.state.groq = httpx.AsyncClient(
        base_url=os.environ.get("GROQ_BASE_URL", "https://api.groq.com"),
        headers={"authorization": f"Bearer {os.environ['GROQ_API_KEY']}", "content-type": "application/json"},
        timeout=httpx.Timeout(LONGEST_S, connect=5),
        limits=httpx.Limits(max_connections=None),  # Tollgate bounds what is in flight
    )
    app.state.open = set()
    yield
    # The server has stopped accepting, let requests end, and cancelled those that did not. Now all of it is reported.
    while app.state.open:
        await asyncio.wait(app.state.open)
    await app.state.tollgate.close()
    await app.state.groq.aclose()


app = FastAPI(lifespan=lifespan, openapi_url=None)


@app.post("/openai/v1/chat/completions")
async def completions(request: Request) -> Response:
    scheme, _, api_key = request.headers.get("authorization", "").partition(" ")
    if not TEAM and (scheme != "Bearer" or not api_key):
        return failure(401, "invalid_api_key", "send a virtual key as the bearer token")
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > MAX_BODY:
            return failure(413, "request_too_large", "the body is too large")
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    fault = fault_of(body)
    if fault:
        return failure(400, "invalid_request_error", fault)
    return Exchange(app, {"team": TEAM} if TEAM else {"api_key": api_key}, body)


def fault_of(body: object) -> str | None:
    if not isinstance(body, dict):
        return "the body is no JSON object"
    if not isinstance(body.get("model"), str):
        return "`model` is missing"
    if body.get("stream") not in (None, False, True):
        return "`stream` is no boolean"
    if body.get("n") not in (None, 1):
        return "`n` must be 1, as at Groq"
    if body.get("service_tier") not in (None, "auto", "on_demand", "flex", "performance"):
        return "`service_tier` is none of Groq's"
    if not all(isinstance(tool, dict) and isinstance(tool.get("type"), str) for tool in body.get("tools") or ()):
        return "`tools` is no list of tools"
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= ANY_GRANT):
            return f"`{name}` is no number of tokens"
    return None


class Exchange(Response):
    """A request that may go to Groq, and its answer."""

    def __init__(self, app: FastAPI, caller: dict[str, str], body: dict):
        self.background = None
        self.tollgate, self.groq, self.open = app.state.tollgate, app.state.groq, app.state.open
        self.caller = caller
        self.wanted = body.get("max_completion_tokens") or body.get("max_tokens") or 0
        self.sent = {**body, "max_completion_tokens": self.wanted or ANY_GRANT}
        self.sent.pop("max_tokens", None)
        if self.sent.get("stream"):
            # Without it Groq tells the usage of a stream in a field of its own only, if at all.
            self.sent["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}

    async def __call__(self, scope, receive, send) -> None:
        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        work = asyncio.create_task(self.run(scope, receive, send))
        client = asyncio.create_task(gone())
        self.open.add(work)
        work.add_done_callback(self.open.discard)
        # The server cancels this where it has waited long enough for the request to end. In any case `run` reports how it ended.
        with suppress(asyncio.CancelledError):
            await asyncio.wait((work, client), timeout=LONGEST_S, return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        client.cancel()
        await asyncio.gather(work, return_exceptions=True)
        if not work.cancelled() and (error := work.exception()):
            raise error

    async def run(self, scope, receive, send) -> None:
        try:
            decision = await self.tollgate.authorize(self.question())
        except grpc.aio.AioRpcError as error:
            # Without a decision nothing is sent: that keeps the promise of the budgets.
            if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                answer = failure(400, "invalid_request_error", error.details())
            else:
                answer = failure(503, "service_unavailable", "no decision can be made", retry_info(error) or 1, should_retry=True)
            return await answer(scope, receive, send)
        if decision.decision != types.DECISION_ALLOWED:
            return await denial(decision)(scope, receive, send)

        # From here on there is a reservation, and each way out of this function reports how it ended.
        self.ending = not_sent
        try:
            self.sent["max_completion_tokens"] = decision.max_output_tokens
            await self.proxy(decision.reservation_id, scope, receive, send)
        finally:
            report = self.ending()
            report.reservation_id = decision.reservation_id
            self.tollgate.report(report)

    def question(self) -> policy.AuthorizeRequest:
        question = policy.AuthorizeRequest(
            **self.caller,
            request_id=str(uuid.uuid4()),
            user=self.sent.get("user") or "",
            model=self.sent["model"],
            operation=types.OPERATION_CHAT_COMPLETION,
            service_tier=f"SERVICE_TIER_{(self.sent.get('service_tier') or 'unspecified').upper()}",
            input_bytes=len(encoded(self.sent)),
            max_output_tokens=self.wanted,
            tools=[tool["type"] for tool in self.sent.get("tools") or () if tool["type"] != "function"],
            limit_view=policy.LIMIT_VIEW_NONE,
        )
        question.max_wait.FromMilliseconds(round(MAX_WAIT_S * 1_000))
        return question

    async def proxy(self, reservation_id: str, scope, receive, send) -> None:
        """Sends the request to Groq and its answer to the client, and notes how that ended, also where it is cancelled."""
        content = encoded(self.sent)
        answer = Answer(self.sent, len(content))
        has_begun = False
        try:
            # Before anything is sent: what is cut from here on may be billed.
            self.ending = answer.ending
            async with self.groq.stream("POST", "/openai/v1/chat/completions", content=content) as response:
                if response.status_code >= 400:
                    self.ending = lambda: refusal(response)
                    kept = {name: response.headers[name] for name in ("content-type", "retry-after") if name in response.headers}
                    return await Response(await response.aread(), response.status_code, kept)(scope, receive, send)
                headers = {"content-type": response.headers["content-type"], "x-tollgate-reservation": reservation_id}
                if not self.sent.get("stream"):
                    whole = await response.aread()
                    answer.usage = json.loads(whole).get("usage")
                    return await Response(whole, headers=headers)(scope, receive, send)
                has_begun = True
                pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
                await send({"type": "http.response.start", "status": 200, "headers": pairs})
                async for piece in response.aiter_bytes():
                    answer.add(piece)
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                # A stream that merely ends was cut, and the client is to see that: it does not get the last piece.
                if answer.is_finished:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        except httpx.TransportError as error:
            if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
                self.ending = not_sent
            if not has_begun:
                await failure(502, "bad_gateway", "Groq did not answer", should_retry=True)(scope, receive, send)


def not_sent() -> policy.RecordUsageRequest:
    return policy.RecordUsageRequest(outcome=policy.OUTCOME_NOT_SENT)


def refusal(response: httpx.Response) -> policy.RecordUsageRequest:
    if response.status_code != 429:
        return policy.RecordUsageRequest(outcome=policy.OUTCOME_FAILED, upstream_status=response.status_code)
    ending = policy.RecordUsageRequest(outcome=policy.OUTCOME_RATE_LIMITED)
    try:
        ending.upstream_retry_delay.FromMilliseconds(round(float(response.headers["retry-after"]) * 1_000))
    except (KeyError, ValueError):
        pass  # then the report closes nothing
    return ending


def encoded(body: dict) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


if __name__ == "__main__":
    listener = socket.create_server((HOST, int(PORT)), backlog=1024)
    print(f"gateway listens on {HOST}:{listener.getsockname()[1]}", flush=True)
    # On SIGTERM: stops accepting, lets requests end for so long, then cancels the others; `lifespan` reports.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=DRAIN_S)
    uvicorn.Server(config).run(sockets=[listener])
