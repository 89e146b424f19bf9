use proptest::prelude::*;

use super::*;
use crate::{
    domain::{
        limit::{LimitScope, Period},
        request::ServiceTier,
    },
    reports::BudgetOwner,
    rpc::page::spend::{Part, SpendPlace},
};

const ISSUED: Timestamp = Timestamp(1_795_946_400_000);

fn context(organization: &str, ms: u64) -> ListContext {
    ListContext { organization: organization.into(), now: ISSUED.plus(ms) }
}

fn keys(team: &str) -> proto::ListKeysRequest {
    proto::ListKeysRequest { team: team.to_owned(), ..Default::default() }
}

fn key() -> KeyCursor {
    KeyCursor { name: "bot-prod-web".into(), team: "bot".into(), declared: true }
}

/// Reads `token` as one of `request`, after that many milliseconds.
fn read<R: ListRequest>(request: &R, ms: u64, token: &str) -> Result<R::Cursor, PageTokenError> {
    PageTokens::of(request, &context("acme", ms)).read(token)
}

/// A token as it was recorded when its version was new: adjacent releases read each other's.
fn is_as_recorded<R: ListRequest>(request: &R, cursor: &R::Cursor, recorded: &str)
where
    R::Cursor: PartialEq + std::fmt::Debug,
{
    let written = PageTokens::of(request, &context("acme", 0)).next(Some(cursor));
    assert_eq!(written, recorded, "{}", R::NAME);
    assert_eq!(read(request, 0, recorded).as_ref(), Ok(cursor), "{}", R::NAME);
}

#[test]
fn tokens_of_version_1_are_as_recorded() {
    let spend = proto::GetSpendRequest { month: "2026-11".to_owned(), ..Default::default() };
    let place = SpendPlace { team: "bot".to_owned(), line: Some((Part::Key, "bot-prod-web".to_owned())) };
    let recorded = "AQAAAaImv0kAGbO9_bbj6bXzrgwDYm90AQEMYm90LXByb2Qtd2ViSAPP2Q";
    is_as_recorded(&spend, &SpendCursor { month: 202_611, place }, recorded);
    is_as_recorded(&keys("bot"), &key(), "AQAAAaImv0kA79TeqtUsjRcMYm90LXByb2Qtd2ViA2JvdAFEXOar");
    let pauses = proto::ListPausesRequest { team: "bot".to_owned(), ..Default::default() };
    let recorded = "AQAAAaImv0kA5fjc6vg7ujgJbW9kZWwvbS8q1VdiUg";
    is_as_recorded(&pauses, &Target::Model("m/*".parse().unwrap()), recorded);
    let cooldown =
        CooldownKey { project: "main".into(), model: "a/b".into(), service_tier: ServiceTier::Flex };
    let recorded = "AQAAAaImv0kARB2uGwRzugsWdXBzdHJlYW0vbWFpbi9mbGV4L2EvYoUZY_k";
    is_as_recorded(&proto::ListCooldownsRequest::default(), &cooldown, recorded);
    let events = proto::ListAuditEventsRequest { action: "key.create".to_owned(), ..Default::default() };
    let recorded = "AQAAAaImv0kAY9E9obVtJF0cMDFhMjI2YmY0OTAwMDAwMDAwMDcwMDAwMDAwOWuCMtA";
    is_as_recorded(&events, &AuditId::new(ISSUED, 7, 9), recorded);
    let alerts = proto::ListAlertsRequest { teams: vec!["bot".to_owned()], ..Default::default() };
    let recorded = "AQAAAaImv0kAFzIpoV3i8qgcMDFhMjA3ZDkyMTAwMGIwYzBkMGUwZjEwMDAwMBEUkUU";
    is_as_recorded(&alerts, &"01a207d921000b0c0d0e0f100000".parse().unwrap(), recorded);
    let limits = proto::ListLimitsRequest { team: "bot".to_owned(), ..Default::default() };
    let place =
        LimitPlace { team: "bot".into(), scope: LimitScope::Key, id: "teams.bot.max_in_flight".into() };
    is_as_recorded(
        &limits,
        &place,
        "AQAAAaImv0kANKXJnS8NlZ4DYm90A2tleRd0ZWFtcy5ib3QubWF4X2luX2ZsaWdodIMXxCw",
    );
    let budgets = proto::ListBudgetsRequest { user: "ann".to_owned(), ..Default::default() };
    let place = BudgetPlace {
        owner: BudgetOwner::Key,
        key: "web".into(),
        team: "bot".into(),
        is_declared: true,
        period: Period::Week,
    };
    is_as_recorded(&budgets, &place, "AQAAAaImv0kAPLNQfsttwSsCA3dlYgNib3QBBHdlZWtMNjLx");
    let recorded = "AQAAAaImv0kA7Cy_O6BNBewUZ2F0ZS0xOjQyNDI6OWYzYTAxYmPAYjYN";
    is_as_recorded(&proto::ListReplicasRequest::default(), &Arc::from("gate-1:4242:9f3a01bc"), recorded);
}

