//! What an adapter knows of each channel.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::event::ChannelId;

/// Something for each of some channels, found by the place that the machine keeps a channel in: what every message looks
/// up must not be searched for.
#[derive(Debug)]
pub struct ByChannel<T>(Vec<Option<(ChannelId, Box<T>)>>);

impl<T> Default for ByChannel<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByChannel<T> {
    /// That of a channel.
    pub fn get(&self, id: ChannelId) -> Option<&T> {
        let (of, value) = self.0.get(id.slot as usize)?.as_ref()?;
        (*of == id).then_some(value)
    }

    /// That of a channel, to change it.
    pub fn get_mut(&mut self, id: ChannelId) -> Option<&mut T> {
        let (of, value) = self.0.get_mut(id.slot as usize)?.as_mut()?;
        (*of == id).then_some(value)
    }

    /// Sets that of a channel; what another one in its place had is gone.
    pub fn insert(&mut self, id: ChannelId, value: T) {
        let at = id.slot as usize;
        if self.0.len() <= at {
            self.0.resize_with(at.saturating_add(1), || None);
        }
        if let Some(place) = self.0.get_mut(at) {
            *place = Some((id, Box::new(value)));
        }
    }

    /// Takes that of a channel.
    pub fn remove(&mut self, id: ChannelId) -> Option<T> {
        let (_, value) = self.0.get_mut(id.slot as usize)?.take_if(|(of, _)| *of == id)?;
        while self.0.pop_if(|last| last.is_none()).is_some() {}
        if self.0.capacity() / 4 > self.0.len() {
            self.0.shrink_to(self.0.len().saturating_mul(2));
        }
        Some(*value)
    }

    /// All of them.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten().map(|(_, value)| &**value)
    }

    /// All of them, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten().map(|(_, value)| &mut **value)
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
    }

    #[test]
    fn it_is_no_larger_than_its_last_channel_needs() {
        let mut news = ByChannel::default();
        (0..10_000).for_each(|slot| news.insert(id(slot, 0), ()));
        (1..10_000).rev().for_each(|slot| assert_eq!(news.remove(id(slot, 0)), Some(())));
        assert!(news.0.len() == 1 && news.0.capacity() < 16, "{}", news.0.capacity());
    }
}
