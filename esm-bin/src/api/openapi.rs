//! The control API as an `OpenAPI` document, made from the same tables that requests are checked with.

use axum::{Json, Router, routing::get};
use serde_json::{Map, Value, json};

use super::{
    constraints::{Member, Shape, structure},
    shapes,
};

/// Serves the document. It tells nothing of this installation, so whoever reaches the port may read it.
pub fn router() -> Router {
    Router::new().route("/openapi.json", get(async || Json(document())))
}

/// An operation, as the document has it.
struct Operation {
    id: &'static str,
    summary: &'static str,
    method: &'static str,
    path: &'static str,
    /// In the path.
    named: Option<(&'static str, &'static Shape)>,
    query: &'static [Member],
    body: Option<&'static [Member]>,
    success: (u16, Option<&'static [Member]>),
    errors: &'static [u16],
}

const MAPPINGS: &str = "/2015-03-31/event-source-mappings";
const MAPPING: &str = "/2015-03-31/event-source-mappings/{UUID}";
const TAGS: &str = "/2017-03-31/tags/{Resource}";

static OPERATIONS: &[Operation] = &[
    Operation {
        id: "CreateEventSourceMapping",
        summary: "Makes a mapping, and reads its queue from now on.",
        method: "post",
        path: MAPPINGS,
        named: None,
        query: &[],
        body: Some(shapes::CREATE),
        success: (202, Some(shapes::CONFIGURATION)),
        errors: &[400, 404, 409],
    },
    Operation {
        id: "ListEventSourceMappings",
        summary: "The mappings, in pages, perhaps only those of a source or for a function.",
        method: "get",
        path: MAPPINGS,
        named: None,
        query: shapes::LIST,
        body: None,
        success: (200, Some(shapes::PAGE)),
        errors: &[400, 404],
    },
    Operation {
        id: "GetEventSourceMapping",
        summary: "A mapping and what it does now.",
        method: "get",
        path: MAPPING,
        named: Some(("UUID", &shapes::UUID)),
        query: &[],
        body: None,
        success: (200, Some(shapes::CONFIGURATION)),
        errors: &[400, 404],
    },
    Operation {
        id: "UpdateEventSourceMapping",
        summary: "Changes what is given; what is left out stays as it is.",
        method: "put",
        path: MAPPING,
        named: Some(("UUID", &shapes::UUID)),
        query: &[],
        body: Some(shapes::UPDATE),
        success: (202, Some(shapes::CONFIGURATION)),
        errors: &[400, 404, 409],
    },
    Operation {
        id: "DeleteEventSourceMapping",
        summary: "Ends a mapping in good order, and forgets it.",
        method: "delete",
        path: MAPPING,
        named: Some(("UUID", &shapes::UUID)),
        query: &[],
        body: None,
        success: (202, Some(shapes::CONFIGURATION)),
        errors: &[400, 404, 409],
    },
    Operation {
        id: "ListTags",
        summary: "The tags of a mapping, by its EventSourceMappingArn.",
        method: "get",
        path: TAGS,
        named: Some(("Resource", &shapes::RESOURCE)),
        query: &[],
        body: None,
        success: (200, Some(shapes::TAG)),
        errors: &[400, 404],
    },
    Operation {
        id: "TagResource",
        summary: "Adds tags to a mapping, or replaces those with the same keys.",
        method: "post",
        path: TAGS,
        named: Some(("Resource", &shapes::RESOURCE)),
        query: &[],
        body: Some(shapes::TAG),
        success: (204, None),
        errors: &[400, 404, 409],
    },
    Operation {
        id: "UntagResource",
        summary: "Takes tags from a mapping.",
        method: "delete",
        path: TAGS,
        named: Some(("Resource", &shapes::RESOURCE)),
        query: shapes::UNTAG,
        body: None,
        success: (204, None),
        errors: &[400, 404, 409],
    },
];

fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = operation.to_json();
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "esm",
            "summary": "Event source mappings and their tags, as AWS Lambda has them.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "paths": paths,
        "components": { "schemas": { "Error": {
            "type": "object",
            "properties": {
                "Type": { "enum": ["User", "Service"] },
                "message": { "type": "string" },
                "Message": { "type": "string" },
            },
            "additionalProperties": false,
        } } },
    })
}

impl Operation {
    fn to_json(&self) -> Value {
        let path = self.named.iter().map(|(name, shape)| parameter(name, "path", true, shape));
        let query = self.query.iter().map(|member| parameter(member.name, "query", member.is_required, member.shape));
        let mut responses: Map<String, Value> =
            self.errors.iter().map(|status| (status.to_string(), error())).collect();
        let (status, members) = self.success;
        let success = match members {
            Some(members) => json!({ "description": "Done, or being done.", "content": content(members) }),
            None => json!({ "description": "Done." }),
        };
        responses.insert(status.to_string(), success);
        responses.insert("403".into(), error());
        responses.insert("414".into(), json!({ "description": "The path or query is too long." }));
        if self.body.is_some() {
            responses.insert("413".into(), error());
        }
        let mut operation = json!({
            "operationId": self.id,
            "summary": self.summary,
            "parameters": path.chain(query).collect::<Vec<_>>(),
            "responses": responses,
        });
        if let Some(members) = self.body {
            operation["requestBody"] = json!({ "required": true, "content": content(members) });
        }
        operation
    }
}

fn parameter(name: &str, place: &str, is_required: bool, shape: &Shape) -> Value {
    json!({ "name": name, "in": place, "required": is_required, "schema": shape.schema() })
}

fn content(members: &[Member]) -> Value {
    json!({ "application/json": { "schema": structure(members) } })
}

fn error() -> Value {
    json!({
        "description": "Refused, with the exception's name in `x-amzn-errortype`.",
        "headers": { "x-amzn-errortype": { "required": true, "schema": { "type": "string" } } },
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
    })
}
