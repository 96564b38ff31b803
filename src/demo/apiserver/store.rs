//! Where do the model's objects live, and what changed since a version?
//!
//! One count of versions for everything, as etcd's revision is; per kind a sorted map and a bounded history that
//! watches read. A watcher that asks for more than the history holds is told so (410) and lists again.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

use super::object::{NotAnObject, Object, Stamp};
use super::resources::Kind;
use crate::clock;

/// Changes that watches can read back, per kind. The leases of 1,000 nodes fill it in 20 s: longer than any
/// reconnect in the demo.
const HISTORY_MAX: usize = 8_192;

/// Why a write was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("already exists")]
    AlreadyExists,
    #[error("not found")]
    NotFound,
    #[error("the object has been modified; read the latest version and try again")]
    Conflict,
    #[error(transparent)]
    NotAnObject(#[from] NotAnObject),
}

/// The history no longer reaches back to the asked version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} (oldest kept: {oldest})")]
pub(crate) struct Expired {
    asked: u64,
    oldest: u64,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change, with the object as it was after (or, when deleted, before) it.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) version: u64,
    pub(crate) change: Change,
    pub(crate) object: Arc<Object>,
}

/// A part of a collection.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    /// Version of the collection.
    pub(crate) version: u64,
    /// How many objects follow.
    pub(crate) remaining: usize,
}

type Key = (String, String);

#[derive(Debug, Default)]
struct Collection {
    objects: BTreeMap<Key, Arc<Object>>,
    history: VecDeque<Event>,
    /// Version of the last change.
    version: u64,
    /// Changes up to this version are no longer in the history.
    forgotten: u64,
    /// The items of a LIST of everything, comma-separated, at a version.
    items: Option<(u64, Bytes)>,
}

/// All objects of one model.
#[derive(Debug)]
pub(crate) struct Store {
    collections: Mutex<Vec<Collection>>,
    /// The latest version; watchers wait on it.
    latest: watch::Sender<u64>,
}

impl Store {
    pub(crate) fn new() -> Self {
        let mut collections = Vec::new();
        collections.resize_with(Kind::COUNT, Collection::default);
        // Version 0 means "any" in a request; a real cluster starts at 1.
        Self { collections: Mutex::new(collections), latest: watch::Sender::new(1) }
    }

    pub(crate) fn create(&self, kind: Kind, namespace: &str, value: Value) -> Result<Arc<Object>, Refused> {
        self.create_at(kind, namespace, value, clock::wall())
    }

    /// Creates an object with a creation time of its own.
    pub(crate) fn create_at(
        &self,
        kind: Kind,
        namespace: &str,
        value: Value,
        created: SystemTime,
    ) -> Result<Arc<Object>, Refused> {
        let mut collections = self.collections.lock();
        let version = self.next_version();
        let stamp = Stamp { uid: uid(version), version, created };
        let object = Arc::new(Object::new(kind, namespace, value, stamp)?);
        let collection = &mut collections[kind.index()];
        let key = (object.namespace.clone(), object.name.clone());
        if collection.objects.contains_key(&key) {
            return Err(Refused::AlreadyExists);
        }
        collection.objects.insert(key, Arc::clone(&object));
        collection.remember(Event { version, change: Change::Added, object: Arc::clone(&object) });
        self.latest.send_replace(version);
        Ok(object)
    }

    /// Replaces an object. A `metadata.resourceVersion` in `value` must be the current one.
    pub(crate) fn replace(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        value: Value,
    ) -> Result<Arc<Object>, Refused> {
        self.modify(kind, namespace, name, |_| value)
    }

