package main

import (
	"context"
	"log"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "example.com/tollgate-gateway/tollgate/v1"
)

const (
	attempts    = 3               // of Authorize: a client waits for it
	callTimeout = 5 * time.Second // of one attempt, beside what Authorize may wait for room
	maxBackoff  = 5 * time.Second
)

// After these, a call may be repeated.
var repeated = []codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.Internal, codes.Unknown, codes.Canceled}

// Tollgate is its client: calls are repeated without counting twice, and reports are repeated until they are booked.
type Tollgate struct {
	conn    *grpc.ClientConn
	policy  pb.PolicyServiceClient
	token   string
	reports sync.WaitGroup
}

// NewTollgate takes 127.0.0.1:50051, or dns:///tollgate:50051 for all replicas behind a name.
func NewTollgate(target, token string) (*Tollgate, error) {
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// Each replica gets its share of the calls; the default would send all of them to one.
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		// A connection that died silently is found out, and one to a replica that restarts is soon tried again.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
		}),
	)
	if err != nil {
		return nil, err
	}
	return &Tollgate{conn: conn, policy: pb.NewPolicyServiceClient(conn), token: token}, nil
}

// Authorize asks for a decision. Every attempt has the same request_id, so that it reserves once.
func (t *Tollgate) Authorize(ctx context.Context, request *pb.AuthorizeRequest) (*pb.AuthorizeResponse, error) {
	for attempt := 1; ; attempt++ {
		call, cancel := context.WithTimeout(t.authenticated(ctx), request.MaxWait.AsDuration()+callTimeout)
		decision, err := t.policy.Authorize(call, request)
		cancel()
		code := status.Code(err)
		switch {
		case err == nil:
			return decision, nil
		case ctx.Err() == nil && attempt < attempts && (code == codes.Unavailable || code == codes.DeadlineExceeded):
			pause(ctx, retryDelay(err, attempt))
		default:
			// An answer may be lost that reserved, also when the client left; the id gives it back.
			if slices.Contains(repeated, code) {
				t.Report(unsent(request))
			}
			return nil, err
		}
	}
}

// Report reports in the background. Each report belongs to a request that was admitted, so there are no more of them than those.
func (t *Tollgate) Report(request *pb.RecordUsageRequest) {
	t.reports.Go(func() {
		for attempt := 1; ; attempt++ {
			call, cancel := context.WithTimeout(t.authenticated(context.Background()), callTimeout)
			_, err := t.policy.RecordUsage(call, request)
			cancel()
			if err == nil {
				return
			}
			// Whatever may have been booked already is booked once: repeating is safe, giving up is not.
			if !slices.Contains(repeated, status.Code(err)) {
				// It will never be booked. The reservation expires, and the team's on_unsettled decides.
				log.Printf("usage of %s%s was refused: %v", request.ReservationId, request.RequestId, err)
				return
			}
			time.Sleep(retryDelay(err, attempt))
		}
	})
}

// Close waits until everything that was reported is booked.
func (t *Tollgate) Close() error {
	t.reports.Wait()
	return t.conn.Close()
}

func (t *Tollgate) authenticated(ctx context.Context) context.Context {
	if t.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+t.token)
}

// The report that nothing of the request was sent to Groq, for when its reservation is not known.
func unsent(request *pb.AuthorizeRequest) *pb.RecordUsageRequest {
	report := &pb.RecordUsageRequest{
		RequestId: request.RequestId, Model: request.Model, Operation: request.Operation, Outcome: pb.Outcome_OUTCOME_NOT_SENT,
	}
	switch caller := request.Caller.(type) {
	case *pb.AuthorizeRequest_Team:
		report.Caller = &pb.RecordUsageRequest_Team{Team: caller.Team}
	case *pb.AuthorizeRequest_ApiKey:
		report.Caller = &pb.RecordUsageRequest_ApiKey{ApiKey: caller.ApiKey}
	}
	return report
}

// As RetryInfo says; without it, twice as long each time. In both cases a little at random, so that callers spread.
func retryDelay(err error, attempt int) time.Duration {
	delay, told := retryInfo(err)
	if !told {
		delay = min(100*time.Millisecond<<min(attempt-1, 10), maxBackoff)
	}
	return delay + time.Duration(rand.Float64()*float64(delay)/4)
}

// RetryInfo.retry_delay of an error.
func retryInfo(err error) (time.Duration, bool) {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.RetryDelay.AsDuration(), true
		}
	}
	return 0, false
}

func pause(ctx context.Context, delay time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(delay):
	}
}
