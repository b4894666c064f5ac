//! Real answers against the contract: status, media type, headers and members are those declared.

use serde_json::Value;

use crate::harness::{Answer, Ask, Served, small};

struct Contract(Value);

impl Contract {
    fn read() -> Self {
        Self(serde_norway::from_str(carillon_api::OPENAPI).unwrap())
    }

    /// Follows `$ref`.
    fn whole<'a>(&'a self, node: &'a Value) -> &'a Value {
        match node.get("$ref").and_then(Value::as_str) {
            Some(link) => self.whole(self.0.pointer(link.trim_start_matches('#')).expect(link)),
            None => node,
        }
    }

    /// Checks that `answer` is declared for the operation.
    fn declares(&self, template: &str, method: &str, answer: &Answer) {
        let declared = &self.0["paths"][template][method]["responses"][answer.status.to_string()];
        assert!(declared.is_object(), "{method} {template} does not declare {answer:?}");
        let response = self.whole(declared);
        let media = response["content"].as_object().unwrap();
        assert!(media.contains_key(answer.header("content-type")), "{template}: {answer:?}");
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let value = answer.header(&name.to_lowercase());
            assert!(!value.is_empty(), "{name} is missing: {answer:?}");
            let value = value.parse::<u64>().map_or_else(|_| Value::from(value), Value::from);
            self.check(&header["schema"], &value, name);
        }
        let schema = &media[answer.header("content-type")]["schema"];
        let body = if answer.header("content-type").ends_with("json") {
            answer.json()
        } else {
            Value::from(answer.body.as_str())
        };
        self.check(schema, &body, template);
    }

    /// Checks `value` by the part of JSON Schema that the contract uses.
    fn check(&self, schema: &Value, value: &Value, at: &str) {
        assert!(self.fits(schema, value), "{at}: {value} is not what {} declares", self.whole(schema));
    }

    fn fits(&self, schema: &Value, value: &Value) -> bool {
        let schema = self.whole(schema);
        let rules = schema.as_object().unwrap();
        rules.iter().all(|(rule, wanted)| match rule.as_str() {
            "type" => match wanted.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_u64(),
                "boolean" => value.is_boolean(),
                other => panic!("the test does not know the type {other}"),
            },
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "minimum" => value.as_u64() >= wanted.as_u64(),
            "required" => {
                wanted.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "properties" => value.as_object().is_none_or(|object| {
                object
                    .iter()
                    .all(|(name, inner)| wanted.get(name).is_none_or(|schema| self.fits(schema, inner)))
            }),
            "additionalProperties" => {
                assert_eq!(wanted, false);
                let known = schema["properties"].as_object().unwrap();
                value.as_object().is_none_or(|object| object.keys().all(|name| known.contains_key(name)))
            }
            "items" => value.as_array().is_none_or(|list| list.iter().all(|inner| self.fits(wanted, inner))),
            "oneOf" => wanted.as_array().unwrap().iter().filter(|one| self.fits(one, value)).count() == 1,
            "description" => true,
            other => panic!("the test does not know the rule {other}"),
        })
    }
}

