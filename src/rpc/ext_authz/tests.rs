use super::*;

#[test]
fn audio_is_taken_for_as_long_as_its_bytes_allow() {
    assert_eq!(audio_ms(0, 4_000), 0);
    assert_eq!(audio_ms(4_001, 4_000), 1_001);
    assert_eq!(audio_ms(1, 0), 1_000);
}
