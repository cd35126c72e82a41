//! The JSON documents of the last read, so that one that has not changed is not parsed again: every round reads them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::store::{KeyValue, Range};

/// By key.
#[derive(Debug, Default)]
pub(crate) struct Documents(Mutex<HashMap<String, Document>>);

/// The bytes, and what they say. Bytes are compared, not revisions, which another store may have too.
#[derive(Debug)]
struct Document {
    bytes: Vec<u8>,
    value: Arc<Value>,
}

impl Documents {
    /// What the key holds; `unreadable` makes something of what is not JSON.
    pub(crate) fn read(&self, pair: &KeyValue, unreadable: fn(&KeyValue) -> Value) -> Arc<Value> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(document) = known.get(&pair.key).filter(|document| document.bytes == pair.value) {
            return Arc::clone(&document.value);
        }
        let value = Arc::new(serde_json::from_slice(&pair.value).unwrap_or_else(|_| unreadable(pair)));
        let document = Document { bytes: pair.value.clone(), value: Arc::clone(&value) };
        known.insert(pair.key.clone(), document);
        value
    }

    /// Forgets the keys that are gone.
    pub(crate) fn keep_only(&self, range: &Range) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|key, _| range.keys.iter().any(|pair| pair.key == *key));
    }
}
