//! The configuration of one member, for the tests of all that is told it.

use super::{Config, Environment, load};

/// The configuration of `p1`.
pub(crate) fn config(password: Option<&str>) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("p1.yaml");
    let authentication = match password {
        Some(password) => format!(", authentication: {{username: admin, password: {password}}}"),
        None => String::new(),
    };
    let text = format!(
        "scope: demo\nname: p1\netcd3: {{hosts: \"127.0.0.1:1\"}}\nrestapi: {{listen: 127.0.0.1:8008{authentication}}}\n\
         postgresql:\n  data_dir: /nonexistent/data\n  bin_dir: /nonexistent/bin\n\
         \x20 authentication: {{superuser: {{password: s}}, replication: {{password: r}}}}\n\
         supervisor: {{socket: /nonexistent/supervisor.sock}}\ntags: {{zone: a}}\n\
         archive: {{store: \"file:///nonexistent/archive\"}}\n"
    );
    std::fs::write(&file, text).unwrap();
    load(&file, &Environment::new()).unwrap().config
}
