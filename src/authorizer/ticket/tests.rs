use super::*;

const RECORDED_1: &str = "01017400016d060101000102000003000000040002f3ae0c83d2d409020303000172";
const RECORDED_2: &str = "02017400016d060101000102000003000000040002f3ae0c83d2d40902030300017201040506011d62726f7773\
    65725f7365617263682e62726f777365722e73656172636801c096b1020001700101750700000000000000";

const RECORDED_3: &str = "030300000004000901017701040506011d62726f777365725f7365617263682e62726f777365722e73656172636801c0\
    96b1020001750700000000000000";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_ticket_of_each_format_is_read() {
    let terms = Terms {
        team: "t".into(),
        key: "".into(),
        model: "m".into(),
        operation: Operation::Batch,
        rates: Rates::tokens(1, None, 2),
        size: Size { input_tokens: 3, ..Size::default() },
        max_output_tokens: 4,
        cost: NanoUsd::ZERO,
        on_unsettled: OnUnsettled::Release,
        month: 202_611,
        day: 20_261_123,
        quantities: vec![Quantity::NanoUsd, Quantity::NanoUsd],
        warnings: Vec::new(),
        policy_revision: "r".into(),
        project: "".into(),
        service_tier: ServiceTier::default(),
        user: "".into(),
    };
    let bytes = encode(FIRST_VERSION, &terms).unwrap();
    assert_eq!(hex(&bytes), RECORDED_1, "as the release of then wrote it");
    let none = holds::Terms::default();
    let first = Ticket::read(&none, &bytes).unwrap();
    assert_eq!(first, Ticket { terms: terms.clone(), batch: None, tools: Vec::new(), labels: Vec::new() });
    // It was a line of chat.
    assert_eq!(first.work(), Work::Lines(Batch::default()));
    let batch = Some(Batch { line_operation: Operation::Speech, request_count: 5, window_ms: 6 });
    let tools = ToolRates::ALL[..1].to_vec();
    let behind = ("p", ServiceTier::Flex, "u");
    let bytes = encode(WHOLE_VERSION, &(&terms, &batch, &tools, behind, 7_u64.to_le_bytes())).unwrap();
    assert_eq!(hex(&bytes), RECORDED_2, "as this and the last release write it");
    let terms = Terms { project: "p".into(), service_tier: ServiceTier::Flex, user: "u".into(), ..terms };
    let ticket = Ticket { terms, batch, tools, labels: Vec::new() };
    assert_eq!(Ticket::read(&none, &bytes).unwrap(), ticket);
    assert!(is_of(&bytes, 7));
    let whole = bytes;
    let mut terms = ticket.terms.clone();
    terms.policy_revision = "r/9".into();
    terms.warnings = vec!["w".to_owned()];
    let ticket = Ticket { terms, ..ticket };
    let shared = TermsNote {
        team: Arc::clone(&ticket.team),
        key: Arc::clone(&ticket.key),
        model: Arc::clone(&ticket.model),
        operation: ticket.operation,
        rates: ticket.rates,
        on_unsettled: ticket.on_unsettled,
        month: ticket.month,
        day: ticket.day,
        quantities: ticket.quantities.clone(),
        document_revision: "r".into(),
        project: Arc::clone(&ticket.project),
        service_tier: ticket.service_tier,
    };
    let own = Own {
        size: ticket.size,
        max_output_tokens: ticket.max_output_tokens,
        cost: ticket.cost,
        registry: 9,
        warnings: Cow::Borrowed(&ticket.warnings),
        batch: ticket.batch,
        tools: Cow::Borrowed(&ticket.tools),
        user: &ticket.user,
    };
    let bytes = encode(VERSION, &(own, 7_u64.to_le_bytes())).unwrap();
    assert_eq!(hex(&bytes), RECORDED_3, "as this release writes it");
    assert_eq!(trace_of(&bytes), None);
    let noted = holds::Terms::new([], shared.to_bytes());
    // With the trace of a decision, and without an attempt.
    let own: Own<'_> = decode(VERSION, &bytes).unwrap();
    let trace = TraceContext { trace_id: [8; 16], span_id: [9; 8] };
    let traced = encode(VERSION, &(&own, trace.to_bytes(), 7_u64.to_le_bytes())).unwrap();
    assert_eq!((trace_of(&traced), is_of(&traced, 7)), (Some(trace), true));
    assert_eq!(Ticket::read(&noted, &traced).unwrap(), ticket);
    let alone = encode(VERSION, &(&own, trace.to_bytes())).unwrap();
    assert_eq!((trace_of(&alone), is_of(&alone, 7)), (Some(trace), false));
    assert_eq!(trace_of(&encode(VERSION, &own).unwrap()), None);
    assert_eq!(Ticket::read(&noted, &bytes).unwrap(), ticket);
    assert!(is_of(&bytes, 7));
    assert_eq!(Ticket::read(&none, &bytes), Err(Failure::Internal), "a part of it is missing");
    // With labels, each is that of before, and the labels behind it.
    let labels: Labels<'_> = &[("env", "prod")];
    let labelled = Ticket { labels: vec![("env".into(), "prod".into())], ..ticket.clone() };
    let own: Own<'_> = decode(VERSION, &bytes).unwrap();
    let bytes = ended((LABELED_VERSION, (own, labels)), (7, None)).unwrap();
    let before = RECORDED_3.strip_prefix("03").unwrap().strip_suffix("0700000000000000").unwrap();
    assert_eq!(hex(&bytes), format!("04{before}0103656e760470726f640700000000000000"));
    assert_eq!(Ticket::read(&noted, &bytes).unwrap(), labelled);
    let whole = (decode::<Whole>(WHOLE_VERSION, &whole).unwrap(), labels);
    let bytes = ended((WHOLE_LABELED_VERSION, whole), (7, None)).unwrap();
    let before = RECORDED_2.strip_prefix("02").unwrap().strip_suffix("0700000000000000").unwrap();
    assert_eq!(hex(&bytes), format!("05{before}0103656e760470726f640700000000000000"));
    let read = Ticket::read(&none, &bytes).unwrap();
    assert_eq!((read.labels, &*read.terms.project), (labelled.labels, "p"));
}
