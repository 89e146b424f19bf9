//! The contract as a document.

use std::fmt::Write as _;

use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, ServiceDescriptor, Value,
};
use prost_types::method_options::IdempotencyLevel;
use tollgate::domain::rbac::{Need, need_of};

use super::examples::Example;

const PACKAGE: &str = "tollgate.v1";

/// Every service of the contract with its RPCs, then the messages and enums, by name.
pub(super) fn reference(pool: &DescriptorPool, examples: &[Example]) -> String {
    let mut text = String::new();
    let mut services: Vec<_> = pool.services().filter(|service| service.package_name() == PACKAGE).collect();
    // What every gateway calls comes first.
    services.sort_by_key(|service| service.name() != "PolicyService");
    for service in services {
        describe_service(&mut text, &service, examples);
    }
    text.push_str("## Messages\n\n");
    let mut messages: Vec<_> = pool.all_messages().filter(is_shown).collect();
    messages.sort_by(|left, right| left.name().cmp(right.name()));
    for message in messages {
        describe_message(&mut text, &message);
    }
    text.push_str("## Enums\n\n");
    let mut enums: Vec<_> = pool.all_enums().filter(|known| known.package_name() == PACKAGE).collect();
    enums.sort_by(|left, right| left.name().cmp(right.name()));
    for known in enums {
        describe_enum(&mut text, &known);
    }
    text
}

fn is_shown(message: &MessageDescriptor) -> bool {
    message.package_name() == PACKAGE && !message.is_map_entry()
}

fn describe_service(text: &mut String, service: &ServiceDescriptor, examples: &[Example]) {
    let comment = comment(&service.parent_file(), service.path());
    write!(text, "## {}\n\n{comment}\n\n", service.name()).unwrap();
    for method in service.methods() {
        describe_method(text, &method, examples);
    }
}

fn describe_method(text: &mut String, method: &MethodDescriptor, examples: &[Example]) {
    let (service, file) = (method.parent_service().clone(), method.parent_service().parent_file());
    write!(text, "### {}.{}\n\n", service.name(), method.name()).unwrap();
    write!(text, "{}\n\n", comment(&file, method.path())).unwrap();
    let full = format!("/{}/{}", service.full_name(), method.name());
    writeln!(
        text,
        "- {} → {}{}\n- Permission: {}\n- Repeating it: {}\n",
        linked(method.input().name()),
        if method.is_server_streaming() { "a stream of " } else { "" },
        linked(method.output().name()),
        permission(&full),
        repeating(method),
    )
    .unwrap();
    let example = examples.iter().find(|example| full.ends_with(&example.rpc));
    let example = example.unwrap_or_else(|| panic!("{full} has no example in examples.json"));
    let pretty = |value| serde_json::to_string_pretty(value).unwrap();
    write!(text, "```json\n{}\n```\n\nanswered by\n\n", pretty(&example.request)).unwrap();
    write!(text, "```json\n{}\n```\n\n", pretty(&example.answer)).unwrap();
}

fn permission(rpc: &str) -> String {
    match need_of(rpc) {
        Some(Need::Permission(permission)) => format!("`{}`", permission.name()),
        Some(Need::Identity) => "any known caller".to_owned(),
        Some(Need::Nothing) => "none".to_owned(),
        None => panic!("{rpc} is not in the table of needs"),
    }
}

fn repeating(method: &MethodDescriptor) -> &'static str {
    let options = method.method_descriptor_proto().options.as_ref();
    match options.map_or(IdempotencyLevel::IdempotencyUnknown, |options| options.idempotency_level()) {
        IdempotencyLevel::NoSideEffects => "safe; it changes nothing",
        IdempotencyLevel::Idempotent => "safe; the same request takes effect once",
        IdempotencyLevel::IdempotencyUnknown => "see above",
    }
}

fn describe_message(text: &mut String, message: &MessageDescriptor) {
    let file = message.parent_file();
    write!(text, "### {}\n\n{}\n\n", message.name(), comment(&file, message.path())).unwrap();
    if message.fields().len() == 0 {
        return;
    }
    text.push_str("| # | field | type | meaning |\n| --- | --- | --- | --- |\n");
    for field in message.fields() {
        let mut meaning = cell(&comment(&file, field.path()));
        if let Some(one) = field.containing_oneof().filter(|one| !one.is_synthetic()) {
            meaning = format!("One of `{}`. {meaning}", one.name());
        }
        let kind = kind(&field);
        let behaviour = behaviour(&field);
        writeln!(text, "| {} | `{}` | {kind}{behaviour} | {meaning} |", field.number(), field.name())
            .unwrap();
    }
    text.push('\n');
}

fn describe_enum(text: &mut String, known: &EnumDescriptor) {
    let file = known.parent_file();
    write!(text, "### {}\n\n{}\n\n", known.name(), comment(&file, known.path())).unwrap();
    text.push_str("| # | value | meaning |\n| --- | --- | --- |\n");
    for value in known.values() {
        let meaning = cell(&comment(&file, value.path()));
        writeln!(text, "| {} | `{}` | {meaning} |", value.number(), value.name()).unwrap();
    }
    text.push('\n');
}

/// The type of a field, in the words of a proto file.
fn kind(field: &FieldDescriptor) -> String {
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        return format!(
            "map of {} to {}",
            single(&entry.map_entry_key_field()),
            single(&entry.map_entry_value_field())
        );
    }
    let single = single(field);
    if field.is_list() { format!("repeated {single}") } else { single }
}

fn single(field: &FieldDescriptor) -> String {
    let (name, package) = match field.kind() {
        Kind::Message(message) => (message.full_name().to_owned(), message.package_name().to_owned()),
        Kind::Enum(known) => (known.full_name().to_owned(), known.package_name().to_owned()),
        scalar => return format!("{scalar:?}").to_lowercase(),
    };
    match name.strip_prefix(&format!("{PACKAGE}.")) {
        Some(short) if package == PACKAGE => linked(short),
        _ => format!("`{name}`"),
    }
}

fn linked(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}

/// What `google.api.field_behavior` says, as a suffix of the type.
fn behaviour(field: &FieldDescriptor) -> String {
    let extension = field.parent_pool().get_extension_by_name("google.api.field_behavior");
    let Some(extension) = extension else { return String::new() };
    let options = field.options();
    let Value::List(values) = &*options.get_extension(&extension) else { return String::new() };
    let Kind::Enum(names) = extension.kind() else { return String::new() };
    let names = values.iter().filter_map(|value| names.get_value(value.as_enum_number()?));
    let said: Vec<_> = names.map(|value| value.name().to_lowercase().replace('_', " ")).collect();
    if said.is_empty() { String::new() } else { format!(", {}", said.join(", ")) }
}

/// The comment before what is at `path` in `file`: paragraphs with an empty line in between.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let source = file.file_descriptor_proto().source_code_info.as_ref();
    let location = source.and_then(|source| source.location.iter().find(|location| location.path == path));
    let comment = location.and_then(|location| location.leading_comments.as_deref()).unwrap_or_default();
    assert!(!comment.is_empty(), "{} has no comment at {path:?}", file.name());
    let lines: Vec<&str> = comment.trim().lines().map(str::trim).collect();
    lines.split(|line| line.is_empty()).map(|lines| lines.join(" ")).collect::<Vec<_>>().join("\n\n")
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace("\n\n", " ").replace('|', "\\|")
}
