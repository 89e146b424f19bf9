"""What Groq's answer used, also where it broke off."""

import json
import math

from tollgate.v1 import policy_service_pb2 as policy

BYTES_PER_TOKEN = 3  # Tollgate's own estimate, for what breaks off before Groq tells


class Answer:
    """What was seen of the answer to `sent`, whose text has `sent_bytes`."""

    def __init__(self, sent: dict, sent_bytes: int):
        self.sent = sent
        self.sent_bytes = sent_bytes
        self.usage: dict | None = None
        self.is_finished = False
        self._text_bytes = 0
        self._rest = b""

    def add(self, piece: bytes) -> None:
        """Reads a piece of a stream, wherever it is cut."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                self._add_chunk(json.loads(line.removeprefix(b"data: ")))

    def _add_chunk(self, chunk: dict) -> None:
        self.usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage") or self.usage
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta") or {}
            calls = [call.get("function") or {} for call in delta.get("tool_calls") or ()]
            texts = [delta.get("content"), delta.get("reasoning")]
            texts += [call.get(field) for call in calls for field in ("name", "arguments")]
            self._text_bytes += sum(len(text.encode()) for text in texts if text)
            self.is_finished = self.is_finished or choice.get("finish_reason") is not None

    def ending(self) -> policy.RecordUsageRequest:
        """How it ended, for its report."""
        if self.usage:
            details = self.usage.get("prompt_tokens_details") or {}, self.usage.get("completion_tokens_details") or {}
            used = policy.Usage(
                input_tokens=self.usage["prompt_tokens"],
                cached_input_tokens=details[0].get("cached_tokens") or 0,
                output_tokens=self.usage["completion_tokens"],
                reasoning_tokens=details[1].get("reasoning_tokens") or 0,
            )
            return policy.RecordUsageRequest(outcome=policy.OUTCOME_COMPLETED, usage=used)
        # What broke off is charged what went both ways. Where that is not all that Groq made, the team's `on_unsettled` decides.
        hides = self.sent.get("reasoning_format") == "hidden" or self.sent.get("include_reasoning") is False
        if not self.sent.get("stream") or hides:
            return policy.RecordUsageRequest(outcome=policy.OUTCOME_ABORTED)
        used = policy.Usage(
            input_tokens=math.ceil(self.sent_bytes / BYTES_PER_TOKEN),
            output_tokens=min(math.ceil(self._text_bytes / BYTES_PER_TOKEN), self.sent["max_completion_tokens"]),
        )
        outcome = policy.OUTCOME_COMPLETED if self.is_finished else policy.OUTCOME_ABORTED
        return policy.RecordUsageRequest(outcome=outcome, usage=used)
