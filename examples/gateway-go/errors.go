package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	pb "example.com/tollgate-gateway/tollgate/v1"
)

// Errors have Groq's format, so that its SDKs and OpenAI's raise the exceptions that applications know: the same as behind Envoy.
// Of several reasons the first one in this table decides: that which waiting helps least.
var answers = []struct {
	status  int
	code    string
	reasons []pb.Reason
}{
	{401, "invalid_api_key", []pb.Reason{pb.Reason_REASON_UNKNOWN_TEAM, pb.Reason_REASON_INVALID_KEY, pb.Reason_REASON_KEY_REVOKED, pb.Reason_REASON_KEY_EXPIRED}},
	{403, "paused", []pb.Reason{pb.Reason_REASON_PAUSED}},
	{403, "permission_denied", []pb.Reason{pb.Reason_REASON_OPERATION_NOT_ALLOWED, pb.Reason_REASON_MODEL_NOT_ALLOWED}},
	{403, "tool_not_allowed", []pb.Reason{pb.Reason_REASON_TOOL_NOT_ALLOWED}},
	{403, "tool_not_priced", []pb.Reason{pb.Reason_REASON_TOOL_NOT_PRICED}},
	{404, "model_not_found", []pb.Reason{pb.Reason_REASON_MODEL_NOT_PRICED}},
	{400, "max_output_tokens_exceeded", []pb.Reason{pb.Reason_REASON_MAX_OUTPUT_TOKENS_EXCEEDED}},
	{413, "request_too_large", nil}, // a limit that the request exceeds by itself: `retryable` tells
	{402, "insufficient_quota", []pb.Reason{pb.Reason_REASON_TEAM_BUDGET_EXHAUSTED, pb.Reason_REASON_KEY_BUDGET_EXHAUSTED, pb.Reason_REASON_ORGANIZATION_BUDGET_EXHAUSTED}},
	{429, "too_many_unsettled", []pb.Reason{pb.Reason_REASON_TOO_MANY_UNSETTLED}},
	{429, "rate_limit_exceeded", []pb.Reason{pb.Reason_REASON_REQUEST_RATE_EXCEEDED, pb.Reason_REASON_TOKEN_RATE_EXCEEDED, pb.Reason_REASON_AUDIO_RATE_EXCEEDED, pb.Reason_REASON_TOO_MANY_IN_FLIGHT, pb.Reason_REASON_UPSTREAM_RATE_LIMITED}},
}

const tooLarge = 7 // its row

var rows = func() map[pb.Reason]int {
	rows := map[pb.Reason]int{}
	for row, answer := range answers {
		for _, reason := range answer.reasons {
			rows[reason] = row
		}
	}
	return rows
}()

var types = map[int]string{
	400: "invalid_request_error", 401: "invalid_request_error", 402: "insufficient_quota", 403: "permissions_error",
	404: "invalid_request_error", 413: "invalid_request_error", 429: "rate_limit_error",
}

// SDKs wait this long at most; past it a retry is of no use.
const longestRetry = time.Minute

// A Failure is the answer to a request that does not get Groq's.
type Failure struct {
	status      int
	code        string
	message     string
	retryAfter  *time.Duration
	shouldRetry bool
	violations  []map[string]any
}

func (f Failure) write(w http.ResponseWriter) {
	kind, ok := types[f.status]
	if !ok {
		kind = "internal_server_error"
	}
	fields := map[string]any{"message": f.message, "type": kind, "code": f.code}
	if f.violations != nil {
		fields["violations"] = f.violations
	}
	w.Header().Set("content-type", "application/json")
	w.Header().Set("x-should-retry", strconv.FormatBool(f.shouldRetry))
	if f.retryAfter != nil {
		// Whole seconds, rounded up: a retry one millisecond early is denied again.
		w.Header().Set("retry-after", strconv.FormatInt(int64((*f.retryAfter+time.Second-1)/time.Second), 10))
	}
	w.WriteHeader(f.status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": fields})
}

// The failure for a decision that is not DECISION_ALLOWED, also one that this client does not know.
func denial(decision *pb.AuthorizeResponse) Failure {
	f := Failure{status: 403, code: "permission_denied"}
	best, onlyInFlight := len(answers), true
	var messages []string
	for _, v := range decision.Violations {
		row, known := rows[v.Reason]
		if known && answers[row].code == "rate_limit_exceeded" && !v.Retryable {
			row = tooLarge
		}
		if known && row < best {
			best = row
			f.status, f.code = answers[row].status, answers[row].code
		}
		onlyInFlight = onlyInFlight && v.Reason == pb.Reason_REASON_TOO_MANY_IN_FLIGHT
		messages = append(messages, v.Message)
		f.violations = append(f.violations, violation(v))
	}
	f.message = strings.Join(messages, "; ")
	// A request that ends frees its place long before its reservation would expire, which is what the delay says.
	if decision.RetryDelay != nil && !onlyInFlight {
		delay := decision.RetryDelay.AsDuration()
		f.retryAfter = &delay
	}
	soon := onlyInFlight || f.retryAfter != nil && *f.retryAfter <= longestRetry
	f.shouldRetry = f.status == 429 && soon && len(decision.Violations) > 0
	return f
}

func violation(v *pb.Violation) map[string]any {
	fields := map[string]any{
		"reason":    strings.ToLower(strings.TrimPrefix(v.Reason.String(), "REASON_")),
		"limit_id":  v.LimitId,
		"limit":     v.Limit,
		"used":      v.Used,
		"requested": v.Requested,
		"retryable": v.Retryable,
	}
	if v.RetryDelay != nil {
		fields["retry_delay_seconds"] = v.RetryDelay.AsDuration().Seconds()
	}
	return fields
}
