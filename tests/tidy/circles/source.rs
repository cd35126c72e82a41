//! Reads from the text of a crate which module names what of which other: in `use`, and where a path begins with `crate`, `self`
//! or `super`. Knows no macros, and needs none.

use std::collections::BTreeMap;

use crate::Source;

/// A module by its names below the root of the crate.
pub(super) type Path = Vec<String>;

/// The modules of one crate.
pub(super) struct Crate {
    /// The file of its root.
    pub(super) root: String,
    modules: BTreeMap<Path, Module>,
}

/// One module names something of another.
pub(super) struct Use {
    pub(super) by: Path,
    /// The module in which it is defined.
    pub(super) what: Path,
    /// `path:line: words`.
    pub(super) place: String,
}

/// What one module says, of itself.
#[derive(Default)]
struct Module {
    file: String,
    named: Vec<Named>,
    /// What `use` brings in, by the name that it has here.
    brought: BTreeMap<String, Path>,
}

/// A path as it is written.
struct Named {
    path: Path,
    line: usize,
}

impl Crate {
    /// Everything that a module names of this crate, outside of itself and its parents.
    pub(super) fn uses(&self) -> Vec<Use> {
        let mut uses = Vec::new();
        for (by, module) in &self.modules {
            for named in &module.named {
                let Some(what) = self.resolve(by, &named.path, DEPTH_MAX) else { continue };
                let place = format!("{}:{}: {}", module.file, named.line, named.path.join("::"));
                uses.push(Use { by: by.clone(), what, place });
            }
        }
        uses
    }

    /// The module in which that is defined which `path` names in the module `by`; `None` for what is of another crate.
    fn resolve(&self, by: &Path, path: &[String], depth: usize) -> Option<Path> {
        let mut at = by.clone();
        let mut rest = path;
        match path.first().map(String::as_str) {
            Some("crate") => (at, rest) = (Path::new(), &path[1..]),
            Some("self") => rest = &path[1..],
            Some("super") => {}
            // `use child::Thing`.
            Some(first) if self.modules.contains_key(&below(by, first)) => {}
            Some(_) | None => return None,
        }
        while let Some("super") = rest.first().map(String::as_str) {
            at.pop();
            rest = &rest[1..];
        }
        while let Some(name) = rest.first() {
            let child = below(&at, name);
            if self.modules.contains_key(&child) {
                (at, rest) = (child, &rest[1..]);
                continue;
            }
            // What it only passes on is somebody else's.
            let brought = self.modules.get(&at).and_then(|module| module.brought.get(name));
            let passed_on = brought.filter(|_| depth > 0).and_then(|path| self.resolve(&at, path, depth - 1));
            return Some(passed_on.unwrap_or(at));
        }
        Some(at)
    }
}

/// Names that are passed on from one to the next; more would be a circle of names, which the compiler refuses.
const DEPTH_MAX: usize = 8;

fn below(parent: &Path, name: &str) -> Path {
    parent.iter().cloned().chain([name.to_owned()]).collect()
}

/// The crates of these files: a root is a file that no other declares.
pub(super) fn crates(sources: &[Source]) -> Vec<Crate> {
    let read: BTreeMap<&str, Vec<(Path, Module)>> =
        sources.iter().map(|source| (source.path.as_str(), modules(source))).collect();
    let declared: BTreeMap<String, (&str, Path)> = sources
        .iter()
        .flat_map(|source| {
            let declares = declarations(&source.text).into_iter();
            declares.map(|declared| (declared.file(&source.path), (source.path.as_str(), declared.path)))
        })
        .collect();
    let mut crates: BTreeMap<&str, Crate> = BTreeMap::new();
    for (file, modules) in read {
        let (mut root, mut prefix) = (file, Path::new());
        while let Some((by, path)) = declared.get(root) {
            prefix = path.iter().cloned().chain(prefix).collect();
            root = by;
        }
        let of =
            crates.entry(root).or_insert_with(|| Crate { root: root.to_owned(), modules: BTreeMap::new() });
        for (path, module) in modules {
            of.modules.insert(prefix.iter().cloned().chain(path).collect(), module);
        }
    }
    crates.into_values().collect()
}

/// `mod name;`
struct Declared {
    /// Below the file in which it stands.
    path: Path,
    /// What `#[path]` says.
    elsewhere: Option<String>,
}

impl Declared {
    fn file(&self, by: &str) -> String {
        let (directory, name) = by.rsplit_once('/').unwrap_or(("", by));
        if let Some(elsewhere) = &self.elsewhere {
            return format!("{directory}/{elsewhere}");
        }
        match name {
            "lib.rs" | "main.rs" => format!("{directory}/{}.rs", self.path.join("/")),
            name => format!("{directory}/{}/{}.rs", name.trim_end_matches(".rs"), self.path.join("/")),
        }
    }
}

fn declarations(text: &str) -> Vec<Declared> {
    let words = words(text);
    let mut found = Vec::new();
    walk(&words, |inside, at| {
        if let [Word { text: "mod", .. }, name, Word { text: ";", .. }, ..] = &words[at..] {
            found.push(Declared { path: below(inside, name.text), elsewhere: None });
        }
    });
    for declared in &mut found {
        let Some((before, _)) = text.split_once(&format!("\nmod {};", declared.path.join("::"))) else {
            continue;
        };
        let attribute = before.rsplit('\n').next().and_then(|line| line.strip_prefix("#[path = \""));
        declared.elsewhere = attribute.and_then(|line| Some(line.split_once('"')?.0.to_owned()));
    }
    found
}

