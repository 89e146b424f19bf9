"""A gateway's day against a Tollgate server that is known only by reflection (v1alpha): no .proto file, no generated code.

    python day.py HOST:PORT

The server runs with ../policy.toml and has not seen the team `python` before. Prints a line for each call; ends with 1 at
the first answer that is not as it must be, and with 2 where there is no server.
"""

import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "tollgate.v1.PolicyService"
MODEL = "openai/gpt-oss-120b"
TIMEOUT_S = 10


class Mismatch(Exception):
    pass


def check(what, came, expected):
    if came != expected:
        raise Mismatch(f"{what}: expected {expected!r}, came {came!r}")


class Client:
    """Calls the service's methods with plain dictionaries, from descriptors that the server itself gave."""

    def __init__(self, channel):
        self.channel = channel
        database = ProtoReflectionDescriptorDatabase(channel)
        check("the service is listed", SERVICE in database.get_services(), True)
        self.service = descriptor_pool.DescriptorPool(database).FindServiceByName(SERVICE)

    def __call__(self, method, **fields):
        descriptor = self.service.methods_by_name[method]
        call = self.channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(descriptor.output_type).FromString,
        )
        request = message_factory.GetMessageClass(descriptor.input_type)(**fields)
        return call(request, timeout=TIMEOUT_S)

    def fails(self, method, code, **fields):
        """The details of the error that the call must end with, by their type."""
        try:
            answer = self(method, **fields)
        except grpc.RpcError as error:
            check(f"{method}: the error ({error.details()})", error.code(), code)
            return details_of(error)
        raise Mismatch(f"{method}: expected the error {code}, came {answer}")


def details_of(error):
    binary = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    found = {}
    for packed in status_pb2.Status.FromString(binary).details:
        for kind in (error_details_pb2.BadRequest, error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo):
            if packed.Is(kind.DESCRIPTOR):
                detail = kind()
                packed.Unpack(detail)
                found[kind.DESCRIPTOR.name] = detail
    return found


def nanos(money):
    """An amount in billionths of a dollar: exact, never a float."""
    check("the currency", money.currency_code, "USD")
    return money.units * 1_000_000_000 + money.nanos


def name_of(message, field):
    """The name of an enum field's value."""
    number = getattr(message, field)
    return message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number[number].name


def say(text):
    print(f"python: {text}", flush=True)


def authorized(call):
    """Groq's own example, asked for: the worst case is reserved, once."""
    request = dict(
        team="python", request_id="day-1", model=MODEL, operation="OPERATION_CHAT_COMPLETION",
        input_tokens=4_641, max_output_tokens=2_048, labels={"route": "/answers"},
    )
    answer = call("Authorize", **request)
    check("the decision", name_of(answer, "decision"), "DECISION_ALLOWED")
    check("the granted output", answer.max_output_tokens, 2_048)
    check("the reserved cost", nanos(answer.reserved_cost), 1_924_950)
    check("the length of the reservation's id", len(answer.reservation_id), 32)
    check("violations", list(answer.violations), [])
    check("an expiry", answer.HasField("expire_time"), True)
    say(f"Authorize allowed, ${nanos(answer.reserved_cost) / 1e9:.9f} reserved")

    again = call("Authorize", **request)
    check("the repeated answer's reservation", again.reservation_id, answer.reservation_id)
    say("Authorize repeated, same reservation")

    details = call.fails("Authorize", grpc.StatusCode.ALREADY_EXISTS, **{**request, "max_output_tokens": 1})
    check("an ErrorInfo", "ErrorInfo" in details, True)
    say("Authorize with the same id for another request refused")
    return answer.reservation_id


