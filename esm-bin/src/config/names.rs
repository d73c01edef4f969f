//! AWS's rules for names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::server::Identity;

/// A function's name as a mapping gives it: alone, with a qualifier, or within an ARN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionName {
    text: String,
    form: Form,
    name: String,
    qualifier: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// What stands before the name.
    Arn(String),
    /// `account:function:name`.
    WithAccount(String),
    Name,
}

/// A text is no name in any of AWS's forms.
#[derive(Debug, thiserror::Error)]
#[error(
    "must be a function's name (letters, digits, `-`, `_`, `.`; at most 64), alone, as name:alias, as \
     account:function:name, or as an ARN"
)]
pub struct NoFunctionName;

impl FunctionName {
    /// The name alone.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version or alias, if one is named.
    pub fn qualifier(&self) -> Option<&str> {
        self.qualifier.as_deref()
    }

    /// `FunctionArn`: as given, or made from the region and account that we are.
    ///
    /// AWS drops `$LATEST` from an ARN and after a plain name, and keeps it after an account.
    pub fn arn(&self, identity: &Identity) -> String {
        let unqualified = match &self.form {
            Form::Arn(prefix) => format!("{prefix}{}", self.name),
            Form::WithAccount(account) => identity.function_arn_of(account, &self.name),
            Form::Name => identity.function_arn(&self.name),
        };
        let is_dropped = |qualifier: &str| qualifier == LATEST && !matches!(self.form, Form::WithAccount(_));
        match &self.qualifier {
            Some(qualifier) if !is_dropped(qualifier) => format!("{unqualified}:{qualifier}"),
            _ => unqualified,
        }
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for FunctionName {
    type Err = NoFunctionName;

    fn from_str(text: &str) -> Result<Self, NoFunctionName> {
        let parts: Vec<&str> = text.split(':').collect();
        let (form, named) = match parts.as_slice() {
            ["arn", partition, "lambda", region, account, "function", named @ ..]
                if partition.starts_with("aws") && is_region(region) && is_account(account) =>
            {
                (Form::Arn(format!("arn:{partition}:lambda:{region}:{account}:function:")), named)
            }
            [account, "function", named @ ..] if is_account(account) => (Form::WithAccount((*account).into()), named),
            named => (Form::Name, named),
        };
        let (name, qualifier) = match named {
            [name] => (*name, None),
            [name, qualifier] if is_qualifier(qualifier) => (*name, Some((*qualifier).into())),
            _ => return Err(NoFunctionName),
        };
        if !is_function_name(name) {
            return Err(NoFunctionName);
        }
        Ok(Self { text: text.into(), form, name: name.into(), qualifier })
    }
}

impl TryFrom<String> for FunctionName {
    type Error = NoFunctionName;

    fn try_from(text: String) -> Result<Self, NoFunctionName> {
        text.parse()
    }
}

impl From<FunctionName> for String {
    fn from(name: FunctionName) -> Self {
        name.text
    }
}

const LATEST: &str = "$LATEST";

pub(super) fn is_function_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(is_allowed)
}

fn is_qualifier(qualifier: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_plain = !qualifier.is_empty() && qualifier.bytes().all(is_allowed);
    is_plain || [LATEST, "$LATEST.PUBLISHED"].contains(&qualifier)
}

/// A broker's name is a part of its ARN.
pub(super) fn is_broker_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    (1..=50).contains(&name.len()) && name.bytes().all(is_allowed)
}

/// A region becomes a part of a host's name.
pub(super) fn is_region(region: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !region.is_empty() && region.bytes().all(is_allowed)
}

/// The ARN of a broker of Amazon MQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BrokerArn {
    pub(super) text: String,
    pub(super) region: String,
    /// The broker's name; its id, where an ARN has no name.
    pub(super) name: String,
    /// `b-…`.
    pub(super) id: String,
}

impl BrokerArn {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let ["arn", partition, "mq", region, account, "broker", named @ ..] = parts.as_slice() else { return None };
        let (name, id) = match named {
            [name, id] => (*name, *id),
            [id] => (*id, *id),
            _ => return None,
        };
        let is_word =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_valid = partition.starts_with("aws")
            && is_region(region)
            && is_account(account)
            && is_broker_name(name)
            && id.strip_prefix("b-").is_some_and(is_word);
        is_valid.then(|| Self { text: text.into(), region: (*region).into(), name: name.into(), id: id.into() })
    }
}

pub(super) fn is_account(account: &str) -> bool {
    account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_named_in_any_of_awss_forms_and_answered_by_its_arn() {
        let ours = "arn:aws:lambda:us-east-1:000000000000:function:f";
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let parsed = text.parse::<FunctionName>().ok();
            let found = parsed.map(|parsed| (parsed.name().to_owned(), parsed.arn(&Identity::default())));
            assert_eq!(found, expected.map(|(name, arn)| (name.to_owned(), arn.to_owned())), "{text}");
        };
        check("f", Some(("f", ours)));
        check("f:alias", Some(("f", &format!("{ours}:alias"))));
        check("f:3", Some(("f", &format!("{ours}:3"))));
        check("f:$LATEST", Some(("f", ours)));
        check("123456789012:function:f", Some(("f", "arn:aws:lambda:us-east-1:123456789012:function:f")));
        check("123456789012:function:f:a", Some(("f", "arn:aws:lambda:us-east-1:123456789012:function:f:a")));
        let partial = "123456789012:function:f:$LATEST";
        check(partial, Some(("f", "arn:aws:lambda:us-east-1:123456789012:function:f:$LATEST")));
        let arn = "arn:aws-cn:lambda:cn-north-1:123456789012:function:f";
        check(arn, Some(("f", arn)));
        check(&format!("{arn}:3"), Some(("f", &format!("{arn}:3"))));
        check(&format!("{arn}:$LATEST"), Some(("f", arn)));
        check("", None);
        check("a b", None);
        check("f:", None);
        check("arn:aws:sqs:us-east-1:123456789012:f", None);
        check("arn:aws:lambda:us-east-1:12345:function:f", None);
        check("arn:aws:lambda::123456789012:function:f", None);
        check("arn:aws:lambda:x@127.0.0.1/:123456789012:function:f", None);
        check(&"f".repeat(65), None);
    }

    #[test]
    fn the_arn_of_a_broker_has_a_region_an_id_and_mostly_a_name() {
        let check = |text: &str, expected: Option<(&str, &str, &str)>| {
            let parsed = BrokerArn::parse(text);
            let found = parsed.as_ref().map(|arn| (&*arn.region, &*arn.name, &*arn.id));
            assert_eq!(found, expected, "{text}");
        };
        let prefix = "arn:aws:mq:us-east-1:123456789012:broker:";
        check(&format!("{prefix}pizza:b-1a-2"), Some(("us-east-1", "pizza", "b-1a-2")));
        check(&format!("{prefix}b-1a"), Some(("us-east-1", "b-1a", "b-1a")));
        check("arn:aws-cn:mq:cn-north-1:123456789012:broker:p:b-1", Some(("cn-north-1", "p", "b-1")));
        for other in ["pizza", "", "b-", "pizza:b-../x", "pizza:b-1:x", "piz za:b-1", ":b-1"] {
            check(&format!("{prefix}{other}"), None);
        }
        check("arn:aws:sqs:us-east-1:123456789012:broker:pizza:b-1", None);
        check("arn:aws:mq:us-east-1:12345:broker:pizza:b-1", None);
        check("arn:aws:mq::123456789012:broker:pizza:b-1", None);
        check("pizza", None);
    }
}
