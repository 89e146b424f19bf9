//! `docs/api.md` is made from the contract's descriptors, their comments, and examples that were really answered.

use std::{env, fs, path::Path};

use prost_reflect::DescriptorPool;

use crate::reference::{WRITE, with_part};

mod examples;
mod render;

const PAGE: &str = "docs/api.md";

#[test]
fn the_reference_of_the_api_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    let pool = DescriptorPool::decode(tollgate::rpc::DESCRIPTORS).unwrap();
    let current = with_part(&page, "api", &render::reference(&pool, &examples::read()));
    if current != page {
        assert!(env::var_os(WRITE).is_some(), "{PAGE} is not current; run this test with {WRITE}=1");
        fs::write(&path, current).unwrap();
    }
}
