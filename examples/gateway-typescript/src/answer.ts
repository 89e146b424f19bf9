// What Groq's answer used, also where it broke off.

import type Groq from 'groq-sdk';
import type { ChatCompletionChunk } from 'groq-sdk/resources/chat/completions';

import type { RecordUsageRequest } from '../gen/tollgate/v1/RecordUsageRequest.js';
import type { Body } from './request.js';

/** How a request ended, for its report. */
export type Ending = Omit<RecordUsageRequest, 'reservation_id'>;

/** Tollgate's own estimate, for what breaks off before Groq tells. */
const BYTES_PER_TOKEN = 3;

/** What was seen of Groq's answer, and so what it costs. */
export class Answer {
  usage: Groq.CompletionUsage | null | undefined;
  isFinished = false;
  #bytes = 0;

  constructor(private readonly sent: Body) {}

  add(chunk: ChatCompletionChunk): void {
    this.usage = chunk.x_groq?.usage ?? this.usage;
    for (const { delta, finish_reason } of chunk.choices) {
      const calls = delta.tool_calls?.map((call) => `${call.function?.name ?? ''}${call.function?.arguments ?? ''}`) ?? [];
      this.#bytes += Buffer.byteLength([delta.content ?? '', delta.reasoning ?? '', ...calls].join(''));
      this.isFinished ||= finish_reason !== null;
    }
  }

  ending(isComplete: boolean): Ending {
    const { usage, sent } = this;
    if (usage) {
      return {
        outcome: 'OUTCOME_COMPLETED',
        usage: {
          input_tokens: usage.prompt_tokens,
          cached_input_tokens: usage.prompt_tokens_details?.cached_tokens ?? 0,
          output_tokens: usage.completion_tokens,
          reasoning_tokens: usage.completion_tokens_details?.reasoning_tokens ?? 0,
        },
      };
    }
    // What broke off is charged what went both ways. Where that is not all that Groq made, the team's `on_unsettled` decides.
    const isAllSeen = sent.stream && sent.reasoning_format !== 'hidden' && sent.include_reasoning !== false;
    if (!isAllSeen) return { outcome: 'OUTCOME_ABORTED' };
    const output = Math.min(Math.ceil(this.#bytes / BYTES_PER_TOKEN), Number(sent.max_completion_tokens));
    const seen = { input_tokens: Math.ceil(Buffer.byteLength(JSON.stringify(sent)) / BYTES_PER_TOKEN), output_tokens: output };
    return { outcome: isComplete ? 'OUTCOME_COMPLETED' : 'OUTCOME_ABORTED', usage: seen };
  }
}
