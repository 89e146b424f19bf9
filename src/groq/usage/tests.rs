use super::*;

fn usage(json: &str) -> Counts {
    Piece::parse(json).unwrap().usage()
}

#[test]
fn usage_is_found_wherever_it_stands() {
    let chat = Counts {
        input_tokens: Some(10),
        cached_input_tokens: Some(4),
        output_tokens: Some(7),
        reasoning_tokens: Some(3),
        ..Counts::default()
    };
    let raw = r#"{"prompt_tokens":10,"completion_tokens":7,"total_tokens":17,"prompt_time":0.1,
        "prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":3}}"#;
    let other = r#"{"input_tokens":10,"output_tokens":7,"input_tokens_details":{"cached_tokens":4},
        "output_tokens_details":{"reasoning_tokens":3}}"#;
    let both = r#"{"prompt_tokens":10,"input_tokens":10,"completion_tokens":7,"output_tokens":7,
        "prompt_tokens_details":null,"input_tokens_details":{"cached_tokens":4},
        "completion_tokens_details":{"reasoning_tokens":3},"output_tokens_details":{}}"#;
    for json in [
        format!(r#"{{"choices":[],"usage":{raw}}}"#),
        format!(r#"{{"choices":[],"usage":null,"x_groq":{{"id":"x","usage":{raw}}}}}"#),
        format!(r#"{{"usage":{raw},"x_groq":{{"usage":{raw}}}}}"#),
        format!(r#"{{"object":"response","usage":{other}}}"#),
        format!(r#"{{"usage":{both}}}"#),
        format!(r#"{{"type":"response.completed","response":{{"id":"r","usage":{other}}}}}"#),
    ] {
        assert_eq!(usage(&json), chat, "{json}");
    }
}

#[test]
fn a_count_that_cannot_be_meant_is_none_and_the_others_stay() {
    let cached = |value: &str| {
        let json = format!(
            r#"{{"usage":{{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{{"cached_tokens":{value}}}}}}}"#
        );
        let counts = usage(&json);
        assert_eq!((counts.input_tokens, counts.output_tokens), (Some(9), Some(2)), "{value}");
        (counts.cached_input_tokens, counts.odd)
    };
    for (value, expected, odd) in [
        ("5", Some(5), false),
        (r#""5""#, Some(5), false),
        ("5.0", Some(5), false),
        (r#"" 5 ""#, Some(5), false),
        ("5e0", Some(5), false),
        ("0.5E1", Some(5), false),
        ("5e-1", None, true),
        ("null", None, false),
        ("-5", None, true),
        ("5.5", None, true),
        (r#""many""#, None, true),
        ("1e30", None, true),
        ("{}", None, true),
        ("100000001", None, true),
    ] {
        assert_eq!(cached(value), (expected, odd), "{value}");
    }
    for json in [
        r#"{"usage":{"prompt_tokens":-1}}"#,
        r#"{"usage":"none"}"#,
        r#"{"usage":7}"#,
        r#"{"usage":{}}"#,
        r#"{"usage":[]}"#,
        r#"{"usage":[5,7]}"#,
        r#"{"usage":{"promptTokens":5}}"#,
        r#"{"usage":{"total_tokens":5}}"#,
    ] {
        let counts = usage(json);
        assert!(!counts.tells() && counts.odd, "{json}");
    }
    for json in [r#"{"usage":null}"#, r#"{"x_groq":{"id":"x"}}"#] {
        assert_eq!(usage(json), Counts::default(), "{json}");
    }
}

#[test]
fn the_sum_tells_the_part_that_is_missing() {
    for (fields, input, output, odd) in [
        (r#""prompt_tokens":-1,"completion_tokens":2,"total_tokens":11"#, Some(9), Some(2), true),
        (r#""completion_tokens":2,"total_tokens":11"#, Some(9), Some(2), false),
        (r#""prompt_tokens":100,"completion_tokens":null,"total_tokens":5100"#, Some(100), Some(5000), false),
        (r#""prompt_tokens":100,"completion_tokens":-1,"total_tokens":5100"#, Some(100), Some(5000), true),
        (r#""input_tokens":100,"output_tokens":"many","total_tokens":5100"#, Some(100), Some(5000), true),
        (r#""prompt_tokens":100,"total_tokens":5100"#, Some(100), Some(5000), false),
        (r#""prompt_tokens":100,"total_tokens":100"#, Some(100), Some(0), false),
        // The total is less than a part of it, or both parts are unknown: it says nothing.
        (r#""prompt_tokens":100,"total_tokens":99"#, Some(100), None, false),
        (r#""total_tokens":5100"#, None, None, true),
    ] {
        let counts = usage(&format!(r#"{{"usage":{{{fields}}}}}"#));
        assert_eq!((counts.input_tokens, counts.output_tokens, counts.odd), (input, output, odd), "{fields}");
    }
}

#[test]
fn an_odd_field_does_not_hide_another() {
    for odd in [r#""duration":{}"#, r#""x_groq":"id""#, r#""type":5"#, r#""choices":{}"#, r#""error":null"#] {
        let json = format!(r#"{{{odd},"usage":{{"prompt_tokens":5,"completion_tokens":7}}}}"#);
        assert_eq!(usage(&json).output_tokens, Some(7), "{odd}");
    }
    let twice = r#"{"error":null,"error":null,"usage":null,"usage":{"prompt_tokens":5},"usage":null}"#;
    assert_eq!(usage(twice).input_tokens, Some(5));
    for details in ["5", "[]", r#""none""#] {
        let counts =
            usage(&format!(r#"{{"usage":{{"prompt_tokens":5,"prompt_tokens_details":{details}}}}}"#));
        assert_eq!((counts.input_tokens, counts.odd), (Some(5), true), "{details}");
    }
    let begun = r#"{"type":"response.created","response":{"usage":{"input_tokens":0,"output_tokens":0}}}"#;
    assert_eq!(usage(begun), Counts::default());
}

#[test]
fn audio_is_exact_to_the_millisecond() {
    for (seconds, ms) in [
        ("12.5", 12_500),
        (r#""8.5""#, 8_500),
        ("5.05", 5_050),
        ("0.1", 100),
        ("10", 10_000),
        ("3.0001", 3_001),
        ("0", 0),
        ("6e2", 600_000),
        ("1.5e-3", 2),
    ] {
        let read = usage(&format!(r#"{{"text":"x","duration":{seconds}}}"#));
        assert_eq!(read.audio_ms, Some(ms), "{seconds}");
    }
    assert_eq!(usage(r#"{"usage":{"type":"duration","seconds":7}}"#).audio_ms, Some(7_000));
    for seconds in ["-1", "1e300", "99999999"] {
        let read = usage(&format!(r#"{{"duration":{seconds}}}"#));
        assert_eq!((read.audio_ms, read.odd), (None, true), "{seconds}");
    }
}

#[test]
fn the_larger_reading_of_audio_counts() {
    for (json, ms) in [
        (r#"{"duration":600,"usage":{"type":"tokens","input_tokens":9,"output_tokens":2}}"#, 600_000),
        (r#"{"duration":600,"usage":{"type":"duration","seconds":10}}"#, 600_000),
        (r#"{"duration":10,"usage":{"type":"duration","seconds":600}}"#, 600_000),
        (r#"{"usage":{"seconds":10},"x_groq":{"usage":{"seconds":600}}}"#, 600_000),
        (r#"{"usage":{"seconds":600},"x_groq":{"usage":{"seconds":10}}}"#, 600_000),
    ] {
        assert_eq!(usage(json).audio_ms, Some(ms), "{json}");
    }
}

#[test]
fn all_that_a_model_wrote_is_output() {
    for (json, bytes) in [
        (r#"{"choices":[{"delta":{"content":"abc"}}]}"#, 3),
        (r#"{"choices":[{"delta":{"content":null,"reasoning":"ü"}}]}"#, 2),
        (r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]}"#, 3),
        (r#"{"choices":[{"message":{"content":"ab"}},{"message":{"content":"c"}}]}"#, 3),
        (r#"{"type":"response.output_text.delta","delta":"abcd"}"#, 4),
        (r#"{"type":"response.output_text.done","text":"abcd"}"#, 0),
        (r#"{"text":"abc"}"#, 3),
        // For a field of a different form, all of its text counts.
        (r#"{"choices":[{"delta":"x"},{"delta":{"content":"abc"}}]}"#, 4),
        (r#"{"choices":[{"delta":{"tool_calls":{},"content":"ab"}},{"delta":{"content":"c"}}]}"#, 3),
        (r#"{"choices":[{"delta":{"tool_calls":[7,{"function":"fg"},{"function":{"name":"h"}}]}}]}"#, 3),
    ] {
        assert_eq!(Piece::parse(json).unwrap().output_bytes(), bytes, "{json}");
    }
}
