// A gateway to Groq's chat completions: Tollgate decides before each request, and learns of each what it really used.
package main

//go:generate go run ./internal/generate ../../proto .

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "example.com/tollgate-gateway/tollgate/v1"
)

// Less than a reservation lives, so that usage is reported before it expires.
const longest = 9 * time.Minute

type gateway struct {
	tollgate *Tollgate
	groqURL  string
	groqKey  string
	team     string // empty: the caller's key decides
	maxWait  time.Duration
	upstream *http.Client
}

func (g *gateway) complete(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), longest)
	defer cancel()
	apiKey, hasKey := strings.CutPrefix(r.Header.Get("authorization"), "Bearer ")
	if g.team == "" && !hasKey {
		Failure{status: 401, code: "invalid_api_key", message: "send a virtual key as the bearer token"}.write(w)
		return
	}
	asked, fault := read(w, r)
	if fault != nil {
		fault.write(w)
		return
	}
	question, err := g.question(asked, apiKey)
	if err != nil {
		Failure{status: 400, code: "invalid_request_error", message: err.Error()}.write(w)
		return
	}
	decision, err := g.tollgate.Authorize(ctx, question)
	switch {
	case status.Code(err) == codes.InvalidArgument:
		Failure{status: 400, code: "invalid_request_error", message: status.Convert(err).Message()}.write(w)
		return
	case err != nil:
		// Without a decision nothing is sent: that keeps the promise of the budgets.
		delay, told := retryInfo(err)
		if !told {
			delay = time.Second
		}
		Failure{status: 503, code: "service_unavailable", message: "no decision can be made", retryAfter: &delay, shouldRetry: true}.write(w)
		return
	case decision.Decision != pb.Decision_DECISION_ALLOWED:
		denial(decision).write(w)
		return
	}

	// From here on there is a reservation, and each way out of this function reports how it ended.
	ending := notSent()
	defer func() {
		ending.ReservationId = decision.ReservationId
		g.tollgate.Report(ending)
	}()
	sent, err := asked.sent(decision.MaxOutputTokens)
	if err == nil && ctx.Err() == nil {
		w.Header().Set("x-tollgate-reservation", decision.ReservationId)
		// Should this code fail from here on, the team's on_unsettled decides.
		ending = &pb.RecordUsageRequest{Outcome: pb.Outcome_OUTCOME_ABORTED}
		ending, err = g.proxy(ctx, w, sent)
	}
	if err != nil || ctx.Err() != nil {
		panic(http.ErrAbortHandler) // breaks the client's stream, as Groq's was broken
	}
}

// What Tollgate is asked.
func (g *gateway) question(asked *Asked, apiKey string) (*pb.AuthorizeRequest, error) {
	estimate, err := asked.sent(cmp.Or(asked.wanted(), anyGrant))
	question := &pb.AuthorizeRequest{
		Caller:          &pb.AuthorizeRequest_ApiKey{ApiKey: apiKey},
		User:            asked.User,
		RequestId:       rand.Text(),
		Model:           asked.Model,
		Operation:       pb.Operation_OPERATION_CHAT_COMPLETION,
		ServiceTier:     pb.ServiceTier(pb.ServiceTier_value["SERVICE_TIER_"+strings.ToUpper(asked.ServiceTier)]),
		InputBytes:      int64(len(estimate.body)),
		MaxOutputTokens: asked.wanted(),
		MaxWait:         durationpb.New(g.maxWait),
		LimitView:       pb.LimitView_LIMIT_VIEW_NONE,
	}
	if g.team != "" {
		question.Caller = &pb.AuthorizeRequest_Team{Team: g.team}
	}
	for _, tool := range asked.Tools {
		if tool.Type != "function" {
			question.Tools = append(question.Tools, tool.Type)
		}
	}
	return question, err
}

