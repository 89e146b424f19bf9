package internal.tollgate;

import com.google.protobuf.Any;
import com.google.protobuf.util.Durations;
import com.google.rpc.Code;
import com.google.rpc.RetryInfo;
import com.google.type.Money;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Objects;
import tollgate.v1.AuthorizeRequest;
import tollgate.v1.AuthorizeResponse;
import tollgate.v1.Decision;
import tollgate.v1.Operation;
import tollgate.v1.Outcome;
import tollgate.v1.PolicyServiceGrpc;
import tollgate.v1.Reason;
import tollgate.v1.RecordUsageRequest;
import tollgate.v1.Usage;

/**
 * A gateway's day against a Tollgate server, with stubs made from the contract.
 *
 * <p>The server runs with ../policy.toml and has not seen the team `java` before. Ends with 1 at the first answer that is not as it
 * must be.
 */
public final class Day {
    private static final String MODEL = "openai/gpt-oss-120b";

    private Day() {}

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 1) {
            System.err.println("usage: Day HOST:PORT");
            System.exit(2);
        }
        try (Client client = new Client(arguments[0])) {
            String reservation = authorized(client);
            recorded(client, reservation);
            denied(client);
        }
        unavailable();
    }

    private static AuthorizeRequest.Builder request(String id) {
        return AuthorizeRequest.newBuilder()
                .setTeam("java")
                .setRequestId(id)
                .setModel(MODEL)
                .setOperation(Operation.OPERATION_CHAT_COMPLETION)
                .setInputTokens(4_641)
                .setMaxOutputTokens(2_048)
                .setMaxWait(Durations.fromSeconds(1));
    }

    /** Groq's own example, asked for: the worst case is reserved, once. */
    private static String authorized(Client client) throws InterruptedException {
        AuthorizeResponse answer = client.authorize(request("day-1").build());
        check("the decision", answer.getDecision(), Decision.DECISION_ALLOWED);
        check("the granted output", answer.getMaxOutputTokens(), 2_048L);
        check("the reserved cost", nanos(answer.getReservedCost()), 1_924_950L);
        AuthorizeResponse again = client.authorize(request("day-1").build());
        check("the repeated answer's reservation", again.getReservationId(), answer.getReservationId());
        try {
            client.authorize(request("day-1").setMaxOutputTokens(1).build());
            throw new IllegalStateException("the id of another request was taken");
        } catch (StatusRuntimeException error) {
            check("the error", error.getStatus().getCode(), Status.Code.ALREADY_EXISTS);
        }
        return answer.getReservationId();
    }

    /** The use of Groq's example: booked to the billionth of a dollar, once. */
    private static void recorded(Client client, String reservation) throws InterruptedException {
        Usage usage = Usage.newBuilder()
                .setInputTokens(4_641)
                .setCachedInputTokens(4_608)
                .setOutputTokens(1_817)
                .setReasoningTokens(1_024)
                .build();
        RecordUsageRequest report = RecordUsageRequest.newBuilder()
                .setReservationId(reservation)
                .setOutcome(Outcome.OUTCOME_COMPLETED)
                .setUsage(usage)
                .build();
        var answer = client.record(report);
        check("the cost", nanos(answer.getCost()), 1_440_750L);
        check("recorded before", answer.getAlreadyRecorded(), false);
        var again = client.record(report);
        check("recorded before", again.getAlreadyRecorded(), true);
        check("the team's spend", nanos(again.getTeamSpend().getSpent()), 1_440_750L);
    }

    /** What the rest of the budget cannot pay for. */
    private static void denied(Client client) throws InterruptedException {
        AuthorizeResponse answer = client.authorize(request("day-2").clearMaxWait().build());
        check("the decision", answer.getDecision(), Decision.DECISION_DENIED);
        check("the number of violations", answer.getViolationsCount(), 1);
        check("the reason", answer.getViolations(0).getReason(), Reason.REASON_TEAM_BUDGET_EXHAUSTED);
    }

    /** A server that has no time twice gets the same request once more. */
    private static void unavailable() throws Exception {
        List<String> asked = Collections.synchronizedList(new ArrayList<>());
        PolicyServiceGrpc.PolicyServiceImplBase busy = new PolicyServiceGrpc.PolicyServiceImplBase() {
            @Override
            public void authorize(AuthorizeRequest request, StreamObserver<AuthorizeResponse> answers) {
                asked.add(request.getRequestId());
                if (asked.size() % 3 != 0) {
                    answers.onError(StatusProto.toStatusRuntimeException(com.google.rpc.Status.newBuilder()
                            .setCode(Code.UNAVAILABLE_VALUE)
                            .addDetails(Any.pack(RetryInfo.newBuilder().setRetryDelay(Durations.fromMillis(400)).build()))
                            .build()));
                    return;
                }
                answers.onNext(AuthorizeResponse.newBuilder().setDecision(Decision.DECISION_ALLOWED).build());
                answers.onCompleted();
            }
        };
        Server server = NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0)).addService(busy).build().start();
        try (Client client = new Client("127.0.0.1:" + server.getPort())) {
            long from = System.nanoTime();
            client.authorize(request("busy").build());
            check("waited as RetryInfo says", System.nanoTime() - from >= 800_000_000L, true);
            check("the ids", asked, List.of("busy", "busy", "busy"));
        } finally {
            server.shutdownNow();
        }
    }

    private static long nanos(Money money) {
        check("the currency", money.getCurrencyCode(), "USD");
        return money.getUnits() * 1_000_000_000 + money.getNanos();
    }

    private static void check(String what, Object came, Object expected) {
        if (!Objects.equals(came, expected)) throw new IllegalStateException(what + ": expected " + expected + ", came " + came);
        System.out.println("java: " + what + " is " + came);
    }
}
