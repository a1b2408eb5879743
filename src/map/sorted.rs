//! What of `BTreeMap` and `BTreeSet` is needed here, over vectors in order.

use std::borrow::Borrow;
use std::ops::{Bound, RangeBounds};
use std::{slice, vec};

/// A map from each key to one value, in the order of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map<K, V>(Vec<(K, V)>);

/// Each value once, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<T>(Vec<T>);

/// The place of a key in a map, where there may be a value or not.
pub struct Entry<'m, K, V> {
    map: &'m mut Map<K, V>,
    key: K,
    at: Result<usize, usize>,
}

/// What of `all` is within the bounds.
fn within<T, K: Ord>(all: &[T], bounds: impl RangeBounds<K>, key: impl Fn(&T) -> &K) -> &[T] {
    let start = match bounds.start_bound() {
        Bound::Included(from) => all.partition_point(|item| key(item) < from),
        Bound::Excluded(from) => all.partition_point(|item| key(item) <= from),
        Bound::Unbounded => 0,
    };
    let end = match bounds.end_bound() {
        Bound::Included(to) => all.partition_point(|item| key(item) <= to),
        Bound::Excluded(to) => all.partition_point(|item| key(item) < to),
        Bound::Unbounded => all.len(),
    };
    all.get(start..end).unwrap_or_default()
}

impl<K: Ord, V> Map<K, V> {
    /// An empty map.
    pub const fn new() -> Map<K, V> {
        Map(Vec::new())
    }

    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.0.binary_search_by(|(other, _)| other.borrow().cmp(key))
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().and_then(|at| self.0.get(at)).map(|(_, value)| value)
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().and_then(|at| self.0.get_mut(at)).map(|(_, value)| value)
    }

    /// Whether a key has a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// Gives a key a value; the one that it had before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => self.0.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// Takes a key and its value out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| self.0.remove(at).1)
    }

    /// The place of a key.
    pub fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        let at = self.find(&key);
        Entry { map: self, key, at }
    }

    /// Those of the keys within these bounds.
    pub fn range(
        &self,
        bounds: impl RangeBounds<K>,
    ) -> std::iter::Map<slice::Iter<'_, (K, V)>, Pair<'_, K, V>> {
        within(&self.0, bounds, |(key, _)| key).iter().map(|(key, value)| (key, value))
    }

    /// The least key.
    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        self.0.first().map(|(key, value)| (key, value))
    }
}

impl<K, V> Map<K, V> {
    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps only that for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
    }

    /// All keys and values.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + ExactSizeIterator + Clone {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// All keys and values, the values to be changed.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&K, &mut V)> {
        self.0.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// All keys.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + ExactSizeIterator + Clone {
        self.0.iter().map(|(key, _)| key)
    }

    /// All values.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + ExactSizeIterator + Clone {
        self.0.iter().map(|(_, value)| value)
    }

    /// All values, to be changed.
    pub fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Map<K, V> {
        Map(Vec::new())
    }
}

impl<'m, K: Ord, V> Entry<'m, K, V> {
    /// The value; made by `make` if there is none.
    pub fn or_insert_with(self, make: impl FnOnce() -> V) -> &'m mut V {
        let Entry { map, key, at } = self;
        let at = at.unwrap_or_else(|at| {
            map.0.insert(at, (key, make()));
            at
        });
        #[expect(clippy::indexing_slicing, reason = "it was found or put there")]
        &mut map.0[at].1
    }

    /// The value; this one if there is none.
    pub fn or_insert(self, value: V) -> &'m mut V {
        self.or_insert_with(|| value)
    }

    /// The value; the usual one if there is none.
    pub fn or_default(self) -> &'m mut V
    where
        V: Default,
    {
        self.or_insert_with(V::default)
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(items: I) -> Map<K, V> {
        let mut map = Map::new();
        map.extend(items);
        map
    }
}

impl<K: Ord, V> Extend<(K, V)> for Map<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, items: I) {
        items.into_iter().for_each(|(key, value)| _ = self.insert(key, value));
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for Map<K, V> {
    fn from(items: [(K, V); N]) -> Map<K, V> {
        items.into_iter().collect()
    }
}

impl<K, V> IntoIterator for Map<K, V> {
    type Item = (K, V);
    type IntoIter = vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

type Pair<'m, K, V> = fn(&'m (K, V)) -> (&'m K, &'m V);
type PairMut<'m, K, V> = fn(&'m mut (K, V)) -> (&'m K, &'m mut V);

