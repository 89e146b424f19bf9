"""Errors in Groq's format, so that its SDKs and OpenAI's raise the exceptions that applications know: the same as behind Envoy."""

import math

from fastapi.responses import JSONResponse
from tollgate.v1 import policy_service_pb2 as policy
from tollgate.v1 import types_pb2 as types

# Of several reasons the first one in this table decides: that which waiting helps least.
ANSWERS = (
    (401, "invalid_api_key", ("UNKNOWN_TEAM", "INVALID_KEY", "KEY_REVOKED", "KEY_EXPIRED")),
    (403, "paused", ("PAUSED",)),
    (403, "permission_denied", ("OPERATION_NOT_ALLOWED", "MODEL_NOT_ALLOWED")),
    (403, "tool_not_allowed", ("TOOL_NOT_ALLOWED",)),
    (403, "tool_not_priced", ("TOOL_NOT_PRICED",)),
    (404, "model_not_found", ("MODEL_NOT_PRICED",)),
    (400, "max_output_tokens_exceeded", ("MAX_OUTPUT_TOKENS_EXCEEDED",)),
    (413, "request_too_large", ()),  # a limit that the request exceeds by itself: `retryable` tells
    (402, "insufficient_quota", ("TEAM_BUDGET_EXHAUSTED", "KEY_BUDGET_EXHAUSTED", "ORGANIZATION_BUDGET_EXHAUSTED")),
    (429, "too_many_unsettled", ("TOO_MANY_UNSETTLED",)),
    (429, "rate_limit_exceeded", ("REQUEST_RATE_EXCEEDED", "TOKEN_RATE_EXCEEDED", "AUDIO_RATE_EXCEEDED", "TOO_MANY_IN_FLIGHT", "UPSTREAM_RATE_LIMITED")),
)
TOO_LARGE = next(row for row, (status, _, _) in enumerate(ANSWERS) if status == 413)
ROWS = {reason: row for row, (_, _, reasons) in enumerate(ANSWERS) for reason in reasons}
TYPES = {402: "insufficient_quota", 403: "permissions_error", 429: "rate_limit_error"}
TYPES |= dict.fromkeys((400, 401, 404, 413), "invalid_request_error")
LONGEST_RETRY_S = 60  # SDKs wait this long at most; past it a retry is of no use


def failure(status: int, code: str, message: str, retry_s: float | None = None, should_retry: bool = False, **more: object) -> JSONResponse:
    error = {"message": message, "type": TYPES.get(status, "internal_server_error"), "code": code, **more}
    headers = {"x-should-retry": str(should_retry).lower()}
    if retry_s is not None:
        # Whole seconds, rounded up: a retry one millisecond early is denied again.
        headers["retry-after"] = str(math.ceil(retry_s))
    return JSONResponse({"error": error}, status, headers)


def denial(decision: policy.AuthorizeResponse) -> JSONResponse:
    """The error for a decision that is not `DECISION_ALLOWED`, also one that this client does not know."""
    violations = decision.violations
    rows = [row for row in map(row_of, violations) if row is not None]
    status, code, _ = ANSWERS[min(rows)] if rows else (403, "permission_denied", ())
    # A request that ends frees its place long before its reservation would expire, which is what the delay says.
    only_in_flight = all(v.reason == types.REASON_TOO_MANY_IN_FLIGHT for v in violations)
    has_delay = decision.HasField("retry_delay") and not only_in_flight
    retry_s = decision.retry_delay.ToMilliseconds() / 1_000 if has_delay else None
    soon = only_in_flight or (retry_s is not None and retry_s <= LONGEST_RETRY_S)
    return failure(
        status,
        code,
        "; ".join(v.message for v in violations),
        retry_s,
        should_retry=status == 429 and soon and len(violations) > 0,
        violations=[violation(v) for v in violations],
    )


def reason_of(violation: types.Violation) -> str:
    """Without its prefix. A value that this client does not know is none."""
    known = types.Reason.DESCRIPTOR.values_by_number.get(violation.reason)
    return known.name.removeprefix("REASON_") if known else ""


def row_of(violation: types.Violation) -> int | None:
    row = ROWS.get(reason_of(violation))
    is_rate = row is not None and ANSWERS[row][1] == "rate_limit_exceeded"
    return TOO_LARGE if is_rate and not violation.retryable else row


def violation(v: types.Violation) -> dict[str, object]:
    fields = {
        "reason": reason_of(v).lower(),
        "limit_id": v.limit_id,
        "limit": v.limit,
        "used": v.used,
        "requested": v.requested,
        "retryable": v.retryable,
    }
    if v.HasField("retry_delay"):
        fields["retry_delay_seconds"] = v.retry_delay.ToMilliseconds() / 1_000
    return fields
