//! Numbers and names that `docs/internals/contract.md` sets aside are free until what they are set aside for arrives.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use prost_reflect::{DescriptorPool, MessageDescriptor};

const PACKAGE: &str = "tollgate.v1";

/// A row of the table: a message or enum, a number in it, and the name that alone may take it.
type Row = (String, i32, String);

fn set_aside(page: &str) -> Vec<Row> {
    let table = page.split_once("<!-- set aside -->").unwrap().1.split_once("<!-- end -->").unwrap().0;
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [_, of, number, name, _] = cells[..] else { panic!("`{line}` has not three columns") };
        (of.to_owned(), number.parse().unwrap(), name.to_owned())
    })
    .collect()
}

/// Of each message and enum of the contract, by its short name: its fields or values by number.
fn numbers() -> BTreeMap<String, BTreeMap<i32, String>> {
    let pool = DescriptorPool::decode(tollgate::rpc::DESCRIPTORS).unwrap();
    let messages = pool.all_messages().filter(|message| message.package_name() == PACKAGE);
    let enums = pool.all_enums().filter(|known| known.package_name() == PACKAGE);
    let fields = messages.map(|message| {
        let fields =
            message.fields().map(|field| (i32::try_from(field.number()).unwrap(), field.name().to_owned()));
        (message.name().to_owned(), fields.collect())
    });
    let values = enums.map(|known| {
        let values = known.values().map(|value| (value.number(), value.name().to_owned()));
        (known.name().to_owned(), values.collect())
    });
    fields.chain(values).collect()
}

/// What is wrong with `rows`, seen from `numbers`.
fn faults(rows: &[Row], numbers: &BTreeMap<String, BTreeMap<i32, String>>) -> Vec<String> {
    let mut faults = Vec::new();
    for (of, number, name) in rows {
        let Some(taken) = numbers.get(of) else {
            faults.push(format!("there is no `{of}`"));
            continue;
        };
        match taken.get(number) {
            Some(field) if field == name => {
                faults.push(format!("`{of}.{name}` is there: delete its row in docs/internals/contract.md"));
            }
            Some(field) => {
                faults.push(format!("`{of}` {number} is set aside for `{name}`, and `{field}` has it"))
            }
            None => {}
        }
        if let Some((other, _)) = taken.iter().find(|(other, field)| *other != number && *field == name) {
            faults.push(format!("`{of}.{name}` is to have {number}, and has {other}"));
        }
    }
    faults
}

#[test]
fn what_is_set_aside_is_free() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/internals/contract.md");
    let rows = set_aside(&fs::read_to_string(path).unwrap());
    assert!(rows.len() > 25, "only {} rows found", rows.len());
    let faults = faults(&rows, &numbers());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_addition_is_recorded() {
    // `buf breaking` protects what is in the recorded contract.
    let recorded = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/contract.binpb")).unwrap();
    let recorded = DescriptorPool::decode(recorded.as_slice()).unwrap();
    let served = DescriptorPool::decode(tollgate::rpc::DESCRIPTORS).unwrap();
    let (recorded, served) = (surface(&recorded), surface(&served));
    let missing: Vec<_> = served.difference(&recorded).collect();
    assert!(missing.is_empty(), "run `make contract`, and commit .ci/contract.binpb: {missing:#?}");
    assert!(served.len() > 300, "only {} names found", served.len());
}

/// The names of all RPCs, fields and values of the contract.
fn surface(pool: &DescriptorPool) -> BTreeSet<String> {
    let services = pool.services().filter(|service| service.package_name() == PACKAGE);
    let rpcs = services
        .flat_map(|service| service.methods().map(|rpc| rpc.full_name().to_owned()).collect::<Vec<_>>());
    let messages = pool.all_messages().filter(|message| message.package_name() == PACKAGE);
    let fields = messages
        .flat_map(|message| message.fields().map(|field| field.full_name().to_owned()).collect::<Vec<_>>());
    let enums = pool.all_enums().filter(|known| known.package_name() == PACKAGE);
    let values =
        enums.flat_map(|known| known.values().map(|value| value.full_name().to_owned()).collect::<Vec<_>>());
    rpcs.chain(fields).chain(values).collect()
}

#[test]
fn each_field_of_a_request_says_how_it_may_be_used() {
    let pool = DescriptorPool::decode(tollgate::rpc::DESCRIPTORS).unwrap();
    let behaviour = pool.get_extension_by_name("google.api.field_behavior").unwrap();
    let mut todo: Vec<MessageDescriptor> = Vec::new();
    for service in pool.services().filter(|service| service.package_name() == PACKAGE) {
        todo.extend(service.methods().map(|rpc| rpc.input()));
    }
    let (mut seen, mut silent) = (BTreeSet::new(), Vec::new());
    while let Some(message) = todo.pop() {
        if message.package_name() != PACKAGE || !seen.insert(message.full_name().to_owned()) {
            continue;
        }
        for field in message.fields() {
            let says =
                field.options().get_extension(&behaviour).as_list().is_some_and(|list| !list.is_empty());
            // Of a choice, one is set.
            if !says
                && field.containing_oneof().is_none_or(|one| one.is_synthetic())
                && !message.is_map_entry()
            {
                silent.push(field.full_name().to_owned());
            }
            todo.extend(field.kind().as_message().cloned());
        }
    }
    assert!(silent.is_empty(), "without `google.api.field_behavior`: {silent:#?}");
    assert!(seen.len() > 25, "only {} messages found", seen.len());
}

#[test]
fn a_number_or_a_name_that_is_taken_is_found() {
    let numbers = numbers();
    let row = |number, name: &str| vec![("AuthorizeRequest".to_owned(), number, name.to_owned())];
    assert_eq!(faults(&row(1_000, "coming"), &numbers), Vec::<String>::new());
    for (number, name) in [(7, "coming"), (7, "service_tier"), (1_000, "service_tier")] {
        assert_eq!(faults(&row(number, name), &numbers).len(), 1, "{number} {name}");
    }
    assert_eq!(faults(&[("Unknown".to_owned(), 1, "coming".to_owned())], &numbers).len(), 1);
}
