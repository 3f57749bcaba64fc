//! One of several backends, drawn by weight for each request.

/// Prefix sums of weights: `sums[i]` is the sum of the weights up to and including `i`.
#[derive(Clone, Debug, Default)]
pub struct Split {
    sums: Box<[u64]>,
}

impl Split {
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut total = 0;
        let sums = weights.into_iter().map(|weight| {
            total += u64::from(weight);
            total
        });
        Self { sums: sums.collect() }
    }

    /// The sum of all weights; 0 where nothing can be drawn.
    pub fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }

    /// Which backend a number in `0..total` falls to. `None` where the total is 0.
    pub fn draw(&self, random: impl FnOnce(u64) -> u64) -> Option<usize> {
        match self.total() {
            0 => None,
            // The usual rule has one backend and needs no random number.
            _ if self.sums.len() == 1 => Some(0),
            total => {
                let number = random(total);
                Some(self.sums.partition_point(|sum| *sum <= number))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_falls_to_the_backend_its_weight_gives_it() {
        for weights in [&[1][..], &[3, 0, 1], &[0, 0, 5], &[90, 10], &[1_000_000, 1]] {
            let split = Split::new(weights.iter().copied());
            let mut seen = vec![0; weights.len()];
            // The slow obvious way: all numbers, one after the other.
            for number in 0..split.total() {
                seen[split.draw(|_| number).expect("a total over 0")] += 1;
            }
            if weights.len() > 1 {
                assert_eq!(seen, weights, "{weights:?}");
            }
        }
    }

    #[test]
    fn nothing_is_drawn_of_no_weight() {
        assert_eq!(Split::new([]).draw(|_| 0), None);
        assert_eq!(Split::new([0, 0]).draw(|_| 0), None);
    }
}
