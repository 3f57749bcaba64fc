//! Ring and table: who keeps what when endpoints come and go.

use xxhash_rust::xxh64::xxh64;

use super::*;

const RING: Algorithm = Algorithm::RingHash { min_size: 1_024, max_size: 65_536 };
const MAGLEV: Algorithm = Algorithm::Maglev { table_size: 65_537 };

/// Where each of `keys` goes, by address.
fn placed(set: &EndpointSet, keys: &[u64]) -> Vec<SocketAddr> {
    let (mut rng, turn, now) = (seeded(), Turn::default(), Instant::now());
    keys.iter()
        .map(|key| {
            let asked = Asked { hash: Some(*key), ..Asked::default() };
            let picked = set.pick(&asked, &turn, now, &mut rng).expect("there is one");
            match picked.address {
                crate::upstream::Address::Socket(address) => address,
                crate::upstream::Address::Name { .. } => panic!("it has an address"),
            }
        })
        .collect()
}

fn keys(seed: u64, count: usize) -> Vec<u64> {
    let mut rng = SmallRng::seed_from_u64(seed);
    (0..count).map(|_| rng.random()).collect()
}

/// The ring as its inventors describe it: every place hashed by hand, and the nearest one at or behind the key looked for one by one.
#[tokio::test(start_paused = true)]
async fn a_ring_finds_what_looking_at_every_place_finds() {
    let endpoints = weighted(&[1, 2, 1, 3]);
    let algorithm = Algorithm::RingHash { min_size: 16, max_size: 1_000 };
    let set = set(endpoints.clone(), &balance(algorithm));
    let places: Vec<(u64, SocketAddr)> = endpoints
        .iter()
        .flat_map(|endpoint| {
            let name = move |place| format!("{}_{place}", endpoint.address);
            (0..16 * endpoint.weight).map(move |place| (xxh64(name(place).as_bytes(), 0), endpoint.address))
        })
        .collect();
    let keys = keys(1, 2_000);
    for (key, found) in keys.iter().zip(placed(&set, &keys)) {
        let distance = |(place, _): &&(u64, SocketAddr)| place.wrapping_sub(*key);
        let (_, want) = places.iter().min_by_key(distance).expect("there are places");
        assert_eq!(found, *want, "{key}");
    }
}

/// The table as the paper's pseudo-code makes it: permutations written out, places taken in turn.
#[tokio::test(start_paused = true)]
async fn a_table_is_the_one_of_the_paper() {
    for (count, size) in [(1, 7), (3, 7), (5, 251), (10, 1_009)] {
        let endpoints = weighted(&vec![1; count]);
        let live: Vec<_> = endpoints
            .iter()
            .map(|model| Arc::new(Endpoint::new(model.clone(), Duration::ZERO, &circuit())))
            .collect();
        let usable: Vec<u32> = (0..count as u32).collect();
        let table = maglev::Maglev::new(&live, &usable, size);
        let permutations: Vec<Vec<usize>> = endpoints
            .iter()
            .map(|endpoint| {
                let name = endpoint.address.to_string();
                let offset = xxh64(name.as_bytes(), 0) % u64::from(size);
                let skip = xxh64(name.as_bytes(), 1) % u64::from(size - 1) + 1;
                (0..u64::from(size)).map(|j| ((offset + j * skip) % u64::from(size)) as usize).collect()
            })
            .collect();
        let mut want = vec![None; size as usize];
        let mut next = vec![0; count];
        while want.iter().any(Option::is_none) {
            for (i, permutation) in permutations.iter().enumerate() {
                while next[i] < permutation.len() && want[permutation[next[i]]].is_some() {
                    next[i] += 1;
                }
                if next[i] < permutation.len() {
                    want[permutation[next[i]]] = Some(i as u32);
                }
            }
        }
        let want: Vec<u32> = want.into_iter().map(|place| place.expect("all are taken")).collect();
        assert_eq!(table.places(), want, "{count} endpoints, {size} places");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Only the requests of the one that leaves move, and it had no more than its share; whoever comes takes only its share.
    #[test]
    fn on_a_ring_only_the_share_of_the_one_that_leaves_moves(
        count in 2..=32_u16,
        leaving in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let Moved { its, others } = without_one(RING, count, leaving.index(count.into()), seed);
        prop_assert_eq!(others, 0, "the others keep what they have");
        // 1,024 places each: the share of one varies by 3 %, the sample of keys by more.
        let share = KEYS as f64 / f64::from(count);
        prop_assert!((its as f64) < share * 1.15 + 4.0 * share.sqrt(), "{} of {} moved", its, share);
    }

    /// The same for a table, in which few places of others move (section 5.3 of the paper).
    #[test]
    fn in_a_table_little_more_than_the_share_of_the_one_that_leaves_moves(
        count in 2..=64_u16,
        leaving in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let Moved { its, others } = without_one(MAGLEV, count, leaving.index(count.into()), seed);
        prop_assert!(others < KEYS * 4 / 100, "{} of {} moved without need", others, KEYS);
        let share = KEYS as f64 / f64::from(count);
        prop_assert!((its as f64) < share * 1.05 + 4.0 * share.sqrt(), "it had {}, not {}", its, share);
    }
}

const KEYS: usize = 4_000;

/// Of [`KEYS`], how many have another place once an endpoint left: of those that were its, and of the others.
struct Moved {
    its: usize,
    others: usize,
}

fn without_one(algorithm: Algorithm, count: u16, leaving: usize, seed: u64) -> Moved {
    let all: Vec<_> = (0..count).map(|n| one(n.wrapping_add(seed as u16))).collect();
    let mut fewer = all.clone();
    let gone = fewer.remove(leaving).address;
    let keys = keys(seed, KEYS);
    let before = placed(&set(all, &balance(algorithm)), &keys);
    let after = placed(&set(fewer, &balance(algorithm)), &keys);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    let (its, others): (Vec<_>, Vec<_>) = moved.partition(|(before, _)| **before == gone);
    Moved { its: its.len(), others: others.len() }
}

/// Beside an endpoint that may not be picked, the others keep what they have.
#[tokio::test(start_paused = true)]
async fn avoiding_one_moves_only_its_own() {
    for algorithm in [RING, MAGLEV] {
        let set = set(weighted(&[1; 8]), &balance(algorithm));
        let avoided = set.iter().next().expect("there are eight");
        let (mut rng, turn, now) = (seeded(), Turn::default(), Instant::now());
        let mut takers = BTreeSet::new();
        for key in keys(3, 2_000) {
            let mut pick = |avoid: &[EndpointId]| {
                let asked = Asked { avoid, hash: Some(key), session: None };
                set.pick(&asked, &turn, now, &mut rng).expect("there is one").id
            };
            let (home, other) = (pick(&[]), pick(&[avoided.id]));
            if home == avoided.id {
                assert_ne!(other, home);
                takers.insert(other);
            } else {
                assert_eq!(other, home, "{algorithm:?}");
            }
        }
        assert!(takers.len() >= 5, "{algorithm:?}: what is avoided is shared: {takers:?}");
    }
}

/// Two processes that know the same endpoints, in whatever order they came to know them.
#[tokio::test(start_paused = true)]
async fn all_proxies_place_alike() {
    for algorithm in [RING, MAGLEV] {
        let keys = keys(4, 500);
        let (a, b) =
            (set(weighted(&[1, 2, 3]), &balance(algorithm)), set(weighted(&[1, 2, 3]), &balance(algorithm)));
        assert_eq!(placed(&a, &keys), placed(&b, &keys), "{algorithm:?}");
    }
}
