//! Names in double quotes, as accepted by SQL, `pg_hba.conf` and `synchronous_standby_names`.

/// The name as it is, whatever it contains: a user named `all` is a user.
pub(crate) fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
