//! What an adapter knows of each channel.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::event::ChannelId;

/// Something for each of some channels, found by the place that the machine keeps a channel in: what every message looks
/// up must not be searched for.
#[derive(Debug)]
pub struct ByChannel<T> {
    places: Vec<Option<Entry<T>>>,
    /// Those of channels that are over, whose places others have by now: nobody has heard yet of what became of them.
    late: Vec<Entry<T>>,
}

type Entry<T> = (ChannelId, Box<T>);

impl<T> Default for ByChannel<T> {
    fn default() -> Self {
        Self { places: Vec::new(), late: Vec::new() }
    }
}

impl<T> ByChannel<T> {
    /// That of a channel.
    pub fn get(&self, id: ChannelId) -> Option<&T> {
        match self.places.get(id.slot as usize) {
            Some(Some((of, value))) if *of == id => Some(value),
            _ => self.late.iter().find(|(of, _)| *of == id).map(|(_, value)| &**value),
        }
    }

    /// That of a channel, to change it.
    pub fn get_mut(&mut self, id: ChannelId) -> Option<&mut T> {
        match self.places.get_mut(id.slot as usize) {
            Some(Some((of, value))) if *of == id => Some(value),
            _ => self.late.iter_mut().find(|(of, _)| *of == id).map(|(_, value)| &mut **value),
        }
    }

    /// Sets that of a channel. Another one that was in its place keeps its own.
    pub fn insert(&mut self, id: ChannelId, value: T) {
        let at = id.slot as usize;
        if self.places.len() <= at {
            self.places.resize_with(at.saturating_add(1), || None);
        }
        if let Some(place) = self.places.get_mut(at) {
            self.late.extend(place.replace((id, Box::new(value))));
        }
    }

    /// Takes that of a channel.
    pub fn remove(&mut self, id: ChannelId) -> Option<T> {
        let place = self.places.get_mut(id.slot as usize);
        let Some((_, value)) = place.and_then(|place| place.take_if(|(of, _)| *of == id)) else {
            let at = self.late.iter().position(|(of, _)| *of == id)?;
            return Some(*self.late.swap_remove(at).1);
        };
        while self.places.pop_if(|last| last.is_none()).is_some() {}
        if self.places.capacity() / 4 > self.places.len() {
            self.places.shrink_to(self.places.len().saturating_mul(2));
        }
        Some(*value)
    }

    /// All of them.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten().chain(&self.late).map(|(_, value)| &**value)
    }

    /// All of them, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().flatten().chain(&mut self.late).map(|(_, value)| &mut **value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32, generation: u32) -> ChannelId {
        ChannelId { slot, generation }
    }

    #[test]
    fn each_channel_has_its_own_also_where_another_one_was() {
        let mut news = ByChannel::default();
        for slot in [3, 0, 1000] {
            news.insert(id(slot, 1), slot);
        }
        assert_eq!(news.values().copied().collect::<Vec<_>>(), [0, 3, 1000]);
        for (slot, generation, expected) in [(3, 1, Some(3)), (3, 2, None), (2, 1, None), (5000, 1, None)] {
            assert_eq!(news.get(id(slot, generation)).copied(), expected);
            assert_eq!(news.get_mut(id(slot, generation)).copied(), expected);
        }
        news.values_mut().for_each(|value| *value += 1);
        assert_eq!(news.remove(id(3, 2)), None);
        assert_eq!(news.remove(id(3, 1)), Some(4));
        assert_eq!(news.remove(id(3, 1)), None);
        news.insert(id(3, 2), 7);
        assert_eq!((news.get(id(3, 1)), news.get(id(3, 2))), (None, Some(&7)));
        // A channel is over, and nobody has taken that in yet when another one has its place.
        for generation in [3, 4] {
            news.insert(id(3, generation), 10 + generation);
        }
        for (generation, value) in [(2, 7), (3, 13), (4, 14)] {
            *news.get_mut(id(3, generation)).unwrap() += 1;
            assert_eq!(news.get(id(3, generation)), Some(&(value + 1)));
        }
        assert_eq!(news.values().count(), 5);
        assert_eq!(news.values_mut().count(), 5);
        // Also when its place is not there any more.
        for (slot, generation, value) in [(1000, 1, 1001), (3, 4, 15), (3, 2, 8)] {
            assert_eq!(news.remove(id(slot, generation)), Some(value));
            assert_eq!(news.remove(id(slot, generation)), None);
        }
        assert_eq!(news.places.len(), 1);
        assert_eq!((news.get(id(3, 3)), news.get(id(3, 4))), (Some(&14), None));
        *news.get_mut(id(3, 3)).unwrap() += 1;
        assert_eq!((news.remove(id(3, 3)), news.remove(id(3, 3))), (Some(15), None));
        assert_eq!(news.values().count(), 1);
    }

    #[test]
    fn it_is_no_larger_than_its_last_channel_needs() {
        let mut news = ByChannel::default();
        (0..10_000).for_each(|slot| news.insert(id(slot, 0), ()));
        (1..10_000).rev().for_each(|slot| assert_eq!(news.remove(id(slot, 0)), Some(())));
        assert!(news.places.len() == 1 && news.places.capacity() < 16, "{}", news.places.capacity());
    }
}
