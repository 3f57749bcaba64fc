//! The Huffman code of RFC 7541 Appendix B, as the length of each symbol's code.
//!
//! The code is canonical (symbols sorted by length, then by value, have consecutive codes), so the lengths say it all: the codes and the
//! decoder's tables are made from them when the program is compiled. The tests hold the result against the RFC's examples.

/// The symbol that ends a string. It never appears in one (RFC 7541 §5.2): its first bits are the padding.
pub const EOS: u16 = 256;

/// The shortest code, in bits: what a byte of input can become is bounded by it.
pub const SHORTEST: usize = 5;

/// The longest code, in bits.
pub const LONGEST: usize = 30;

/// The length of each symbol's code, in bits; the last one is EOS.
#[rustfmt::skip]
pub const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, // 00
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, // 10
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, // 20
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, // 30
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, // 40
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, // 50
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, // 60
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, // 70
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, // 80
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, // 90
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, // a0
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, // b0
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, // c0
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, // d0
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, // e0
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, // f0
    30,                                                              // EOS
];

/// The symbols in the order of their codes.
pub const ORDER: [u16; 257] = {
    let mut order = [0; 257];
    let (mut filled, mut length) = (0, SHORTEST);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                order[filled] = symbol as u16;
                filled += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    order
};

/// The codes of one length.
#[derive(Clone, Copy)]
pub struct Row {
    /// The first of them, in the high bits of a word.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// Where their symbols begin in [`ORDER`].
    pub start: u32,
}

/// The codes by their length in bits.
pub const ROWS: [Row; LONGEST + 1] = {
    let mut rows = [Row { first: 0, count: 0, start: 0 }; LONGEST + 1];
    let (mut next, mut start, mut length) = (0u64, 0, SHORTEST);
    while length <= LONGEST {
        let mut count = 0;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                count += 1;
            }
            symbol += 1;
        }
        rows[length] = Row { first: next as u32, count, start };
        next += (count as u64) << (32 - length);
        start += count;
        length += 1;
    }
    // Every sequence of bits has a meaning and only one: the code is complete.
    assert!(next == 1 << 32);
    rows
};
