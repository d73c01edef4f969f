//! AWS's rules for names.

use std::str::FromStr;

/// A function's name as a mapping gives it: alone, with a qualifier, or within an ARN.
pub(super) struct FunctionName {
    pub(super) name: String,
}

/// A text is no name in any of AWS's forms.
#[derive(Debug, thiserror::Error)]
#[error(
    "must be a function's name (letters, digits, `-`, `_`, `.`; at most 64), alone, as name:alias, as \
     account:function:name, or as an ARN"
)]
pub(super) struct NoFunctionName;

impl FromStr for FunctionName {
    type Err = NoFunctionName;

    fn from_str(text: &str) -> Result<Self, NoFunctionName> {
        let parts: Vec<&str> = text.split(':').collect();
        let named = match parts.as_slice() {
            ["arn", partition, "lambda", _region, account, "function", named @ ..]
                if partition.starts_with("aws") && is_account(account) =>
            {
                named
            }
            [account, "function", named @ ..] if is_account(account) => named,
            named => named,
        };
        match named {
            [name] if is_function_name(name) => Ok(Self { name: (*name).into() }),
            [name, qualifier] if is_function_name(name) && is_qualifier(qualifier) => Ok(Self { name: (*name).into() }),
            _ => Err(NoFunctionName),
        }
    }
}

pub(super) fn is_function_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(is_allowed)
}

fn is_qualifier(qualifier: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_plain = !qualifier.is_empty() && qualifier.bytes().all(is_allowed);
    is_plain || ["$LATEST", "$LATEST.PUBLISHED"].contains(&qualifier)
}

/// A broker's name is a part of its ARN.
pub(super) fn is_broker_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    (1..=50).contains(&name.len()) && name.bytes().all(is_allowed)
}

pub(super) fn is_account(account: &str) -> bool {
    account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_named_in_any_of_awss_forms() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(text.parse::<FunctionName>().ok().map(|parsed| parsed.name).as_deref(), expected, "{text}");
        };
        check("f", Some("f"));
        check("f:alias", Some("f"));
        check("f:3", Some("f"));
        check("f:$LATEST", Some("f"));
        check("123456789012:function:f", Some("f"));
        check("123456789012:function:f:alias", Some("f"));
        check("arn:aws:lambda:us-east-1:123456789012:function:f", Some("f"));
        check("arn:aws-cn:lambda:cn-north-1:123456789012:function:f:3", Some("f"));
        check("", None);
        check("a b", None);
        check("f:", None);
        check("arn:aws:sqs:us-east-1:123456789012:f", None);
        check("arn:aws:lambda:us-east-1:12345:function:f", None);
        check(&"f".repeat(65), None);
    }
}
