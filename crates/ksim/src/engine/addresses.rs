//! Tables by address, for what is looked up at every step: nearly always found at the first look, and a table that is emptied keeps its memory.

use rustc_hash::FxHashMap;

/// How many addresses are found without more ado. A power of two.
const PLACES: usize = 256;

/// Where an address has its place. The multiplication spreads arrays of equal objects.
#[inline]
const fn place_of(address: usize) -> usize {
    ((address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES.trailing_zeros())) as usize % PLACES
}

/// The other place that an address may have, where its own is taken.
#[inline]
const fn beside(place: usize) -> usize {
    (place ^ 1) % PLACES
}

/// Stands for no address, in all places but those which it would have itself.
const NONE: usize = 0;

/// Stands for no address there.
const NONE_OF_FIRST: usize = 8;

const _: () = assert!(place_of(NONE) == 0 && place_of(NONE_OF_FIRST) > 1);

/// What a place has while no address has it. To look for an address there never finds that, so that nobody needs to ask for it.
#[inline]
const fn free(place: usize) -> usize {
    if place < 2 { NONE_OF_FIRST } else { NONE }
}

/// Values by address. Address 0 has none.
#[derive(Debug)]
pub(crate) struct AddressTable<T> {
    places: Box<[(usize, T); PLACES]>,
    /// How many of those are taken.
    taken: usize,
    /// One bit for each that is taken, or has been.
    used: [u64; PLACES / 64],
    /// Addresses that found both their places taken.
    others: FxHashMap<usize, T>,
}

impl<T: Copy + Default> Default for AddressTable<T> {
    fn default() -> Self {
        let places = std::array::from_fn(|place| (free(place), T::default()));
        Self { places: Box::new(places), taken: 0, used: [0; PLACES / 64], others: FxHashMap::default() }
    }
}

impl<T: Copy + Default> AddressTable<T> {
    /// The value of an address.
    #[inline]
    pub(crate) fn get(&self, address: usize) -> Option<T> {
        let (found, value) = self.places[place_of(address)];
        if found == address { Some(value) } else { self.get_other(address) }
    }

    #[inline]
    fn get_other(&self, address: usize) -> Option<T> {
        let (found, value) = self.places[beside(place_of(address))];
        if found == address {
            return Some(value);
        }
        if self.others.is_empty() { None } else { self.look_up(address) }
    }

    #[inline(never)]
    fn look_up(&self, address: usize) -> Option<T> {
        self.others.get(&address).copied()
    }

    /// True when no address has a value.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.taken == 0 && self.others.is_empty()
    }

    /// How many addresses have a value.
    pub(crate) fn len(&self) -> usize {
        self.taken + self.others.len()
    }

    /// Sets the value of an address. Returns the one that it had.
    #[inline]
    pub(crate) fn insert(&mut self, address: usize, value: T) -> Option<T> {
        debug_assert!(address != 0, "address 0 has no value");
        let place = place_of(address);
        let (found, old) = &mut self.places[place];
        if *found == address {
            return Some(std::mem::replace(old, value));
        }
        if *found == free(place) && self.places[beside(place)].0 != address && self.others.is_empty() {
            self.enter(place, address, value);
            return None;
        }
        self.insert_other(address, value)
    }

    #[inline]
    fn enter(&mut self, place: usize, address: usize, value: T) {
        self.places[place] = (address, value);
        self.taken += 1;
        self.used[place / 64 % (PLACES / 64)] |= 1 << (place % 64);
    }

    #[inline(never)]
    fn insert_other(&mut self, address: usize, value: T) -> Option<T> {
        let places = [place_of(address), beside(place_of(address))];
        if let Some(place) = places.into_iter().find(|&place| self.places[place].0 == address) {
            return Some(std::mem::replace(&mut self.places[place].1, value));
        }
        if let Some(old) = self.others.get_mut(&address) {
            return Some(std::mem::replace(old, value));
        }
        match places.into_iter().find(|&place| self.places[place].0 == free(place)) {
            Some(place) => self.enter(place, address, value),
            None => _ = self.others.insert(address, value),
        }
        None
    }

    /// Takes the value of an address out.
    #[inline]
    pub(crate) fn remove(&mut self, address: usize) -> Option<T> {
        for place in [place_of(address), beside(place_of(address))] {
            let (found, value) = &mut self.places[place];
            if *found == address {
                *found = free(place);
                self.taken -= 1;
                return Some(*value);
            }
        }
        if self.others.is_empty() { None } else { self.others.remove(&address) }
    }

    /// Takes everything out.
    #[inline]
    pub(crate) fn clear(&mut self) {
        for (word, used) in self.used.iter_mut().enumerate() {
            while *used != 0 {
                let place = word * 64 + used.trailing_zeros() as usize;
                self.places[place % PLACES].0 = free(place);
                *used &= *used - 1;
            }
        }
        self.taken = 0;
        self.clear_others();
    }

    #[inline]
    fn clear_others(&mut self) {
        if !self.others.is_empty() {
            self.others = FxHashMap::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::AddressTable;
    use std::collections::HashMap;

    #[test]
    fn does_what_a_map_does() {
        let (mut table, mut map) = (AddressTable::<u32>::default(), HashMap::new());
        let mut random = 1_u64;
        for step in 0..20_000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Few addresses, so that they meet, and come and go.
            let address = (random >> 33) as usize % 600 * 8 + 8;
            match random >> 62 {
                0 => assert_eq!(table.remove(address), map.remove(&address)),
                1 => assert_eq!(table.get(address), map.get(&address).copied()),
                _ => assert_eq!(table.insert(address, step), map.insert(address, step)),
            }
            assert_eq!(table.len(), map.len());
        }
        assert!((0..610).all(|index| table.get(index * 8) == map.get(&(index * 8)).copied()));
    }

    #[test]
    fn is_empty_afterwards() {
        for count in [1_usize, 7, 40, 5_000] {
            let mut table = AddressTable::<u32>::default();
            let addresses = || (1..=count).map(|index| index * 24);
            addresses().for_each(|address| _ = table.insert(address, 1));
            table.clear();
            assert!(table.is_empty());
            assert!(addresses().chain([0, 8, usize::MAX]).all(|address| table.get(address).is_none()));
        }
    }
}
