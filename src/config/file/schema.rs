//! The JSON Schema of configurations, from the same table that reads them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::config::ResilientConfig;
use crate::config::file::RawConfig;
use crate::config::file::keys::ROOT;
use crate::config::file::shape::{Key, Kind};

macro_rules! schema {
    ($Type:ty) => {
        impl JsonSchema for $Type {
            fn schema_name() -> Cow<'static, str> {
                "ResilientConfig".into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                Schema::try_from(ROOT.schema()).unwrap_or_default()
            }
        }
    };
}

schema!(ResilientConfig);
schema!(RawConfig);

impl Kind {
    fn schema(&self) -> Value {
        match self {
            Self::On => json!({ "enum": [true, "on"] }),
            Self::Off => json!({ "enum": [false, "off"] }),
            Self::Whole { min, max } => {
                json!({ "type": "integer", "minimum": min, "maximum": max })
            }
            Self::Number { min, max: f64::MAX } => json!({ "type": "number", "minimum": min }),
            Self::Number { min, max } => {
                json!({ "type": "number", "minimum": min, "maximum": max })
            }
            Self::Time { .. } => json!({
                "type": "string",
                "pattern": r"^\s*\d+(\.\d+)?\s*[A-Za-zµ]+(\s*\d+(\.\d+)?\s*[A-Za-zµ]+)*\s*$|^0$",
                "examples": ["300ms", "1m 30s"],
            }),
            Self::Word(words) => json!({ "enum": words }),
            Self::Status => json!({ "type": "integer", "minimum": 100, "maximum": 999 }),
            Self::Method => json!({ "type": "string", "pattern": "^[^a-z\\s]+$" }),
            Self::Header => json!({ "type": "string", "minLength": 1 }),
            Self::Text => json!({ "type": "string" }),
            Self::Url => json!({ "type": "string", "pattern": "^https?://[^@?#\\s]+$" }),
            Self::List(kind) => json!({ "type": "array", "items": kind.schema() }),
            Self::Table(keys) => table(keys),
            Self::Hosts(keys) | Self::Urls(keys) => {
                json!({ "type": "object", "additionalProperties": table(keys) })
            }
            Self::Headers(kind) => {
                json!({ "type": "object", "additionalProperties": kind.schema() })
            }
            Self::Any(kinds) => {
                json!({ "anyOf": kinds.iter().map(Self::schema).collect::<Vec<_>>() })
            }
        }
    }
}

fn table(keys: &[&[Key]]) -> Value {
    let keys = || keys.iter().copied().flatten();
    let properties: Map<_, _> = keys()
        .map(|key| {
            let mut schema = key.kind.schema();
            if let Value::Object(schema) = &mut schema {
                schema.insert("description".into(), key.about.into());
            }
            (key.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<_> = keys().filter(|it| it.required).map(|it| it.name).collect();
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if let (Value::Object(schema), false) = (&mut schema, required.is_empty()) {
        schema.insert("required".into(), json!(required));
    }
    schema
}
