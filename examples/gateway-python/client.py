"""Tollgate's client: calls that are repeated without counting twice, and reports that are repeated until they are booked."""

import asyncio
import itertools
import json
import logging
import random

import grpc
from google.rpc import error_details_pb2, status_pb2
from tollgate.v1 import policy_service_pb2 as policy
from tollgate.v1 import policy_service_pb2_grpc as stubs

ATTEMPTS = 3  # of Authorize: a client waits for it
CALL_S = 5.0  # of one attempt, beside what Authorize may wait for room
MAX_BACKOFF_S = 5.0

CHANNEL = {
    # Each replica gets its share of the calls; the default would send all of them to one.
    "grpc.service_config": json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}),
    # A connection that died silently is found out, and one to a replica that restarts is soon tried again.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 5_000,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,
}

Code = grpc.StatusCode
REPEATED = {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED}


class Tollgate:
    """`target` is `127.0.0.1:50051`, or `dns:///tollgate:50051` for all replicas behind a name."""

    def __init__(self, target: str, token: str | None):
        self._channel = grpc.aio.insecure_channel(target, options=list(CHANNEL.items()))
        self._stub = stubs.PolicyServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._reports: set[asyncio.Task[None]] = set()

    async def authorize(self, request: policy.AuthorizeRequest) -> policy.AuthorizeResponse:
        """Asks for a decision. Every attempt has the same `request_id`, so that it reserves once."""
        timeout = request.max_wait.ToMilliseconds() / 1_000 + CALL_S
        try:
            for attempt in itertools.count(1):
                try:
                    return await self._stub.Authorize(request, timeout=timeout, metadata=self._metadata)
                except grpc.aio.AioRpcError as error:
                    if attempt == ATTEMPTS or error.code() not in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
                        raise
                    await asyncio.sleep(retry_delay(error, attempt))
        except BaseException as error:
            # Also if this is cancelled: an answer may be lost that reserved, and the id gives it back.
            if not isinstance(error, grpc.aio.AioRpcError) or error.code() in REPEATED:
                self.report(unsent(request))
            raise

    def report(self, request: policy.RecordUsageRequest) -> None:
        """Reports in the background. Each report belongs to a request that was admitted, so there are no more of them than those."""
        task = asyncio.create_task(self._record(request))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def close(self) -> None:
        """Waits until everything that was reported is booked."""
        while self._reports:
            await asyncio.wait(self._reports)
        await self._channel.close()

    async def _record(self, request: policy.RecordUsageRequest) -> None:
        for attempt in itertools.count(1):
            try:
                await self._stub.RecordUsage(request, timeout=CALL_S, metadata=self._metadata)
                return
            except grpc.aio.AioRpcError as error:
                # Whatever may have been booked already is booked once: repeating is safe, giving up is not.
                if error.code() not in REPEATED:
                    # It will never be booked. The reservation expires, and the team's `on_unsettled` decides.
                    logging.error("usage of %s was refused: %s", request.reservation_id or request.request_id, error.details())
                    return
                await asyncio.sleep(retry_delay(error, attempt))


def unsent(request: policy.AuthorizeRequest) -> policy.RecordUsageRequest:
    """The report that nothing of `request` was sent to Groq, for when its reservation is not known."""
    report = policy.RecordUsageRequest(
        request_id=request.request_id, model=request.model, operation=request.operation, outcome=policy.OUTCOME_NOT_SENT
    )
    caller = request.WhichOneof("caller")
    setattr(report, caller, getattr(request, caller))
    return report


def retry_delay(error: grpc.aio.AioRpcError, attempt: int) -> float:
    """As `RetryInfo` says; without it, twice as long each time. In both cases a little at random, so that callers spread."""
    backoff = min(0.1 * 2 ** min(attempt - 1, 10), MAX_BACKOFF_S)
    told = retry_info(error)
    return (backoff if told is None else told) * (1 + random.random() / 4)


def retry_info(error: grpc.aio.AioRpcError) -> float | None:
    """`RetryInfo.retry_delay` of an error, in seconds."""
    binary = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    for detail in status_pb2.Status.FromString(binary).details:
        found = error_details_pb2.RetryInfo()
        if detail.Unpack(found):
            return found.retry_delay.ToMilliseconds() / 1_000
    return None