// Sends the request to Groq and its answer to the client, and says how that ended. An error: the answer broke off.
func (g *gateway) proxy(ctx context.Context, w http.ResponseWriter, sent Sent) (*pb.RecordUsageRequest, error) {
	answer := Answer{sent: sent}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, g.groqURL+"/openai/v1/chat/completions", bytes.NewReader(sent.body))
	if err != nil {
		return notSent(), err
	}
	request.GetBody = nil // so that it is never sent twice: each request that Groq gets is authorized by itself
	request.Header.Set("authorization", "Bearer "+g.groqKey)
	request.Header.Set("content-type", "application/json")
	response, err := g.upstream.Do(request)
	if err != nil {
		Failure{status: 502, code: "bad_gateway", message: "Groq did not answer", shouldRetry: true}.write(w)
		if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
			return notSent(), nil
		}
		return answer.ending(), nil
	}
	defer response.Body.Close()
	w.Header().Set("content-type", response.Header.Get("content-type"))
	if response.StatusCode >= 400 {
		if after := response.Header.Get("retry-after"); after != "" {
			w.Header().Set("retry-after", after)
		}
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body)
		return refusal(response), nil
	}
	if !sent.isStream {
		whole, err := io.ReadAll(response.Body)
		if err != nil {
			Failure{status: 502, code: "bad_gateway", message: "Groq's answer broke off", shouldRetry: true}.write(w)
			return answer.ending(), nil
		}
		answer.add(string(whole))
		_, err = w.Write(whole)
		return answer.ending(), err
	}
	flusher := http.NewResponseController(w)
	lines := bufio.NewReader(response.Body)
	for {
		line, err := lines.ReadString('\n')
		answer.add(line)
		if _, failure := io.WriteString(w, line); failure != nil {
			return answer.ending(), failure
		}
		if failure := flusher.Flush(); failure != nil {
			return answer.ending(), failure
		}
		// A stream that merely ends was cut, and the client is to see that.
		if err == io.EOF && answer.isFinished {
			return answer.ending(), nil
		} else if err != nil {
			return answer.ending(), err
		}
	}
}

func notSent() *pb.RecordUsageRequest {
	return &pb.RecordUsageRequest{Outcome: pb.Outcome_OUTCOME_NOT_SENT}
}

// How a request ended that Groq refused.
func refusal(response *http.Response) *pb.RecordUsageRequest {
	if response.StatusCode != http.StatusTooManyRequests {
		return &pb.RecordUsageRequest{Outcome: pb.Outcome_OUTCOME_FAILED, UpstreamStatus: int32(response.StatusCode)}
	}
	ending := &pb.RecordUsageRequest{Outcome: pb.Outcome_OUTCOME_RATE_LIMITED}
	if seconds, err := strconv.ParseFloat(response.Header.Get("retry-after"), 64); err == nil {
		ending.UpstreamRetryDelay = durationpb.New(time.Duration(seconds * float64(time.Second)))
	}
	return ending
}

func main() {
	seconds := func(name string, other float64) time.Duration {
		if value, err := strconv.ParseFloat(os.Getenv(name), 64); err == nil {
			other = value
		}
		return time.Duration(other * float64(time.Second))
	}
	drain := seconds("DRAIN_SECONDS", 20)
	tollgate, err := NewTollgate(cmp.Or(os.Getenv("TOLLGATE_ADDRESS"), "127.0.0.1:50051"), os.Getenv("TOLLGATE_TOKEN"))
	if err != nil {
		log.Fatal(err)
	}
	g := &gateway{
		tollgate: tollgate,
		groqURL:  cmp.Or(os.Getenv("GROQ_BASE_URL"), "https://api.groq.com"),
		groqKey:  os.Getenv("GROQ_API_KEY"),
		team:     os.Getenv("TEAM"),
		maxWait:  seconds("MAX_WAIT_SECONDS", 5),
		upstream: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100, ForceAttemptHTTP2: true}},
	}
	routes := http.NewServeMux()
	routes.HandleFunc("POST /openai/v1/chat/completions", g.complete)
	routes.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		Failure{status: 404, code: "unknown_url", message: "unknown: " + r.Method + " " + r.URL.Path}.write(w)
	})
	// The contexts of all requests end with `all`.
	all, endAll := context.WithCancel(context.Background())
	server := &http.Server{Handler: routes, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return all }}
	listener, err := net.Listen("tcp", cmp.Or(os.Getenv("LISTEN"), "127.0.0.1:8080"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("gateway listens on %s\n", listener.Addr())
	go func() { _ = server.Serve(listener) }()

	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	<-stop.Done()
	// Stops accepting, lets requests end until the time is over, ends the others, and reports all that was used.
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		endAll()
		_ = server.Shutdown(context.Background())
	}
	_ = tollgate.Close()
}
