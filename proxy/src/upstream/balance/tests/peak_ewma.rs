//! Peak EWMA against the slow obvious one: it remembers everything that ever happened to each endpoint, and works the estimate out of it anew each time it is asked.

use super::*;

/// What happened to one endpoint.
struct Remembered {
    weight: u32,
    /// When an answer came, after how long, and whether it was a good one.
    answers: Vec<(Instant, Duration, bool)>,
    /// When each request that is not answered yet was sent.
    outstanding: Vec<Instant>,
    known_since: Instant,
}

const ASSUMED: Duration = Duration::from_millis(5);

impl Remembered {
    /// In microseconds: a worse answer counts at once, a better one for as much as the decay has taken of what was before, a bad one not at all unless it was slow. What
    /// nobody asked for 20 s is what it answers then.
    fn estimate(&self, now: Instant) -> f64 {
        let left = |from: Instant, to: Instant| (-(to - from).as_secs_f64() / 10.0).exp();
        let (mut estimate, mut at) = (ASSUMED.as_secs_f64() * 1e6, self.known_since);
        for (when, latency, good) in &self.answers {
            let latency = latency.as_secs_f64() * 1e6;
            if latency > estimate {
                estimate = latency;
            } else if *good {
                let old = if *when - at >= Duration::from_secs(20) { 0.0 } else { left(at, *when) };
                estimate = estimate * old + latency * (1.0 - old);
            }
            at = *when;
        }
        estimate * left(at, now)
    }

    fn cost(&self, other: &Self, now: Instant) -> f64 {
        let last = self.answers.last().map_or(self.known_since, |(when, ..)| *when);
        let mut latency = self.estimate(now);
        if self.outstanding.is_empty() && now - last >= Duration::from_secs(20) {
            latency = latency.min(other.estimate(now));
        }
        latency * (1.0 + self.outstanding.len() as f64 / f64::from(self.weight))
    }
}

/// One by weight: a ticket for each unit of it.
fn draw(endpoints: &[Remembered], rng: &mut SmallRng) -> usize {
    if endpoints.windows(2).all(|pair| pair[0].weight == pair[1].weight) {
        return rng.random_range(0..endpoints.len());
    }
    let total: u64 = endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
    let ticket = rng.random_range(0..total);
    let mut owners = endpoints
        .iter()
        .enumerate()
        .flat_map(|(n, endpoint)| std::iter::repeat_n(n, endpoint.weight as usize));
    owners.nth(ticket as usize).expect("the ticket is one of them")
}

/// A world of requests that come and are answered at random, of endpoints fast, slow, failing and forgotten; of each pair that is drawn, the same one is picked.
#[tokio::test(start_paused = true)]
async fn it_picks_whom_the_slow_obvious_one_picks() {
    let (mut decided, mut alike) = (0, 0);
    for seed in 0..150 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let weights: Vec<u32> = match rng.random_bool(0.5) {
            true => vec![1; rng.random_range(2..=8)],
            false => (0..rng.random_range(2..=8)).map(|_| rng.random_range(1..=5)).collect(),
        };
        let set = set(weighted(&weights), &balance(Algorithm::PeakEwma));
        let live: Vec<_> = set.iter().collect();
        let turn = Turn::default();
        let mut now = Instant::now();
        let mut obvious: Vec<_> = weights
            .iter()
            .map(|weight| Remembered {
                weight: *weight,
                answers: vec![],
                outstanding: vec![],
                known_since: now,
            })
            .collect();
        for step in 0..400 {
            // Most steps are near each other; now and then everything rests long enough to be forgotten.
            now += Duration::from_millis(match rng.random_range(0..100) {
                0 => rng.random_range(5_000..60_000),
                1..10 => rng.random_range(100..5_000),
                _ => rng.random_range(0..20),
            });
            if rng.random_bool(0.5) {
                let mut draws = rng.clone();
                let picked = set.pick(&Asked::default(), &turn, now, &mut rng).expect("there are some").id;
                let first = draw(&obvious, &mut draws);
                let second = (0..8).map(|_| draw(&obvious, &mut draws)).find(|second| *second != first);
                let picked = live.iter().position(|endpoint| endpoint.id == picked).expect("one of them");
                if let Some(second) = second {
                    let (one, other) = (&obvious[first], &obvious[second]);
                    let (mine, its) = (one.cost(other, now), other.cost(one, now));
                    // Numbers of half the length cannot tell these apart, but for those that are equal by right.
                    if mine == its || (mine - its).abs() > 1e-4 * mine.max(its) {
                        let want = if its < mine { second } else { first };
                        assert_eq!(
                            picked, want,
                            "seed {seed}, step {step}: {mine} of {first}, {its} of {second}"
                        );
                        decided += 1;
                    } else {
                        alike += 1;
                    }
                }
                live[picked].begin();
                obvious[picked].outstanding.push(now);
                continue;
            }
            let answered = rng.random_range(0..live.len());
            if obvious[answered].outstanding.is_empty() {
                continue;
            }
            let open = obvious[answered].outstanding.len();
            let sent = obvious[answered].outstanding.swap_remove(rng.random_range(0..open));
            let (latency, good) = (now - sent, rng.random_bool(0.8));
            live[answered].end();
            match good {
                true => live[answered].succeeded(latency, now),
                false => live[answered].failed(latency, now),
            }
            obvious[answered].answers.push((now, latency, good));
            let (want, got) = (obvious[answered].estimate(now), live[answered].estimate(now));
            let off = (got.as_secs_f64() * 1e6 - want).abs();
            assert!(off <= 1.0 + want * 1e-3, "seed {seed}, step {step}: {got:?}, not {want} µs");
        }
    }
    assert!(decided > 20_000 && alike * 20 < decided, "{decided} picks compared, {alike} too close to say");
}
