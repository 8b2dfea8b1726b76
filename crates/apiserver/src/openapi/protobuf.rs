//! OpenAPI version 2 in protobuf, as client-go asks for it: the messages of gnostic's `openapiv2/OpenAPIv2.proto`, whose numbers
//! stand here. What a document of ours never has (files, forms, headers, security) is left out.

use serde_json::{Map, Value};

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or(0));
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.number(field << 3 | 2);
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, value: &Value) {
        value.as_array().into_iter().flatten().for_each(|text| self.text(field, text));
    }

    fn flag(&mut self, field: u64, value: &Value) {
        if value == &Value::Bool(true) {
            self.number(field << 3);
            self.number(1);
        }
    }

    fn integer(&mut self, field: u64, value: &Value) {
        if let Some(number) = value.as_u64() {
            self.number(field << 3);
            self.number(number);
        }
    }

    fn double(&mut self, field: u64, value: &Value) {
        if let Some(number) = value.as_f64() {
            self.number(field << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// Any value, as YAML, of which JSON is some.
    fn any(&mut self, field: u64, value: &Value) {
        self.message(field, |any| any.bytes(2, value.to_string().as_bytes()));
    }

    /// What gnostic has no field for.
    fn extension(&mut self, field: u64, name: &str, value: &Value) {
        self.message(field, |named| {
            named.bytes(1, name.as_bytes());
            named.any(2, value);
        });
    }

    /// Names with something each.
    fn named(&mut self, field: u64, values: &Value, write: impl Fn(&mut Self, &Value)) {
        for (name, value) in values.as_object().into_iter().flatten() {
            self.message(field, |named| {
                named.bytes(1, name.as_bytes());
                named.message(2, |inner| write(inner, value));
            });
        }
    }
}

/// The bytes of a document of version 2.
pub(crate) fn document(value: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &value["swagger"]);
    out.message(2, |info| {
        info.text(1, &value["info"]["title"]);
        info.text(2, &value["info"]["version"]);
    });
    out.message(8, |paths| paths.named(2, &value["paths"], path));
    out.message(9, |definitions| definitions.named(1, &value["definitions"], schema));
    out.0
}

fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter).map(|(name, value)| (name.as_str(), value))
}

fn path(out: &mut Message, value: &Value) {
    for (name, value) in fields(value) {
        match name {
            "get" => out.message(2, |inner| operation(inner, value)),
            "put" => out.message(3, |inner| operation(inner, value)),
            "post" => out.message(4, |inner| operation(inner, value)),
            "delete" => out.message(5, |inner| operation(inner, value)),
            "patch" => out.message(8, |inner| operation(inner, value)),
            "parameters" => parameters(out, 9, value),
            _ => {}
        }
    }
}

fn operation(out: &mut Message, value: &Value) {
    for (name, value) in fields(value) {
        match name {
            "description" => out.text(3, value),
            "operationId" => out.text(5, value),
            "produces" => out.texts(6, value),
            "consumes" => out.texts(7, value),
            "parameters" => parameters(out, 8, value),
            "responses" => out.message(9, |codes| {
                codes.named(1, value, |code, response| {
                    code.message(1, |inner| {
                        inner.text(1, &response["description"]);
                        if let Some(body) = response.get("schema") {
                            inner.message(2, |item| item.message(1, |inner| schema(inner, body)));
                        }
                    });
                });
            }),
            extension if extension.starts_with("x-") => out.extension(13, extension, value),
            _ => {}
        }
    }
}

fn parameters(out: &mut Message, field: u64, list: &Value) {
    for value in list.as_array().into_iter().flatten() {
        let place = value["in"].as_str().unwrap_or_default();
        out.message(field, |item| {
            item.message(1, |parameter| {
                if place == "body" {
                    parameter.message(1, |body| {
                        body.text(1, &value["description"]);
                        body.text(2, &value["name"]);
                        body.text(3, &value["in"]);
                        body.flag(4, &value["required"]);
                        body.message(5, |inner| schema(inner, &value["schema"]));
                    });
                    return;
                }
                // Those of paths have no allowEmptyValue, so that what follows has other numbers.
                let (form, kind, unique) = if place == "path" { (4, 5, 19) } else { (3, 6, 20) };
                parameter.message(2, |other| {
                    other.message(form, |inner| {
                        inner.flag(1, &value["required"]);
                        inner.text(2, &value["in"]);
                        inner.text(3, &value["description"]);
                        inner.text(4, &value["name"]);
                        inner.text(kind, &value["type"]);
                        inner.flag(unique, &value["uniqueItems"]);
                    });
                });
            });
        });
    }
}

fn schema(out: &mut Message, value: &Value) {
    for (name, value) in fields(value) {
        match name {
            "$ref" => out.text(1, value),
            "format" => out.text(2, value),
            "title" => out.text(3, value),
            "description" => out.text(4, value),
            "default" => out.any(5, value),
            "multipleOf" => out.double(6, value),
            "maximum" => out.double(7, value),
            "exclusiveMaximum" => out.flag(8, value),
            "minimum" => out.double(9, value),
            "exclusiveMinimum" => out.flag(10, value),
            "maxLength" => out.integer(11, value),
            "minLength" => out.integer(12, value),
            "pattern" => out.text(13, value),
            "maxItems" => out.integer(14, value),
            "minItems" => out.integer(15, value),
            "uniqueItems" => out.flag(16, value),
            "maxProperties" => out.integer(17, value),
            "minProperties" => out.integer(18, value),
            "required" => out.texts(19, value),
            "enum" => value.as_array().into_iter().flatten().for_each(|value| out.any(20, value)),
            "additionalProperties" => out.message(21, |item| match value {
                Value::Bool(_) => item.flag(2, value),
                _ => item.message(1, |inner| schema(inner, value)),
            }),
            "type" => out.message(22, |item| item.text(1, value)),
            "items" => out.message(23, |item| item.message(1, |inner| schema(inner, value))),
            "allOf" => {
                value.as_array().into_iter().flatten().for_each(|part| out.message(24, |inner| schema(inner, part)));
            }
            "properties" => out.message(25, |properties| properties.named(1, value, schema)),
            extension if extension.starts_with("x-") => out.extension(31, extension, value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_has_the_bytes_that_gnostic_reads() {
        let bytes = document(&json!({"swagger": "2.0", "info": {"title": "a", "version": "b"}}));
        assert_eq!(bytes, b"\x0a\x032.0\x12\x06\x0a\x01a\x12\x01b\x42\x00\x4a\x00");
        let value = json!({"definitions": {"t": {"type": "object", "maxItems": 300, "maximum": 1, "x-a": true}}});
        let bytes = document(&value);
        let wanted: &[u8] = b"\x12\x00\x42\x00\x4a\x2e\x0a\x2c\x0a\x01t\x12\x27\x70\xac\x02\
            \x39\x00\x00\x00\x00\x00\x00\xf0\x3f\xb2\x01\x08\x0a\x06object\xfa\x01\x0d\x0a\x03x-a\x12\x06\x12\x04true";
        assert_eq!(bytes, wanted);
    }
}
