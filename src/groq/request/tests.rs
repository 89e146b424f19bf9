use proptest::prelude::*;

use super::*;

fn chat(body: &str) -> Result<GroqRequest, ApiError> {
    read(Operation::Chat, JSON, body.as_bytes())
}

const JSON: &str = "application/json; charset=UTF-8";

#[test]
fn reads_what_a_decision_needs() {
    let request = chat(
        r#"{"messages":[{"role":"user","content":"hi"}],"model":"m","max_tokens":5,"max_completion_tokens":7,
            "n":2,"stream":true,"service_tier":"flex","user":"u","seed":null,"temperature":0.5}"#,
    )
    .unwrap();
    assert_eq!(request.model, "m");
    assert_eq!(request.max_output_tokens, Some(7));
    assert_eq!((request.choices, request.stream), (2, true));
    assert_eq!((request.service_tier, request.user.as_str()), (ServiceTier::Flex, "u"));
    assert!(request.input_bytes > 100);
}

#[test]
fn the_larger_of_the_two_limits_counts_and_null_is_not_given() {
    for (fields, expected) in [
        (r#""max_tokens":9,"max_completion_tokens":7"#, Some(9)),
        (r#""max_tokens":null,"max_completion_tokens":7"#, Some(7)),
        (r#""max_tokens":null"#, None),
        (r#""max_output_tokens":3"#, None),
    ] {
        let request = chat(&format!(r#"{{"model":"m",{fields}}}"#)).unwrap();
        assert_eq!(request.max_output_tokens, expected, "{fields}");
    }
    let body = br#"{"model":"m","input":"x","max_output_tokens":3,"max_tokens":9}"#;
    let request = read(Operation::Responses, "application/json", body).unwrap();
    assert_eq!(request.max_output_tokens, Some(3));
}

#[test]
fn speech_is_measured_in_characters() {
    let body = r#"{"model":"m","input":"grüße","voice":"x"}"#.as_bytes();
    assert_eq!(read(Operation::Speech, "application/json", body).unwrap().characters, 5);
    assert_eq!(read(Operation::Speech, "application/json", br#"{"model":"m"}"#).unwrap_err().param, "input");
}

#[test]
fn a_batch_declares_what_it_uses() {
    let body =
        br#"{"input_file_id":"f","endpoint":"/v1/chat/completions","completion_window":"24h","metadata":
        {"tollgate_model":"m","tollgate_input_tokens":"100","tollgate_max_output_tokens":"50"}}"#;
    let request = read(Operation::Batch, "application/json", body).unwrap();
    assert_eq!(
        (request.model.as_str(), request.input_tokens, request.max_output_tokens),
        ("m", 100, Some(50))
    );
    let error = read(Operation::Batch, "application/json", br#"{"input_file_id":"f"}"#).unwrap_err();
    assert!(error.message.contains("tollgate_input_tokens"), "{}", error.message);
}

#[test]
fn what_is_wrong_is_named() {
    let deep = format!(r#"{{"model":"m","messages":{}{}}}"#, "[".repeat(4000), "]".repeat(4000));
    let many = (0..300).map(|i| format!(r#""f{i}":1"#)).collect::<Vec<_>>().join(",");
    for (body, message) in [
        ("", "no body"),
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ("\"x\"", "must be a JSON object"),
        ("null", "must be a JSON object"),
        (r#"{"model":"m"} x"#, "not valid JSON"),
        (r#"{"model":"m"}{"model":"m"}"#, "not valid JSON"),
        ("\u{feff}{\"model\":\"m\"}", "not valid JSON"),
        (r#"{"model":"m","model":"m"}"#, "`model` twice"),
        (r#"{"model":"m","mod\u0065l":"n"}"#, "`model` twice"),
        (r#"{"model":"m","Model":"n"}"#, "written `model`"),
        (r#"{"model":"m","MAX_TOKENS":9}"#, "written `max_tokens`"),
        ("{\"model\":\"m\",\"max_toKens\":9}", "written `max_tokens`"),
        ("{\"model\":\"m\",\"u\u{17f}er\":\"x\"}", "written `user`"),
        (r#"{"model":"m","x":1,"X":2}"#, "`X` twice"),
        (r#"{"messages":[]}"#, "`model` is required"),
        (r#"{"model":5}"#, "`model` must be a string"),
        (r#"{"model":"m","max_tokens":-1}"#, "`max_tokens` must be a whole number"),
        (r#"{"model":"m","max_tokens":1.5}"#, "`max_tokens` must be a whole number"),
        (r#"{"model":"m","max_tokens":"9"}"#, "`max_tokens` must be a whole number"),
        (r#"{"model":"m","max_tokens":99999999999999999999}"#, "`max_tokens` must be a whole number"),
        (r#"{"model":"m","max_tokens":0}"#, "at least 1"),
        (r#"{"model":"m","n":0}"#, "`n` must be"),
        (r#"{"model":"m","n":1000}"#, "`n` must be"),
        (r#"{"model":"m","stream":"yes"}"#, "`stream` must be"),
        (r#"{"model":"m","service_tier":"gold"}"#, "`service_tier` must be one of"),
        (
            r#"{"model":"m","tools":[{"Type":"code_interpreter"}]}"#,
            "in `tools`: a field's name must be written `type`",
        ),
        (r#"{"model":"m","tools":[["code_interpreter"]]}"#, "`tools` cannot be read"),
        (r#"{"model":"m","tools":[{"type":"function","type":"mcp"}]}"#, "`tools` cannot be read"),
        (r#"{"model":"m","compound_custom":{"Tools":{}}}"#, "written `tools`"),
        (r#"{"model":"m","compound_custom":{"tools":{"Enabled_Tools":[]}}}"#, "written `enabled_tools`"),
        (
            r#"{"model":"m","messages":[{"Content":[]}]}"#,
            "in `messages`: a field's name must be written `content`",
        ),
        (r#"{"model":"m","messages":[{"content":[{"TYPE":"image_url"}]}]}"#, "written `type`"),
        (r#"{"model":"m","input":[{"Output":[]}]}"#, "in `input`: a field's name must be written `output`"),
        (
            r#"{"model":"m","documents":[{"Source":{}}]}"#,
            "in `documents`: a field's name must be written `source`",
        ),
        (r#"{"model":"m","max_tokens":1e999}"#, "`max_tokens` must be a whole number"),
        (r#"{"model":"m","seed":01e999}"#, "not valid JSON"),
        (&deep, "nested too deeply"),
        (&format!("{{{many}}}"), "more than 256 fields"),
    ] {
        let error = chat(body).unwrap_err();
        assert!(error.message.contains(message), "{message}: {} for {:.80}", error.message, body);
        assert_eq!(error.status, 400);
    }
    assert!(read(Operation::Chat, JSON, b"{\"model\":\"\xff\"}").is_err());
}

#[test]
fn only_json_is_taken_for_json() {
    for kind in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=X",
        "application/json; charset=utf-7",
        "application/jsonl",
        "text/json",
    ] {
        let error = read(Operation::Chat, kind, br#"{"model":"m"}"#).unwrap_err();
        assert!(error.message.contains("content-type"), "{kind}");
    }
    for kind in [
        "Application/JSON;charset=\"utf-8\"",
        "application/json;charset=UTF8",
        "application/json; Charset = 'Utf-8'",
        "application/json; charset=us-ascii; profile=x",
        "application/json;",
    ] {
        assert!(read(Operation::Chat, kind, br#"{"model":"m"}"#).is_ok(), "{kind}");
    }
}

#[test]
fn input_that_does_not_stand_in_the_body_is_noticed() {
    for (body, unseen) in [
        (r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]"#, false),
        (r#""tools":[{"type":"browser_search"}]"#, true),
        (r#""tools":null"#, false),
        (
            r#""messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]}]"#,
            false,
        ),
        (r#""messages":[{"content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]"#, true),
        (r#""messages":[{"content":"see https://x/y.png"}]"#, false),
        (r#""input":[{"content":[{"type":"input_image","image_url":"http://x"}]}]"#, true),
        (r#""input":[{"content":[{"type":"input_file","file_id":"f"}]}]"#, true),
    ] {
        let request = chat(&format!(r#"{{"model":"m",{body}}}"#)).unwrap();
        assert_eq!(request.has_unseen_input, unseen, "{body}");
    }
    assert!(chat(r#"{"model":"m","tools":"x"}"#).unwrap_err().message.contains("`tools` cannot be read"));
}

#[test]
fn tools_that_groq_runs_are_named() {
    for (body, tools) in [
        (
            r#""model":"m","tools":[{"type":"browser_search"},{"type":"browser_search"},{"type":"mcp","server_url":"https://x"}]"#,
            vec!["browser_search", "mcp"],
        ),
        (
            r#""model":"m","tools":[{"type":"function","function":{}},{"type":"custom"},{"type":"local_shell"}]"#,
            vec![],
        ),
        (
            r#""model":"groq/compound","compound_custom":{"tools":{"enabled_tools":["web_search"]}}"#,
            vec!["web_search"],
        ),
        (
            r#""model":"groq/compound-mini","compound_custom":{"tools":null}"#,
            vec!["code_interpreter", "visit_website", "web_search"],
        ),
        (
            r#""model":"groq/compound","compound_custom":null"#,
            vec!["code_interpreter", "visit_website", "web_search"],
        ),
        (r#""model":"groq/compound","compound_custom":{"tools":{"enabled_tools":[]}}"#, vec![]),
    ] {
        let request = chat(&format!("{{{body}}}")).unwrap();
        assert_eq!(request.tools, tools, "{body}");
        assert_eq!(request.has_unseen_input, !tools.is_empty(), "{body}");
    }
    for (body, param) in [
        (r#""tools":[{"type":7}]"#, "tools"),
        (r#""tools":[{"function":{"name":"f"}}]"#, "tools"),
        (r#""tools":[{}]"#, "tools"),
        (r#""tools":[{"type":null}]"#, "tools"),
        (r#""tools":[{"type":""}]"#, "tools"),
        (r#""compound_custom":{"tools":{"enabled_tools":["a\nb"]}}"#, "compound_custom"),
    ] {
        assert_eq!(chat(&format!(r#"{{"model":"m",{body}}}"#)).unwrap_err().param, param, "{body}");
    }
    let many = (0..17).map(|i| format!(r#"{{"type":"t{i}"}}"#)).collect::<Vec<_>>().join(",");
    assert!(chat(&format!(r#"{{"model":"m","tools":[{many}]}}"#)).is_err());
}

#[test]
fn a_number_of_any_size_is_a_number() {
    for field in [r#""seed":1e999"#, r#""seed":-1E+400"#, r#""messages":[{"content":"1e999","x":[2.5e999]}]"#]
    {
        let body = format!(r#"{{"model":"m","max_tokens":7,{field}}}"#);
        assert_eq!(chat(&body).unwrap().max_output_tokens, Some(7), "{field}");
    }
}

#[test]
fn a_field_of_another_operation_may_have_any_form() {
    assert!(chat(r#"{"model":"m","metadata":"x"}"#).is_ok());
    assert!(chat(r#"{"model":"m","metadata":{"tollgate_model":[],"tollgate_model":1}}"#).is_ok());
    assert!(read(Operation::Embeddings, JSON, br#"{"model":"m","input":"x","tools":"x"}"#).is_ok());
    let error = read(Operation::Batch, JSON, br#"{"metadata":"x"}"#).unwrap_err();
    assert!(error.message.contains("`metadata` cannot be read"), "{}", error.message);
}

#[test]
fn half_a_surrogate_pair_is_text() {
    for text in [r"\ud800", r"\uDFFF tail", r"a\ud83d", r"\ud83d\ude00"] {
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}],"x\ud800":1}}"#);
        assert!(chat(&body).is_ok(), "{text}");
    }
}

#[test]
fn a_batch_declares_what_its_lines_are() {
    let batch = |fields: &str, metadata: &str| {
        let body =
            format!(r#"{{"input_file_id":"f",{fields}"metadata":{{"tollgate_model":"m",{metadata}}}}}"#);
        read(Operation::Batch, JSON, body.as_bytes())
    };
    let request = batch(
        r#""endpoint":"/v1/audio/transcriptions","completion_window":"7d","#,
        r#""tollgate_batch_requests":"500","tollgate_audio_seconds":"9000""#,
    )
    .unwrap();
    let declared = request.batch.unwrap();
    assert_eq!(declared.line_operation, Operation::Transcription);
    assert_eq!((declared.request_count, declared.window_ms), (500, 7 * 86_400_000));
    assert_eq!((request.audio_ms, request.max_output_tokens), (9_000_000, None));
    // A batch of many lines may exceed the bounds of one request.
    let sums = r#""tollgate_input_tokens":"900000000","tollgate_max_output_tokens":"7","tollgate_batch_requests":"10""#;
    assert_eq!(batch("", sums).unwrap().input_tokens, 900_000_000);
    for (fields, metadata, param) in [
        (r#""endpoint":"/v1/fine_tunings","#, r#""tollgate_input_tokens":"1""#, "endpoint"),
        (r#""completion_window":"8d","#, r#""tollgate_input_tokens":"1""#, "completion_window"),
        (r#""completion_window":"23h","#, r#""tollgate_input_tokens":"1""#, "completion_window"),
        (r#""completion_window":"+24h","#, r#""tollgate_input_tokens":"1""#, "completion_window"),
        (r#""completion_window":"ä","#, r#""tollgate_input_tokens":"1""#, "completion_window"),
        (
            r#""endpoint":"/v1/embeddings","#,
            r#""tollgate_batch_operation":"chat_completion","tollgate_input_tokens":"1""#,
            "metadata",
        ),
        ("", r#""tollgate_batch_operation":"batch","tollgate_input_tokens":"1""#, "metadata"),
        ("", r#""tollgate_batch_requests":"0","tollgate_input_tokens":"1""#, "metadata"),
        ("", r#""tollgate_batch_requests":7,"tollgate_input_tokens":"1""#, "metadata"),
        (r#""endpoint":"/v1/audio/translations","#, r#""tollgate_input_tokens":"1""#, "metadata"),
    ] {
        assert_eq!(batch(fields, metadata).unwrap_err().param, param, "{fields} {metadata}");
    }
    let audio = r#""endpoint":"/v1/audio/transcriptions","#;
    for (fields, metadata, message) in [
        (
            audio,
            r#""tollgate_audio_seconds":"12.5""#,
            "`tollgate_audio_seconds` must be whole seconds in a string",
        ),
        (
            audio,
            r#""tollgate_audio_seconds":12"#,
            "`tollgate_audio_seconds` must be whole seconds in a string",
        ),
        (audio, r#""tollgate_input_tokens":"1""#, "a batch has to declare"),
        (
            "",
            r#""tollgate_input_tokens":"many""#,
            "`tollgate_input_tokens` must be a whole number in a string",
        ),
        ("", r#""tollgate_input_tokens":"1""#, "a batch has to declare"),
    ] {
        let error = batch(fields, metadata).unwrap_err();
        assert!(error.message.starts_with(message), "{metadata}: {}", error.message);
    }
}

#[test]
fn a_response_brings_everything_with_it() {
    for (field, param) in [
        (r#""previous_response_id":"r""#, "previous_response_id"),
        (r#""conversation":{"id":"c"}"#, "conversation"),
        (r#""prompt":{"id":"p"}"#, "prompt"),
        (r#""background":true"#, "background"),
    ] {
        let body = format!(r#"{{"model":"m","input":"x",{field}}}"#);
        assert_eq!(read(Operation::Responses, JSON, body.as_bytes()).unwrap_err().param, param);
    }
    let body = br#"{"model":"m","input":"x","previous_response_id":null,"background":false}"#;
    assert!(read(Operation::Responses, JSON, body).is_ok());
}

#[test]
fn hidden_reasoning_is_noticed() {
    for (field, hides) in [
        (r#""include_reasoning":false"#, true),
        (r#""include_reasoning":true"#, false),
        (r#""reasoning_format":"hidden""#, true),
        (r#""reasoning_format":"parsed""#, false),
    ] {
        assert_eq!(chat(&format!(r#"{{"model":"m",{field}}}"#)).unwrap().hides_reasoning, hides, "{field}");
    }
}

#[test]
fn whatever_a_field_holds_only_small_values_are_kept() {
    let long = "x".repeat(1 << 20);
    let read = fields::read(
        Some(Operation::Chat),
        format!(r#"{{"user":[{}0],"model":"{long}"}}"#, "[0],".repeat(1000)).as_bytes(),
    );
    let fields = read.unwrap();
    assert_eq!(fields.user, Scalar::Other);
    assert!(matches!(fields.model, Scalar::Text(text) if text.len() == 1024));
}

#[test]
fn nothing_of_the_prompt_is_in_an_error() {
    for body in [
        r#"{"messages":[{"content":"my secret"}],"model":7}"#,
        r#"{"messages":"my secret","model":"m","max_tokens":"my secret"}"#,
        r#"{"messages":"my secret" oops}"#,
    ] {
        let error = chat(body).unwrap_err();
        assert!(!error.body().contains("secret"), "{}", error.body());
    }
}

proptest! {
    /// A body that is cut off anywhere is refused.
    #[test]
    fn a_cut_body_is_refused(content in ".{0,40}", cut in any::<prop::sample::Index>()) {
        let body = serde_json::json!({"model": "m", "messages": [{"role": "user", "content": content}]});
        let body = body.to_string().into_bytes();
        prop_assert!(read(Operation::Chat, JSON, &body).is_ok());
        prop_assert!(read(Operation::Chat, JSON, &body[..cut.index(body.len())]).is_err());
    }

    /// No input causes a panic.
    #[test]
    fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for operation in Operation::ALL {
            let _ = read(operation, "multipart/form-data; boundary=XX", &body);
            let _ = read(operation, JSON, &body);
            let form = [b"--XX\r\n".as_slice(), &body, b"\r\n--XX--"].concat();
            let _ = read(operation, "multipart/form-data; boundary=XX", &form);
        }
    }
}