/// The module of a file, and those that stand in it.
fn modules(source: &Source) -> Vec<(Path, Module)> {
    let words = words(&source.text);
    let mut modules = BTreeMap::from([(Path::new(), Module::default())]);
    walk(&words, |inside, at| {
        let module = modules.entry(inside.clone()).or_default();
        let before = at.checked_sub(1).map_or("", |before| words[before].text);
        match words[at].text {
            "use" => {
                tree(&words, at + 1, &Path::new(), module);
            }
            // The middle of a path, and `pub(in path)`, which uses nothing.
            "crate" | "self" | "super" if before == "::" || before == "in" => {}
            "crate" | "self" | "super" => {
                let names = (at..).step_by(2).take_while(|name| *name == at || is_below(&words, *name));
                let path = names.map(|name| words[name].text.to_owned()).collect();
                module.named.push(Named { path, line: words[at].line });
            }
            _ => {}
        }
    });
    let file = &source.path;
    modules.into_iter().map(|(path, module)| (path, Module { file: file.clone(), ..module })).collect()
}

/// Whether the word there is a name behind `::`.
fn is_below(words: &[Word<'_>], at: usize) -> bool {
    let is_name = |word: &Word<'_>| word.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    words[at - 1].text == "::" && words.get(at).is_some_and(is_name)
}

/// What stands in `use` from `at` on, up to a comma, a closing brace or the end; where that is.
fn tree(words: &[Word<'_>], mut at: usize, parent: &Path, module: &mut Module) -> usize {
    let mut path = parent.clone();
    while let Some(word) = words.get(at) {
        at += 1;
        match word.text {
            "::" => continue,
            "{" => {
                while words.get(at).is_some_and(|next| next.text != "}") {
                    at = tree(words, at, &path, module);
                    at += usize::from(words.get(at).is_some_and(|next| next.text == ","));
                }
                return at + 1;
            }
            "*" => {
                module.named.push(Named { path, line: word.line });
                return at;
            }
            "self" if !path.is_empty() => {}
            name => path.push(name.to_owned()),
        }
        if words.get(at).is_some_and(|next| next.text == "::") {
            continue;
        }
        let is_renamed = words.get(at).is_some_and(|next| next.text == "as");
        let here = if is_renamed {
            words.get(at + 1).map(|word| word.text)
        } else {
            path.last().map(String::as_str)
        };
        module.brought.insert(here.unwrap_or_default().to_owned(), path.clone());
        module.named.push(Named { path, line: word.line });
        return at + if is_renamed { 2 } else { 0 };
    }
    at
}

/// A name, `::`, or another character that is neither space, comment nor text.
struct Word<'text> {
    text: &'text str,
    line: usize,
}

/// Goes through all words, each with the modules that stand in the file around it.
fn walk(words: &[Word<'_>], mut see: impl FnMut(&Path, usize)) {
    let (mut inside, mut opened, mut depth) = (Path::new(), Vec::new(), 0);
    for (at, word) in words.iter().enumerate() {
        see(&inside, at);
        match word.text {
            "{" => {
                if at >= 2 && words[at - 2].text == "mod" {
                    inside.push(words[at - 1].text.to_owned());
                    opened.push(depth);
                }
                depth += 1;
            }
            "}" => {
                depth -= 1;
                if opened.last() == Some(&depth) {
                    opened.pop();
                    inside.pop();
                }
            }
            _ => {}
        }
    }
}

fn words(text: &str) -> Vec<Word<'_>> {
    let (mut words, mut rest, mut line) = (Vec::new(), text, 1);
    while let Some(first) = rest.chars().next() {
        let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (length, is_word) = match first {
            _ if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            _ if rest.starts_with("/*") => (rest.find("*/").map_or(rest.len(), |end| end + 2), false),
            '"' => (quoted(rest), false),
            'r' | 'b' | 'c' if raw(rest).is_some() => (raw(rest).unwrap_or(rest.len()), false),
            '\'' => (character(rest), false),
            ':' if rest.starts_with("::") => (2, true),
            _ if name > 0 => (name, true),
            other => (other.len_utf8(), !other.is_whitespace()),
        };
        let (word, after) = rest.split_at(length);
        if is_word {
            words.push(Word { text: word, line });
        }
        line += word.matches('\n').count();
        rest = after;
    }
    words
}

/// The length of a text in quotes.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The length of `r"…"`, `br#"…"#` and the like.
fn raw(text: &str) -> Option<usize> {
    let begun = text.trim_start_matches(['b', 'c']).strip_prefix('r')?;
    let hashes = begun.len() - begun.trim_start_matches('#').len();
    let content = begun[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(content.find(&end).map_or(text.len(), |at| text.len() - content.len() + at + end.len()))
}

/// The length of a character in quotes, or of the one quote before a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text.chars().skip(1);
    match (inside.next(), inside.next()) {
        (Some('\\'), _) => text[3..].find('\'').map_or(text.len(), |end| end + 4),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 1,
    }
}