#[tokio::test]
async fn every_answer_is_one_that_the_contract_declares() {
    let served = Served::start(small()).await;
    let contract = Contract::read();
    let big = vec![b' '; 140 << 10];
    let good = br#"{"channel":"a","data":1,"id":"k"}"#;
    let cases: [(&str, Vec<Ask<'_>>); 3] = [
        (
            "/v1/publish",
            vec![
                Ask::post("/v1/publish", good),
                Ask::post("/v1/publish", good),
                Ask::post("/v1/publish", br#"{"user":"7","data":1}"#),
                Ask::post("/v1/publish", br#"{"channels":["a","down.1","live.1"],"data":1}"#),
                Ask::post("/v1/publish", b"channel=a&data=1")
                    .header("Content-Type", "application/x-www-form-urlencoded"),
                Ask::post("/v1/publish", br#"{"channel":"a","data":1,"tags":1}"#),
                Ask::post("/v1/publish", br#"{"channel":"secret","data":1}"#),
                Ask::post("/v1/publish", br#"{"channel":"stall.1","data":1}"#),
                Ask::post("/v1/publish", br#"{"channel":"small.1","data":"0123456789abcdef"}"#),
            ],
        ),
        (
            "/v1/publish/{channel}",
            vec![
                Ask::post("/v1/publish/a?event=e&id=raw", b"1"),
                Ask::post("/v1/publish/secret", b"1"),
                Ask::post("/v1/publish/down.1", b"1"),
                Ask::post("/v1/publish/a%20b", b"1"),
            ],
        ),
        (
            "/v1/batch",
            vec![
                Ask::post("/v1/batch", br#"[{"channel":"a","data":1},{"channel":"secret","data":1},7]"#),
                Ask::post("/v1/batch", br#"[{"user":"7","data":1},{"channel":"down.1","data":1}]"#),
                Ask::post("/v1/batch", br#"[{"channel":"down.1","data":1}]"#),
                Ask::post("/v1/batch", b"[]"),
            ],
        ),
    ];
    for (template, asks) in cases {
        let path = asks[0].path;
        let everywhere = [
            Ask::post(path, b""),
            Ask::post(path, b"{"),
            Ask::post(path, b"\xff"),
            Ask::post(path, b"1").header("Authorization", ""),
            Ask::post(path, b"1").header("Authorization", format!("Bearer {}", served.reader_key)),
            Ask::post(path, b"1").header("Content-Encoding", "br"),
            Ask::post(path, b"1").header("Content-Type", "multipart/form-data; boundary=x"),
            Ask::post(path, &big),
        ];
        for ask in asks.iter().chain(&everywhere) {
            let answer = served.send(ask).await;
            contract.declares(template, "post", &answer);
        }
        let slow = Ask::post(path, b"1").header("Authorization", format!("Bearer {}", served.slow_key));
        let mut statuses = Vec::new();
        for _ in 0..8 {
            let answer = served.send(&slow).await;
            contract.declares(template, "post", &answer);
            statuses.push(answer.status);
        }
        assert!(statuses.contains(&429), "{template}: {statuses:?}");
    }
    let answer = served.send(&Ask { method: "GET", ..Ask::post("/openapi.yaml", b"") }).await;
    contract.declares("/openapi.yaml", "get", &answer);
    assert_eq!(answer.body, carillon_api::OPENAPI);
}

#[tokio::test]
async fn every_answer_to_a_question_is_one_that_the_contract_declares() {
    let served = Served::start(small()).await;
    let contract = Contract::read();
    let reader = format!("Bearer {}", served.reader_key);
    for (template, path) in [
        ("/v1/channels", "/v1/channels"),
        ("/v1/channels", "/v1/channels?prefix=a%20b"),
        ("/v1/channels/{channel}", "/v1/channels/orders.7"),
        ("/v1/channels/{channel}", "/v1/channels/secret"),
        ("/v1/channels/{channel}", "/v1/channels/a%20b"),
        ("/v1/channels/{channel}/presence", "/v1/channels/orders.7/presence"),
        ("/v1/channels/{channel}/presence", "/v1/channels/orders.7/presence?count=1"),
        ("/v1/channels/{channel}/presence", "/v1/channels/orders.7/presence?count=2"),
    ] {
        for authorization in [reader.clone(), format!("Bearer {}", served.key), String::new()] {
            let ask = Ask { method: "GET", ..Ask::post(path, b"") }.header("Authorization", authorization);
            contract.declares(template, "get", &served.send(&ask).await);
        }
    }
}

#[test]
fn the_contract_names_every_error() {
    let contract = Contract::read();
    let names = contract.0["components"]["schemas"]["Problem"]["properties"]["error"]["enum"].clone();
    let ours: Vec<_> = carillon_model::ErrorCode::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(names, Value::from(ours));
}
