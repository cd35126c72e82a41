//! A line of `pg_hba.conf`, checked as PostgreSQL reads it: a server does not start on a file with a line it cannot use.

use std::net::IpAddr;

/// The kinds of records.
const KINDS: &[&str] = &["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];
/// Directives of PostgreSQL 16 and newer that read other files.
const INCLUDES: &[&str] = &["include", "include_if_exists", "include_dir"];
const INCLUDES_SINCE: u32 = 160_000;
const METHODS: &[&str] = &[
    "trust",
    "reject",
    "scram-sha-256",
    "md5",
    "password",
    "gss",
    "sspi",
    "ident",
    "peer",
    "ldap",
    "radius",
    "cert",
    "pam",
    "bsd",
    "oauth",
];

/// One word of a line; in quotes it is not a keyword.
struct Word {
    text: String,
    quoted: bool,
}

/// Whether a server of this version accepts the text, which may be empty, a comment or several lines.
///
/// # Errors
/// Why not.
pub fn check(text: &str, server_version: u32) -> Result<(), String> {
    let joined = text.replace("\\\n", " ");
    joined.lines().try_for_each(|line| record(&words(line)?, server_version))
}

fn record(fields: &[Vec<Word>], server_version: u32) -> Result<(), String> {
    let mut fields = fields.iter();
    let Some(kind) = fields.next() else { return Ok(()) };
    let kind = single(kind, "the kind of connection")?;
    if INCLUDES.contains(&kind) && server_version >= INCLUDES_SINCE {
        return fields.next().map(|_| ()).ok_or_else(|| format!("{kind} needs the name of a file"));
    }
    if !KINDS.contains(&kind) {
        return Err(format!("{kind:?} is no kind of connection: expected {}", KINDS.join(", ")));
    }
    fields.next().ok_or("it ends before the databases")?;
    fields.next().ok_or("it ends before the users")?;
    if kind != "local" {
        let address = fields.next().ok_or("it ends before the address")?;
        let has_mask = address_without_mask(address)?;
        if has_mask {
            let mask =
                fields.next().ok_or("it ends before the netmask, which an address without /bits needs")?;
            let mask = single(mask, "the netmask")?;
            mask.parse::<IpAddr>().map_err(|_| format!("{mask:?} is no netmask"))?;
        }
    }
    let method = fields.next().ok_or("it ends before the authentication method")?;
    let method = single(method, "the authentication method")?;
    if !METHODS.contains(&method) {
        return Err(format!(
            "{method:?} is no authentication method: expected one of {}",
            METHODS.join(", ")
        ));
    }
    match (method, kind) {
        ("peer", "local") | ("cert", "hostssl") => {}
        ("peer", _) => return Err("peer authentication is for local connections only".to_owned()),
        ("cert", _) => return Err("cert authentication is for hostssl connections only".to_owned()),
        ("gss" | "sspi", "local") => return Err(format!("{method} is not for local connections")),
        _ => {}
    }
    for option in fields.flatten() {
        if !option.text.contains('=') {
            return Err(format!("the option {:?} is not name=value", option.text));
        }
    }
    Ok(())
}

/// Whether the address is numeric and has no `/bits`, so that its netmask follows.
fn address_without_mask(field: &[Word]) -> Result<bool, String> {
    let address = single(field, "the address")?;
    let quoted = field.first().is_some_and(|word| word.quoted);
    if !quoted && matches!(address, "all" | "samehost" | "samenet") {
        return Ok(false);
    }
    let Some((number, bits)) = address.split_once('/') else {
        return Ok(address.parse::<IpAddr>().is_ok());
    };
    let most = match number.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return Err(format!("{number:?} in {address:?} is no IP address")),
    };
    if bits.parse::<u8>().is_ok_and(|bits| bits <= most) {
        Ok(false)
    } else {
        Err(format!("{bits:?} in {address:?} is not a prefix length up to {most}"))
    }
}

fn single<'line>(field: &'line [Word], what: &str) -> Result<&'line str, String> {
    match field {
        [word] => Ok(&word.text),
        _ => Err(format!("expected one value for {what}, not a list")),
    }
}

/// The fields of a line; a comma joins words into one.
fn words(line: &str) -> Result<Vec<Vec<Word>>, String> {
    let mut fields: Vec<Vec<Word>> = Vec::new();
    let mut characters = line.chars().peekable();
    let mut goes_on = false;
    loop {
        while characters.next_if(|c| c.is_ascii_whitespace() || *c == ',').is_some() {}
        if characters.peek().is_none_or(|c| *c == '#') {
            return Ok(fields);
        }
        let mut word = Word { text: String::new(), quoted: false };
        let mut within_quotes = false;
        let mut comma = false;
        while let Some(c) = characters.peek().copied() {
            match c {
                '"' => {
                    within_quotes = !within_quotes;
                    word.quoted = true;
                }
                ',' if !within_quotes => {
                    comma = true;
                    break;
                }
                '#' if !within_quotes => break,
                c if c.is_ascii_whitespace() && !within_quotes => break,
                c => word.text.push(c),
            }
            characters.next();
        }
        if within_quotes {
            return Err("a quote is not closed".to_owned());
        }
        match fields.last_mut() {
            Some(last) if goes_on => last.push(word),
            Some(_) | None => fields.push(vec![word]),
        }
        goes_on = comma;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_postgres_reads_are_taken() {
        for line in [
            "",
            "   # a comment",
            "local all all trust",
            "local all postgres peer map=x",
            "host all all 127.0.0.1/32 scram-sha-256",
            "host app,web \"some one\", +staff 10.0.0.0 255.0.0.0 md5 # why",
            "host all all ::1/128 ident",
            "hostssl all all samenet cert clientcert=verify-full",
            "host replication all .example.com scram-sha-256",
            "hostnossl all all all reject\nhost all all 0.0.0.0/0 \\\n md5",
            "host all all 0.0.0.0/0 ldap ldapserver=x ldapport=389",
        ] {
            assert_eq!(check(line, 150_000), Ok(()), "{line:?}");
        }
        assert_eq!(check("include_dir conf.d", 170_000), Ok(()));
    }

    #[test]
    fn lines_that_would_keep_a_server_from_starting_are_refused() {
        for (line, words) in [
            ("y", "\"y\" is no kind of connection"),
            ("hots all all all md5", "no kind"),
            ("host", "before the databases"),
            ("host all all", "before the address"),
            ("host all all 10.0.0.0", "before the netmask"),
            ("host all all 10.0.0.0 24 md5", "no netmask"),
            ("host all all 10.0.0.0/33 md5", "up to 32"),
            ("host all all 10.0.0.300/8 md5", "no IP address"),
            ("host all all all", "before the authentication method"),
            ("host all all all mdfive", "no authentication method"),
            ("host all all all peer", "local connections only"),
            ("host all all all cert", "hostssl"),
            ("local all all md5 clientcert", "name=value"),
            ("local \"all all md5", "quote"),
            ("include_dir conf.d", "no kind"),
        ] {
            let why = check(line, 150_000).expect_err(line);
            assert!(why.contains(words), "{line:?}: {why}");
        }
    }
}
