//! `decoded.jsonl`, which says what the recorded frames mean, in the terms of this crate.

use std::{fs, path::Path};

use esm_activemq::openwire::{Command, Message, Primitive, Properties, properties};
use serde_json::{Map, Value, json};

use crate::debug_tree::{members, tree};

/// From this length on the recordings show only the beginning of a string.
const SHOWN: usize = 100;

/// What the frames of one direction mean, one after another.
pub(crate) fn expected(capture: &Path, direction: &str) -> Vec<Value> {
    fs::read_to_string(capture.join("decoded.jsonl"))
        .unwrap()
        .lines()
        .map(|line| members(serde_json::from_str(line).unwrap()))
        .filter(|line| line["dir"] == direction)
        .map(|mut line| structure(line.remove("command").unwrap()))
        .collect()
}

/// What a command means.
pub(crate) fn actual(command: &Command) -> Value {
    // The variant's name is that of what it holds.
    let mut shown = simplified(members(tree(command)).remove("0").unwrap());
    match command {
        Command::Message(message) => show_properties(message, &mut shown),
        Command::MessageDispatch(dispatch) => {
            if let Some(message) = &dispatch.message {
                show_properties(message, &mut shown["message"]);
            }
        }
        Command::WireFormatInfo(info) => {
            shown["properties"] = property_map(info.marshalled_properties.as_ref().unwrap());
            members_mut(&mut shown).remove("marshalled_properties");
        }
        _ => {}
    }
    shown
}

fn show_properties(message: &Message, shown: &mut Value) {
    if let Some(marshalled) = &message.marshalled_properties {
        shown["properties"] = property_map(marshalled);
    }
}

/// Leaves out what only our types have: variants around ids, and the reference that only blobs have.
fn simplified(value: Value) -> Value {
    match value {
        Value::Object(mut members) => match members.remove("0") {
            Some(held) => match members["_name"].as_str().unwrap() {
                kind @ ("Queue" | "Topic" | "TempQueue" | "TempTopic") => json!({ "_name": kind, "name": held }),
                _ => simplified(held),
            },
            None => {
                members.remove("blob");
                Value::Object(members.into_iter().map(|(name, value)| (name, simplified(value))).collect())
            }
        },
        Value::Array(values) => values.into_iter().map(simplified).collect(),
        other => other,
    }
}

/// A structure of the recording with our names.
fn structure(recorded: Value) -> Value {
    match recorded {
        Value::Object(members) if members.contains_key("_name") => named(members),
        Value::Object(members) if members.contains_key("class") => throwable(&members),
        Value::Array(values) => values.into_iter().map(structure).collect(),
        other => other,
    }
}

fn named(mut recorded: Map<String, Value>) -> Value {
    let name = recorded["_name"].as_str().unwrap().to_owned();
    recorded.remove("_type");
    recorded.remove("magic");
    let properties = recorded.remove("_properties");
    let ours: Map<String, Value> =
        recorded.into_iter().map(|(field, value)| (our_name(&name, &field), structure(value))).collect();
    let mut ours = Value::Object(ours);
    if let Some(properties) = properties {
        ours["properties"] = properties;
    }
    match name.strip_prefix("ActiveMQ") {
        Some("Message") => (ours["_name"], ours["kind"]) = (json!("Message"), json!("Plain")),
        Some(kind) => match kind.strip_suffix("Message") {
            Some(kind) => (ours["_name"], ours["kind"]) = (json!("Message"), json!(kind)),
            None => return json!({ "_name": kind, "name": ours["physical_name"] }),
        },
        None => {}
    }
    if !ours["password"].is_null() {
        // Our debug form keeps it to itself.
        ours["password"] = json!(["redacted"]);
    } else if name != "ConnectionInfo" {
        members_mut(&mut ours).remove("password");
    }
    ours
}

fn throwable(recorded: &Map<String, Value>) -> Value {
    let element = |element: &Value| {
        json!({
            "_name": "StackTraceElement", "class": element[0], "method": element[1], "file": element[2], "line": element[3]
        })
    };
    let stack: Vec<Value> =
        recorded.get("stack").map_or(vec![], |stack| stack.as_array().unwrap().iter().map(element).collect());
    json!({
        "_name": "Throwable",
        "class": recorded["class"],
        "message": recorded["message"],
        "stack_trace": stack,
        "cause": structure(recorded.get("cause").cloned().unwrap_or_default()),
    })
}

fn our_name(structure: &str, field: &str) -> String {
    match field {
        "brokerURL" => "broker_url".to_owned(),
        "groupID" => "group_id".to_owned(),
        "userID" => "user_id".to_owned(),
        "type" if structure == "TransactionInfo" => "transaction_type".to_owned(),
        "type" => "message_type".to_owned(),
        "recievedByDFBridge" => "received_by_df_bridge".to_owned(),
        "JMSXGroupFirstForConsumer" => "group_first_for_consumer".to_owned(),
        _ => field.chars().flat_map(|c| c.is_uppercase().then_some('_').into_iter().chain(c.to_lowercase())).collect(),
    }
}

/// Properties as the recordings show them.
fn property_map(marshalled: &[u8]) -> Value {
    map(properties(marshalled).unwrap())
}

fn map(entries: Properties<'_>) -> Value {
    let entries = entries.map(|entry| {
        let (name, value) = entry.unwrap();
        (name.into_owned(), primitive(value))
    });
    Value::Object(entries.collect())
}

fn primitive(value: Primitive<'_>) -> Value {
    let tagged = |tag: &str, value: Value| json!({ "t": tag, "v": value });
    match value {
        Primitive::Null => Value::Null,
        Primitive::Boolean(value) => json!(value),
        Primitive::Byte(value) => tagged("byte", json!(value)),
        Primitive::Char(value) => tagged("char", json!(String::from_utf16_lossy(&[value]))),
        Primitive::Short(value) => tagged("short", json!(value)),
        Primitive::Int(value) => tagged("int", json!(value)),
        Primitive::Long(value) => tagged("long", json!(value)),
        Primitive::Double(value) => tagged("double", json!(value)),
        Primitive::Float(value) => tagged("float", json!(value)),
        Primitive::String(value) if value.len() > SHOWN => {
            let shown = json!(format!("{}...(len {})", &value[..20], value.len()));
            // The tag is not kept, but it follows from the length.
            if value.len() > 8190 { tagged("BIG", shown) } else { shown }
        }
        Primitive::String(value) => json!(value),
        Primitive::Bytes(value) => panic!("JMS has no such property as {value:?}"),
        Primitive::Map(entries) => map(entries),
        Primitive::List(values) => values.map(|value| primitive(value.unwrap())).collect(),
    }
}

fn members_mut(value: &mut Value) -> &mut Map<String, Value> {
    value.as_object_mut().unwrap()
}
