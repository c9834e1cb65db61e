//! Takes secrets out of what leaves the machine, and of what those see who are not admins: by the names of keys, and of URLs
//! all but the host. Rather too much than too little: whoever needs more can ask. Called by `ctl` and `admin`.

use serde_json::Value;

/// What stands where a secret was.
const REDACTED: &str = "(redacted)";

/// Keys whose value is secret, in lower case, wherever they stand in the key.
const SECRET: [&str; 11] = [
    "password",
    "passphrase",
    "secret",
    "seed",
    "token",
    "authorization",
    "cookie",
    "community",
    "api_key",
    "apikey",
    "x-auth",
];

/// Keys that name files: the path is no secret.
const FILE: &str = "_file";

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    !key.ends_with(FILE) && SECRET.iter().any(|word| key.contains(word))
}

/// Of a document of lbd's.
pub fn json(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if is_secret(key) && (value.is_string() || value.is_number() || value.is_array()) {
                    *value = REDACTED.into();
                } else {
                    json(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(json),
        Value::String(text) => *text = without_credentials(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Of a configuration. Comments go, too: they may hold anything.
///
/// # Errors
/// When it is none.
pub fn toml(text: &str) -> Result<String, toml::de::Error> {
    let mut table: toml::Table = text.parse()?;
    table.iter_mut().for_each(|(key, value)| in_toml(key, value));
    Ok(table.to_string())
}

fn in_toml(key: &str, value: &mut toml::Value) {
    match value {
        toml::Value::Table(table) => table.iter_mut().for_each(|(key, value)| in_toml(key, value)),
        toml::Value::Array(_) | toml::Value::Integer(_) if is_secret(key) => *value = REDACTED.into(),
        toml::Value::Array(items) => items.iter_mut().for_each(|item| in_toml(key, item)),
        toml::Value::String(text) if is_secret(key) => *text = REDACTED.to_owned(),
        toml::Value::String(text) => *text = without_credentials(text),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) | toml::Value::Datetime(_) => {}
    }
}

/// A URL with user or query is cut down to scheme and host: tokens are in paths as well.
fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host == rest { text.to_owned() } else { format!("{scheme}://{host}/{REDACTED}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let mut value = json!({
            "ring_seed": "s", "key_file": "/etc/lb/key", "password_file": "/p", "name": "web", "weight": 3,
            "headers": [{"Set-Cookie": "s"}, {"X-Auth-Token": 7}], "community": ["s"], "url": "https://u:p@h.example/x?y", "at": "http://h.example"
        });
        json(&mut value);
        let r = REDACTED;
        assert_eq!(
            value,
            json!({
                "ring_seed": r, "key_file": "/etc/lb/key", "password_file": "/p", "name": "web", "weight": 3,
                "headers": [{"Set-Cookie": r}, {"X-Auth-Token": r}], "community": r, "url": "https://h.example/(redacted)", "at": "http://h.example"
            })
        );
    }
}
