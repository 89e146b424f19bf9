package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
)

const (
	maxBody = 4 << 20
	// The largest grant. Stands for a grant while the input is estimated: as long in the body as any.
	anyGrant = 100_000_000
)

// An Asked is a client's request, of which every field that is not looked at goes to Groq as it came.
type Asked struct {
	fields map[string]json.RawMessage

	Model               string                  `json:"model"`
	User                string                  `json:"user"`
	N                   *int64                  `json:"n"`
	MaxTokens           *int64                  `json:"max_tokens"`
	MaxCompletionTokens *int64                  `json:"max_completion_tokens"`
	Stream              bool                    `json:"stream"`
	StreamOptions       map[string]any          `json:"stream_options"`
	ServiceTier         string                  `json:"service_tier"`
	ReasoningFormat     string                  `json:"reasoning_format"`
	IncludeReasoning    *bool                   `json:"include_reasoning"`
	Tools               []struct{ Type string } `json:"tools"`
}

// A Sent is what Groq gets.
type Sent struct {
	body           []byte
	granted        int64
	isStream       bool
	hidesReasoning bool
}

// Reads a request for which a decision can be asked.
func read(w http.ResponseWriter, r *http.Request) (*Asked, *Failure) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, &Failure{status: 413, code: "request_too_large", message: "the body is too large"}
	}
	asked := &Asked{}
	invalid := func(message string) (*Asked, *Failure) {
		return nil, &Failure{status: 400, code: "invalid_request_error", message: message}
	}
	if err != nil || json.Unmarshal(body, &asked.fields) != nil {
		return invalid("the body is no JSON object")
	}
	if err := json.Unmarshal(body, asked); err != nil {
		return invalid(err.Error())
	}
	tiers := []string{"", "auto", "on_demand", "flex", "performance"}
	switch {
	case asked.Model == "":
		return invalid("`model` is missing")
	case asked.N != nil && *asked.N != 1:
		return invalid("`n` must be 1, as at Groq")
	case !slices.Contains(tiers, asked.ServiceTier):
		return invalid("`service_tier` is none of Groq's")
	}
	for _, bound := range []*int64{asked.MaxTokens, asked.MaxCompletionTokens} {
		if bound != nil && (*bound < 1 || *bound > anyGrant) {
			return invalid("`max_tokens` is no number of tokens")
		}
	}
	return asked, nil
}

// The output that the client wants; 0 if it does not say.
func (a *Asked) wanted() int64 {
	for _, bound := range []*int64{a.MaxCompletionTokens, a.MaxTokens} {
		if bound != nil {
			return *bound
		}
	}
	return 0
}

// What Groq gets: the request with the granted output in place of the wanted one.
func (a *Asked) sent(granted int64) (Sent, error) {
	var err error
	set := func(name string, value any) {
		text, failure := json.Marshal(value)
		err = errors.Join(err, failure)
		a.fields[name] = text
	}
	delete(a.fields, "max_tokens")
	set("max_completion_tokens", granted)
	if a.Stream {
		// Without it Groq tells the usage of a stream in a field of its own only, if at all.
		options := map[string]any{"include_usage": true}
		for name, value := range a.StreamOptions {
			if name != "include_usage" {
				options[name] = value
			}
		}
		set("stream_options", options)
	}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	err = errors.Join(err, encoder.Encode(a.fields))
	hides := a.ReasoningFormat == "hidden" || a.IncludeReasoning != nil && !*a.IncludeReasoning
	return Sent{body: bytes.TrimSpace(body.Bytes()), granted: granted, isStream: a.Stream, hidesReasoning: hides}, err
}
