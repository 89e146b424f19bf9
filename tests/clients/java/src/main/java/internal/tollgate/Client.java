package internal.tollgate;

import com.google.protobuf.util.Durations;
import com.google.rpc.RetryInfo;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.protobuf.StatusProto;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import tollgate.v1.AuthorizeRequest;
import tollgate.v1.AuthorizeResponse;
import tollgate.v1.PolicyServiceGrpc;
import tollgate.v1.RecordUsageRequest;
import tollgate.v1.RecordUsageResponse;

/** Calls that are repeated without counting twice. */
final class Client implements AutoCloseable {
    private static final int ATTEMPTS = 3; // of Authorize: a client waits for it
    private static final long CALL_MS = 5_000; // of one attempt, beside what Authorize may wait for room
    private static final long MAX_BACKOFF_MS = 5_000;
    private static final Set<Status.Code> REPEATED = EnumSet.of(
            Status.Code.UNAVAILABLE, Status.Code.DEADLINE_EXCEEDED, Status.Code.INTERNAL, Status.Code.UNKNOWN, Status.Code.CANCELLED);

    private final ManagedChannel channel;
    private final PolicyServiceGrpc.PolicyServiceBlockingStub policy;

    /** `target`: `127.0.0.1:50051`, or `dns:///tollgate:50051` for all replicas behind a name. */
    Client(String target) {
        channel = NettyChannelBuilder.forTarget(target)
                .usePlaintext()
                // Each replica gets its share of the calls; the default would send all of them to one.
                .defaultServiceConfig(Map.of("loadBalancingConfig", List.of(Map.of("round_robin", Map.of()))))
                // A connection that died silently is found out.
                .keepAliveTime(30, TimeUnit.SECONDS)
                .keepAliveTimeout(5, TimeUnit.SECONDS)
                .build();
        policy = PolicyServiceGrpc.newBlockingStub(channel);
    }

    /** Asks for a decision. Every attempt has the same `request_id`, so that it reserves once. */
    AuthorizeResponse authorize(AuthorizeRequest request) throws InterruptedException {
        long timeoutMs = Durations.toMillis(request.getMaxWait()) + CALL_MS;
        for (int attempt = 1; ; attempt++) {
            try {
                return policy.withDeadlineAfter(timeoutMs, TimeUnit.MILLISECONDS).authorize(request);
            } catch (StatusRuntimeException error) {
                Status.Code code = error.getStatus().getCode();
                if (attempt == ATTEMPTS || code != Status.Code.UNAVAILABLE && code != Status.Code.DEADLINE_EXCEEDED) throw error;
                Thread.sleep(retryDelayMs(error, attempt));
            }
        }
    }

    /** Reports until it is booked. Whatever may have been booked already is booked once: repeating is safe, giving up is not. */
    RecordUsageResponse record(RecordUsageRequest request) throws InterruptedException {
        for (int attempt = 1; ; attempt++) {
            try {
                return policy.withDeadlineAfter(CALL_MS, TimeUnit.MILLISECONDS).recordUsage(request);
            } catch (StatusRuntimeException error) {
                if (!REPEATED.contains(error.getStatus().getCode())) throw error;
                Thread.sleep(retryDelayMs(error, attempt));
            }
        }
    }

    /** As `RetryInfo` says; without it, twice as long each time. In both cases a little at random, so that callers spread. */
    private static long retryDelayMs(StatusRuntimeException error, int attempt) {
        long delay = Math.min(100L << Math.min(attempt - 1, 10), MAX_BACKOFF_MS);
        for (var detail : StatusProto.fromThrowable(error).getDetailsList()) {
            if (!detail.is(RetryInfo.class)) continue;
            try {
                delay = Durations.toMillis(detail.unpack(RetryInfo.class).getRetryDelay());
            } catch (com.google.protobuf.InvalidProtocolBufferException unreadable) {
                break; // then the delay of our own holds
            }
        }
        return delay + ThreadLocalRandom.current().nextLong(delay / 4 + 1);
    }

    @Override
    public void close() throws InterruptedException {
        channel.shutdown();
        if (!channel.awaitTermination(CALL_MS, TimeUnit.MILLISECONDS)) channel.shutdownNow();
    }
}