impl<'m, K, V> IntoIterator for &'m Map<K, V> {
    type Item = (&'m K, &'m V);
    type IntoIter = std::iter::Map<slice::Iter<'m, (K, V)>, Pair<'m, K, V>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<'m, K, V> IntoIterator for &'m mut Map<K, V> {
    type Item = (&'m K, &'m mut V);
    type IntoIter = std::iter::Map<slice::IterMut<'m, (K, V)>, PairMut<'m, K, V>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter_mut().map(|(key, value)| (&*key, value))
    }
}

impl<T: Ord> Set<T> {
    /// An empty set.
    pub const fn new() -> Set<T> {
        Set(Vec::new())
    }

    /// Adds a value; whether it was not there before.
    pub fn insert(&mut self, value: T) -> bool {
        match self.0.binary_search(&value) {
            Ok(_) => false,
            Err(at) => {
                self.0.insert(at, value);
                true
            }
        }
    }

    /// Takes a value out; whether it was there.
    pub fn remove(&mut self, value: &T) -> bool {
        self.0.binary_search(value).map(|at| self.0.remove(at)).is_ok()
    }

    /// Whether a value is there.
    pub fn contains(&self, value: &T) -> bool {
        self.0.binary_search(value).is_ok()
    }

    /// Those within these bounds.
    pub fn range(&self, bounds: impl RangeBounds<T>) -> slice::Iter<'_, T> {
        within(&self.0, bounds, |value| value).iter()
    }

    /// The least value.
    pub fn first(&self) -> Option<&T> {
        self.0.first()
    }

    /// The greatest value.
    pub fn last(&self) -> Option<&T> {
        self.0.last()
    }

    /// Adds all values of another set, which is empty then.
    pub fn append(&mut self, other: &mut Set<T>) {
        self.extend(std::mem::take(other));
    }

    /// Takes the least value out.
    pub fn pop_first(&mut self) -> Option<T> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }
}

impl<T> Set<T> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps only that for which `keep` holds.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.0.retain(keep);
    }

    /// All values.
    pub fn iter(&self) -> slice::Iter<'_, T> {
        self.0.iter()
    }
}

impl<T> Default for Set<T> {
    fn default() -> Set<T> {
        Set(Vec::new())
    }
}

impl<T: Ord> FromIterator<T> for Set<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Set<T> {
        let mut set = Set::new();
        set.extend(items);
        set
    }
}

impl<T: Ord, const N: usize> From<[T; N]> for Set<T> {
    fn from(values: [T; N]) -> Set<T> {
        values.into_iter().collect()
    }
}

impl<T: Ord> Extend<T> for Set<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        items.into_iter().for_each(|value| _ = self.insert(value));
    }
}

impl<'s, T: Ord + Copy> Extend<&'s T> for Set<T> {
    fn extend<I: IntoIterator<Item = &'s T>>(&mut self, items: I) {
        self.extend(items.into_iter().copied());
    }
}

impl<T> IntoIterator for Set<T> {
    type Item = T;
    type IntoIter = vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'s, T> IntoIterator for &'s Set<T> {
    type Item = &'s T;
    type IntoIter = slice::Iter<'s, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn a_map_is_as_a_b_tree() {
        let (mut map, mut tree) = (Map::new(), BTreeMap::new());
        for step in 0..2_000_u32 {
            let key = step.wrapping_mul(2_654_435_761) >> 25;
            match step % 3 {
                0 => assert_eq!(map.remove(&key), tree.remove(&key)),
                1 => assert_eq!(map.insert(key, step), tree.insert(key, step)),
                _ => {
                    *map.entry(key).or_insert(0) = {
                        *tree.entry(key).or_insert(0) = step;
                        step
                    }
                }
            }
            assert_eq!(map.get(&key), tree.get(&key));
            assert!(map.iter().eq(tree.iter()));
            assert!(
                map.range(key..).eq(tree.range(key..)) && map.range(..=key).eq(tree.range(..=key))
            );
        }
    }

    #[test]
    fn a_set_is_as_a_b_tree() {
        let (mut set, mut tree) = (Set::new(), BTreeSet::new());
        for step in 0..2_000_u32 {
            let value = step.wrapping_mul(2_654_435_761) >> 25;
            match step % 3 {
                0 => assert_eq!(set.remove(&value), tree.remove(&value)),
                _ => assert_eq!(set.insert(value), tree.insert(value)),
            }
            let after = (Bound::Excluded(value), Bound::Unbounded);
            assert!(set.iter().eq(tree.iter()) && set.range(after).eq(tree.range(after)));
        }
        assert_eq!(set.pop_first(), tree.pop_first());
    }
}