def recorded(call, reservation_id):
    """The use of Groq's example: booked to the billionth of a dollar, once."""
    report = dict(
        reservation_id=reservation_id,
        outcome="OUTCOME_COMPLETED",
        usage=dict(input_tokens=4_641, cached_input_tokens=4_608, output_tokens=1_817, reasoning_tokens=1_024),
    )
    answer = call("RecordUsage", **report)
    check("the cost", nanos(answer.cost), 1_440_750)
    check("recorded before", answer.already_recorded, False)
    check("the team's spend", nanos(answer.team_spend.spent), 1_440_750)
    check("what is reserved", nanos(answer.team_spend.reserved), 0)
    check("what remains", nanos(answer.team_spend.remaining), 559_250)
    check("the alerts", [alert.threshold for alert in answer.alerts], ["50%"])
    say("RecordUsage booked $0.001440750")

    again = call("RecordUsage", **report)
    check("recorded before", again.already_recorded, True)
    check("the repeated cost", nanos(again.cost), 1_440_750)
    say("RecordUsage repeated, booked once")


def denied(call):
    """What the rest of the budget cannot pay for, and what the policy never permits."""
    answer = call(
        "Authorize", team="python", model=MODEL, operation="OPERATION_CHAT_COMPLETION",
        input_tokens=4_641, max_output_tokens=2_048,
    )
    check("the decision", name_of(answer, "decision"), "DECISION_DENIED")
    check("the reservation", answer.reservation_id, "")
    check("the number of violations", len(answer.violations), 1)
    violation = answer.violations[0]
    check("the reason", name_of(violation, "reason"), "REASON_TEAM_BUDGET_EXHAUSTED")
    check("the limit's place", violation.limit_id, "teams.python.budget.monthly_usd")
    check("the bound, used, requested", (violation.limit, violation.used, violation.requested), (2_000_000, 1_440_750, 1_924_950))
    check("whether waiting helps", violation.retryable, True)
    check("a retry delay within the month", 0 < answer.retry_delay.ToSeconds() <= 31 * 86_400, True)
    say(f"Authorize denied: {violation.message}")

    answer = call("Authorize", team="python", model="openai/gpt-oss-20b", operation="OPERATION_CHAT_COMPLETION", input_tokens=1)
    check("the decision", name_of(answer, "decision"), "DECISION_DENIED")
    check("the reasons", [name_of(v, "reason") for v in answer.violations], ["REASON_MODEL_NOT_ALLOWED"])
    check("a retry delay", answer.HasField("retry_delay"), False)
    say(f"Authorize denied: {answer.violations[0].message}")


def malformed(call):
    """Errors that name what is wrong."""
    details = call.fails("Authorize", grpc.StatusCode.INVALID_ARGUMENT, team="python", input_tokens=-1)
    fields = sorted(violation.field for violation in details["BadRequest"].field_violations)
    check("the malformed fields", fields, ["input_tokens", "model", "operation"])
    say(f"Authorize refused, naming {', '.join(fields)}")

    call.fails("RecordUsage", grpc.StatusCode.NOT_FOUND, reservation_id="01" + "0" * 30, outcome="OUTCOME_NOT_SENT")
    say("RecordUsage of an unknown reservation refused")


def reported(call):
    """The team's month, to the billionth of a dollar."""
    answer = call("GetSpend", team="python")
    check("the teams", [team.name for team in answer.teams], ["python"])
    team = answer.teams[0]
    check("spent", nanos(team.spend.spent), 1_440_750)
    check("the budget", nanos(team.spend.budget), 2_000_000)
    check("requests and tokens", (team.requests, team.tokens), (1, 6_458))
    check("by model", [(line.name, nanos(line.spent)) for line in team.by_model], [(MODEL, 1_440_750)])
    check("the days", len(team.by_day), 1)
    say(f"GetSpend of {answer.month}: $0.001440750 of $0.002000000")

    call.fails("GetSpend", grpc.StatusCode.NOT_FOUND, team="nobody")
    say("GetSpend of an unknown team refused")


def main(address):
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=TIMEOUT_S)
        except grpc.FutureTimeoutError:
            print(f"python: no server at {address}", file=sys.stderr)
            return 2
        try:
            call = Client(channel)
            say("reflection v1alpha describes the service")
            recorded(call, authorized(call))
            denied(call)
            malformed(call)
            reported(call)
        except (Mismatch, grpc.RpcError) as error:
            print(f"python: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python day.py HOST:PORT")
    sys.exit(main(sys.argv[1]))
