//! Fuzz input as a program: one byte after the other, zeros behind the end.

/// The rest of a fuzz input.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// The next byte, modulo `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    /// A size: small ones from one byte, those around the limits of the protocol from a table.
    pub fn size(&mut self) -> usize {
        const LARGE: [usize; 16] = [
            255, 256, 1000, 4096, 10_000, 16_384, 32_767, 32_768, 32_769, 34_000, 65_535, 100_000, 200_000,
            262_000, 262_144, 300_000,
        ];
        match self.byte() {
            small @ 0..=223 => small.into(),
            large => LARGE[usize::from(large) % LARGE.len()],
        }
    }

    /// A number that goes into a message: mostly small, sometimes at an edge.
    pub fn number(&mut self) -> u32 {
        match self.byte() {
            small @ 0..=223 => small.into(),
            224..=239 => u32::from(self.byte()) << 12,
            240..=247 => u32::MAX - u32::from(self.byte()),
            _ => u32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()]),
        }
    }

    /// The next bytes, as many as the byte before them says.
    pub fn short(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        head
    }
}