#[test]
fn a_token_is_good_for_a_day_and_for_its_request() {
    const DAY: u64 = 24 * 3600 * 1000;
    let token = PageTokens::of(&keys("bot"), &context("acme", DAY)).next(Some(&key()));
    for ms in [0, DAY, 2 * DAY] {
        assert_eq!(read(&keys("bot"), ms, &token), Ok(key()), "{ms}");
    }
    assert_eq!(read(&keys("bot"), 2 * DAY + 1, &token), Err(PageTokenError::Expired));
    assert_eq!(read(&keys("other"), 0, &token), Err(PageTokenError::OtherRequest));
    let of_states = proto::ListKeysRequest { states: vec![1], ..keys("bot") };
    assert_eq!(read(&of_states, 0, &token), Err(PageTokenError::OtherRequest));
    let elsewhere = PageTokens::of(&keys("bot"), &context("other", DAY));
    assert_eq!(elsewhere.read(&token), Err(PageTokenError::OtherRequest));
    // The same filters of another list.
    let spend = proto::GetSpendRequest { team: "bot".to_owned(), ..Default::default() };
    assert_eq!(read(&spend, 0, &token), Err(PageTokenError::OtherRequest));
    // Which page is asked for is not part of the list.
    let mut page = proto::ListKeysRequest { page_size: 7, page_token: token.clone(), ..keys("bot") };
    assert_eq!(page.take_page(), (7, token.clone()));
    assert_eq!(read(&page, 0, &token), Ok(key()));
    assert_eq!(PageTokens::<KeyCursor>::of(&page, &context("acme", 0)).next(None), "");
}

/// A token of these bytes, with a check sum that is right.
fn sealed(mut bytes: Vec<u8>) -> String {
    bytes.extend(sum(&bytes));
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn a_token_of_another_version_or_with_another_cursor_is_malformed() {
    let tokens = PageTokens::of(&keys("bot"), &context("acme", 0));
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(tokens.next(Some(&key()))).unwrap();
    bytes.truncate(bytes.len() - SUM_BYTES);
    assert_eq!(tokens.read(&sealed(bytes.clone())), Ok(key()));
    let [mut newer, mut longer, mut shorter] = [bytes.clone(), bytes.clone(), bytes.clone()];
    newer[0] = VERSION + 1;
    longer.push(0);
    shorter.pop();
    for bytes in [newer, longer, shorter, bytes[..1 + 8 + DIGEST_BYTES].to_vec(), vec![VERSION], vec![]] {
        assert_eq!(tokens.read(&sealed(bytes.clone())), Err(PageTokenError::Malformed), "{bytes:?}");
    }
}

fn is_refused<R: ListRequest>(request: &R, token: &str) -> Result<(), TestCaseError> {
    prop_assert_eq!(read(request, 0, token).err(), Some(PageTokenError::Malformed));
    Ok(())
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        for token in [text, BASE64_URL_SAFE_NO_PAD.encode(&bytes)] {
            is_refused(&keys("bot"), &token)?;
            is_refused(&proto::GetSpendRequest::default(), &token)?;
            is_refused(&proto::ListPausesRequest::default(), &token)?;
            is_refused(&proto::ListCooldownsRequest::default(), &token)?;
            is_refused(&proto::ListAuditEventsRequest::default(), &token)?;
            is_refused(&proto::ListReplicasRequest::default(), &token)?;
            is_refused(&proto::ListOrganizationsRequest::default(), &token)?;
            is_refused(&proto::ListAlertsRequest::default(), &token)?;
        }
    }

    /// Behind a sound frame.
    #[test]
    fn any_cursor_is_read_or_refused(cursor in prop::collection::vec(any::<u8>(), 0..40)) {
        fn of<R: ListRequest>(request: &R, cursor: &[u8]) -> Result<(), TestCaseError> {
            let tokens = PageTokens::of(request, &context("acme", 0));
            let frame = [&[VERSION][..], &ISSUED.0.to_be_bytes(), &tokens.request, cursor].concat();
            // What is read is a place, which is written in the one way that there is.
            if let Ok(place) = tokens.read(&sealed(frame)) {
                prop_assert!(tokens.read(&tokens.next(Some(&place))).is_ok());
            }
            Ok(())
        }
        of(&keys("bot"), &cursor)?;
        of(&proto::GetSpendRequest::default(), &cursor)?;
        of(&proto::ListPausesRequest::default(), &cursor)?;
        of(&proto::ListCooldownsRequest::default(), &cursor)?;
        of(&proto::ListAuditEventsRequest::default(), &cursor)?;
        of(&proto::ListReplicasRequest::default(), &cursor)?;
        of(&proto::ListOrganizationsRequest::default(), &cursor)?;
        of(&proto::ListAlertsRequest::default(), &cursor)?;
    }

    #[test]
    fn a_changed_token_is_refused(at in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_=+/ -]", cut: bool) {
        let token = PageTokens::of(&keys("bot"), &context("acme", 0)).next(Some(&key()));
        let at = at.index(token.len());
        let mut changed = token.clone();
        match cut {
            true => changed.truncate(at),
            false => changed.replace_range(at..=at, &letter),
        }
        match read(&keys("bot"), 0, &changed) {
            Ok(place) => prop_assert_eq!((&changed, place), (&token, key())),
            Err(error) => prop_assert_eq!(error, PageTokenError::Malformed),
        }
    }
}
