package main

import (
	"encoding/json"
	"strings"

	pb "example.com/tollgate-gateway/tollgate/v1"
)

// Tollgate's own estimate, for what breaks off before Groq tells.
const bytesPerToken = 3

// An Answer is what was seen of Groq's answer, also where it broke off.
type Answer struct {
	sent       Sent
	usage      *usage
	isFinished bool
	textBytes  int64
}

type usage struct {
	PromptTokens        int64 `json:"prompt_tokens"`
	CompletionTokens    int64 `json:"completion_tokens"`
	PromptTokensDetails struct {
		CachedTokens int64 `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionTokensDetails struct {
		ReasoningTokens int64 `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

type chunk struct {
	Usage *usage `json:"usage"`
	XGroq struct {
		Usage *usage `json:"usage"`
	} `json:"x_groq"`
	Choices []struct {
		FinishReason *string `json:"finish_reason"`
		Delta        struct {
			Content   string `json:"content"`
			Reasoning string `json:"reasoning"`
			ToolCalls []struct {
				Function struct {
					Name      string `json:"name"`
					Arguments string `json:"arguments"`
				} `json:"function"`
			} `json:"tool_calls"`
		} `json:"delta"`
	} `json:"choices"`
}

// Adds a whole answer, or a line of a stream.
func (a *Answer) add(line string) {
	text, _ := strings.CutPrefix(strings.TrimSpace(line), "data: ")
	var c chunk
	if !strings.HasPrefix(text, "{") || json.Unmarshal([]byte(text), &c) != nil {
		return
	}
	if c.XGroq.Usage != nil {
		a.usage = c.XGroq.Usage
	}
	if c.Usage != nil {
		a.usage = c.Usage
	}
	for _, choice := range c.Choices {
		a.textBytes += int64(len(choice.Delta.Content) + len(choice.Delta.Reasoning))
		for _, call := range choice.Delta.ToolCalls {
			a.textBytes += int64(len(call.Function.Name) + len(call.Function.Arguments))
		}
		a.isFinished = a.isFinished || choice.FinishReason != nil
	}
}

// How it ended, for its report.
func (a *Answer) ending() *pb.RecordUsageRequest {
	if u := a.usage; u != nil {
		return &pb.RecordUsageRequest{Outcome: pb.Outcome_OUTCOME_COMPLETED, Usage: &pb.Usage{
			InputTokens:       u.PromptTokens,
			CachedInputTokens: u.PromptTokensDetails.CachedTokens,
			OutputTokens:      u.CompletionTokens,
			ReasoningTokens:   u.CompletionTokensDetails.ReasoningTokens,
		}}
	}
	// What broke off is charged what went both ways. Where that is not all that Groq made, the team's on_unsettled decides.
	if !a.sent.isStream || a.sent.hidesReasoning {
		return &pb.RecordUsageRequest{Outcome: pb.Outcome_OUTCOME_ABORTED}
	}
	outcome := pb.Outcome_OUTCOME_ABORTED
	if a.isFinished {
		outcome = pb.Outcome_OUTCOME_COMPLETED
	}
	return &pb.RecordUsageRequest{Outcome: outcome, Usage: &pb.Usage{
		InputTokens:  tokens(int64(len(a.sent.body))),
		OutputTokens: min(tokens(a.textBytes), a.sent.granted),
	}}
}

func tokens(bytes int64) int64 {
	return (bytes + bytesPerToken - 1) / bytesPerToken
}