    /// Replaces an object by what `change` makes of it, as one step.
    pub(crate) fn modify(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&Object) -> Value,
    ) -> Result<Arc<Object>, Refused> {
        let mut collections = self.collections.lock();
        let collection = &mut collections[kind.index()];
        let key = (namespace.to_owned(), name.to_owned());
        let current = collection.objects.get(&key).ok_or(Refused::NotFound)?;
        let value = change(current);
        let claimed = value.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        if !claimed.is_empty() && claimed != current.version.to_string() {
            return Err(Refused::Conflict);
        }
        let version = self.next_version();
        let stamp = Stamp { uid: current.uid.clone(), version, created: current.created };
        let object = Arc::new(Object::new(kind, namespace, value, stamp)?);
        if object.name != name {
            return Err(Refused::NotAnObject(NotAnObject));
        }
        collection.objects.insert(key, Arc::clone(&object));
        collection.remember(Event { version, change: Change::Modified, object: Arc::clone(&object) });
        self.latest.send_replace(version);
        Ok(object)
    }

    pub(crate) fn delete(&self, kind: Kind, namespace: &str, name: &str) -> Result<Arc<Object>, Refused> {
        let mut collections = self.collections.lock();
        let collection = &mut collections[kind.index()];
        let key = (namespace.to_owned(), name.to_owned());
        let object = collection.objects.remove(&key).ok_or(Refused::NotFound)?;
        let version = self.next_version();
        collection.remember(Event { version, change: Change::Deleted, object: Arc::clone(&object) });
        self.latest.send_replace(version);
        Ok(object)
    }

    pub(crate) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.collections.lock()[kind.index()].objects.get(&key).cloned()
    }

    /// Up to `limit` objects after `after` (namespace and name), of one namespace or of all.
    pub(crate) fn page(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Page {
        let collections = self.collections.lock();
        let collection = &collections[kind.index()];
        let start = match (after, namespace) {
            (Some((namespace, name)), _) => Bound::Excluded((namespace.to_owned(), name.to_owned())),
            (None, Some(namespace)) => Bound::Included((namespace.to_owned(), String::new())),
            (None, None) => Bound::Unbounded,
        };
        let in_namespace = |key: &Key| namespace.is_none_or(|namespace| key.0 == namespace);
        let mut rest =
            collection.objects.range((start, Bound::Unbounded)).take_while(|(key, _)| in_namespace(key));
        let objects = rest.by_ref().take(limit).map(|(_, object)| Arc::clone(object)).collect();
        Page { objects, version: collection.version.max(1), remaining: rest.count() }
    }

    /// How many objects a LIST would read.
    pub(crate) fn count(&self, kind: Kind, namespace: Option<&str>) -> usize {
        let collections = self.collections.lock();
        let objects = &collections[kind.index()].objects;
        match namespace {
            None => objects.len(),
            Some(namespace) => objects.keys().filter(|key| key.0 == namespace).count(),
        }
    }

    /// All objects of a kind as comma-separated JSON, encoded once per version and then shared.
    pub(crate) fn all_items(&self, kind: Kind) -> (u64, Bytes) {
        let mut collections = self.collections.lock();
        let collection = &mut collections[kind.index()];
        let version = collection.version.max(1);
        if let Some((at, items)) = &collection.items
            && *at == version
        {
            return (version, items.clone());
        }
        let items = join(collection.objects.values());
        collection.items = Some((version, items.clone()));
        (version, items)
    }

    /// The changes of a kind after `version`.
    pub(crate) fn events_after(&self, kind: Kind, version: u64) -> Result<Vec<Event>, Expired> {
        let collections = self.collections.lock();
        let collection = &collections[kind.index()];
        if version < collection.forgotten {
            return Err(Expired { asked: version, oldest: collection.forgotten });
        }
        let newer = collection.history.iter().rev().take_while(|event| event.version > version);
        let mut events: Vec<Event> = newer.cloned().collect();
        events.reverse();
        Ok(events)
    }

    /// The latest version of all, to wait for the next one.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// Only called with the collections locked, so versions are given out in order.
    fn next_version(&self) -> u64 {
        *self.latest.borrow() + 1
    }
}

