//! The fields of `GetSpend`.

use proptest::sample::select;
use tollgate::rpc::proto;

use super::{
    check,
    values::{bad, names_just, text},
};

#[test]
fn get_spend_names_every_field_that_is_wrong() {
    let month = select(vec![
        (String::new(), true),
        ("2026-11".to_owned(), true),
        ("2026-13".to_owned(), false),
        ("2026-00".to_owned(), false),
        ("2026-1".to_owned(), false),
        ("202611".to_owned(), false),
        ("-026-11".to_owned(), false),
        ("+026-11".to_owned(), false),
        ("99999999999-11".to_owned(), false),
        ("2026-11-01".to_owned(), false),
        ("٢٠٢٦-١١".to_owned(), false),
        ("x".repeat(9_000), false),
        ("\0".to_owned(), false),
    ]);
    // Only what an earlier answer gave continues a list.
    let token = select(
        ["", "", "team", "0", "\0", "\n", "🦀", "%"]
            .map(|token| (token.to_owned(), token.is_empty()))
            .to_vec(),
    );
    let page_size = select(vec![
        (0, true),
        (1, true),
        (1_000, true),
        (1_001, true),
        (-1, false),
        (i32::MAX, true),
        (i32::MIN, false),
    ]);
    check("spend", &(text(0, 64, "team"), month, page_size, token), |service, (team, month, size, token)| {
        let bad =
            bad(&[("team", team.1), ("month", month.1), ("page_size", size.1), ("page_token", token.1)]);
        let request =
            proto::GetSpendRequest { team: team.0, month: month.0, page_size: size.0, page_token: token.0 };
        names_just(service.answer(service.client().get_spend(request))?, &bad)
    });
}
