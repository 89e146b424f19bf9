//! `AuthorizeResponse.limits`, written from what the plan has: a message of each would copy its id first.

use prost::{
    bytes::BufMut,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, int32, int64, key_len, message},
};

use super::{
    super::{
        convert::{quantity, scope},
        proto::{self, LimitView},
    },
    duration, int,
};
use crate::domain::limit_status::{LimitStatus, LimitStatuses};

/// The numbers of `AuthorizeResponse.limits`, and of the fields of `LimitStatus`.
const LIMITS: u32 = 8;
const LIMIT_ID: u32 = 1;
const SCOPE: u32 = 2;
const QUANTITY: u32 = 3;
const LIMIT: u32 = 4;
const USED: u32 = 5;
const REMAINING: u32 = 6;
const RESET_DELAY: u32 = 7;

/// Writes those of `limits` that are in `view`.
pub(super) fn write(limits: &LimitStatuses, view: LimitView, buffer: &mut impl BufMut) {
    match view {
        LimitView::None => {}
        LimitView::Tightest => limits.tightest().for_each(|limit| write_one(&limit, buffer)),
        LimitView::Unspecified | LimitView::All => limits.iter().for_each(|limit| write_one(&limit, buffer)),
    }
}

/// One of them as a message, for lists of limits.
pub(in crate::rpc) fn limit_status(status: &LimitStatus<'_>) -> proto::LimitStatus {
    proto::LimitStatus {
        limit_id: status.limit.id.to_string(),
        scope: scope(status.limit.scope).into(),
        quantity: quantity(status.limit.quantity).into(),
        limit: int(status.bound),
        used: int(status.used),
        remaining: int(status.remaining()),
        reset_delay: Some(duration(status.reset_ms)),
    }
}

fn write_one(status: &LimitStatus<'_>, buffer: &mut impl BufMut) {
    let id = status.limit.id.as_bytes();
    let enums =
        [(SCOPE, scope(status.limit.scope).into()), (QUANTITY, quantity(status.limit.quantity).into())];
    let amounts = [(LIMIT, status.bound), (USED, status.used), (REMAINING, status.remaining())];
    let amounts = amounts.map(|(field, amount)| (field, int(amount)));
    let reset = duration(status.reset_ms);

    let text = match id.len() {
        0 => 0,
        length => key_len(LIMIT_ID) + encoded_len_varint(length as u64) + length,
    };
    let numbers = enums.iter().map(|(field, value)| present(*value, int32::encoded_len(*field, value)));
    let wide = amounts.iter().map(|(field, value)| present(*value, int64::encoded_len(*field, value)));
    let length = text + numbers.chain(wide).sum::<usize>() + message::encoded_len(RESET_DELAY, &reset);

    encode_key(LIMITS, WireType::LengthDelimited, buffer);
    encode_varint(length as u64, buffer);
    if !id.is_empty() {
        encode_key(LIMIT_ID, WireType::LengthDelimited, buffer);
        encode_varint(id.len() as u64, buffer);
        buffer.put_slice(id);
    }
    enums
        .iter()
        .filter(|(_, value)| *value != 0)
        .for_each(|(field, value)| int32::encode(*field, value, buffer));
    amounts
        .iter()
        .filter(|(_, value)| *value != 0)
        .for_each(|(field, value)| int64::encode(*field, value, buffer));
    message::encode(RESET_DELAY, &reset, buffer);
}

/// The length of a field, which is left out where its value is zero.
fn present<T: Default + PartialEq>(value: T, length: usize) -> usize {
    if value == T::default() { 0 } else { length }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::{
        domain::{limit::Quantity, limit_status::tests::statuses},
        rpc::proto,
    };

    #[test]
    fn limits_are_written_as_messages_are() {
        let limits = statuses(&[
            (Quantity::Requests, 60, 0, 0),
            (Quantity::Tokens, 1 << 52, 300, 59_999),
            (Quantity::NanoUsd, 0, u64::MAX, 2_592_000_001),
            (Quantity::RequestsInFlight, 5, 5, 1_000),
            (Quantity::Tokens, 9, 1, 7),
        ]);
        for view in [LimitView::Unspecified, LimitView::All, LimitView::Tightest, LimitView::None] {
            let expected = match view {
                LimitView::None => Vec::new(),
                LimitView::Tightest => limits.tightest().map(|limit| limit_status(&limit)).collect(),
                _ => limits.iter().map(|limit| limit_status(&limit)).collect(),
            };
            let mut written = Vec::new();
            write(&limits, view, &mut written);
            let message = proto::AuthorizeResponse { limits: expected, ..Default::default() };
            assert_eq!(written, message.encode_to_vec(), "{view:?}");
        }
    }
}