impl Collection {
    fn remember(&mut self, event: Event) {
        self.version = event.version;
        self.history.push_back(event);
        if self.history.len() > HISTORY_MAX
            && let Some(event) = self.history.pop_front()
        {
            self.forgotten = event.version;
        }
    }
}

/// JSON texts with commas between them.
pub(crate) fn join<'a>(objects: impl Iterator<Item = &'a Arc<Object>>) -> Bytes {
    let mut items = BytesMut::new();
    for object in objects {
        if !items.is_empty() {
            items.put_u8(b',');
        }
        items.put_slice(&object.json);
    }
    items.freeze()
}

/// Unique in the store; made from the count, so that the same seed gives the same objects.
fn uid(version: u64) -> String {
    Uuid::from_u64_pair(0xDE40_0000_0000_4000, 0x8000_0000_0000_0000 | version).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(name: &str) -> Value {
        json!({"metadata": {"name": name}})
    }

    fn names(page: &Page) -> Vec<&str> {
        page.objects.iter().map(|object| object.name.as_str()).collect()
    }

    #[test]
    fn pages_continue_where_the_last_one_ended() {
        let store = Store::new();
        for (namespace, name) in [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")] {
            store.create(Kind::PODS, namespace, named(name)).expect("new");
        }
        let first = store.page(Kind::PODS, None, None, 3);
        assert_eq!((names(&first), first.remaining), (vec!["1", "2", "1"], 1));
        let rest = store.page(Kind::PODS, None, Some(("b", "1")), 3);
        assert_eq!((names(&rest), rest.remaining), (vec!["2"], 0));
        assert_eq!(names(&store.page(Kind::PODS, Some("a"), Some(("a", "1")), 9)), ["2"]);
        assert_eq!(store.count(Kind::PODS, Some("b")), 2);
    }

    #[test]
    fn watchers_read_changes_in_order() {
        let store = Store::new();
        let created = store.create(Kind::PODS, "a", named("p")).expect("new");
        store.replace(Kind::PODS, "a", "p", named("p")).expect("there");
        store.delete(Kind::PODS, "a", "p").expect("there");
        let changes = |after| {
            let events = store.events_after(Kind::PODS, after).expect("kept");
            events.iter().map(|event| event.change).collect::<Vec<_>>()
        };
        assert_eq!(changes(1), [Change::Added, Change::Modified, Change::Deleted]);
        assert_eq!(changes(created.version), [Change::Modified, Change::Deleted]);
        assert!(store.events_after(Kind::NODES, 1).expect("kept").is_empty());
    }

    #[test]
    fn a_history_that_was_cut_says_so() {
        let store = Store::new();
        store.create(Kind::PODS, "a", named("p")).expect("new");
        for _ in 0..=HISTORY_MAX {
            store.replace(Kind::PODS, "a", "p", named("p")).expect("there");
        }
        assert!(store.events_after(Kind::PODS, 1).is_err());
    }

    #[test]
    fn a_stale_version_is_a_conflict() {
        let store = Store::new();
        let old = store.create(Kind::PODS, "a", named("p")).expect("new").value();
        store.replace(Kind::PODS, "a", "p", old.clone()).expect("current");
        assert_eq!(store.replace(Kind::PODS, "a", "p", old).err(), Some(Refused::Conflict));
        assert_eq!(store.create(Kind::PODS, "a", named("p")).err(), Some(Refused::AlreadyExists));
        assert_eq!(store.create(Kind::PODS, "a", json!([])).err(), Some(Refused::NotAnObject(NotAnObject)));
    }

    #[test]
    fn the_shared_list_follows_the_collection() {
        let store = Store::new();
        store.create(Kind::PODS, "a", named("p")).expect("new");
        let (version, items) = store.all_items(Kind::PODS);
        store.create(Kind::NODES, "", named("n")).expect("new");
        assert_eq!(store.all_items(Kind::PODS), (version, items.clone()));
        store.create(Kind::PODS, "a", named("q")).expect("new");
        assert_ne!(store.all_items(Kind::PODS).1, items);
    }
}
