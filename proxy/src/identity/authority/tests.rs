//! Hours in which the authority is away, on a clock that runs by itself.

use std::cell::{Cell, RefCell};

use rcgen::{BasicConstraints, IsCa, Issuer, SanType};
use tokio::time::Instant;

use super::*;

/// Wall time that goes by with the runtime's paused clock.
#[derive(Clone, Copy)]
struct Clock {
    begun: (Instant, SystemTime),
}

impl Clock {
    fn start() -> Self {
        Self { begun: (Instant::now(), SystemTime::now()) }
    }

    fn now(self) -> SystemTime {
        self.begun.1 + self.begun.0.elapsed()
    }
}

/// Answers the first request, is away for an hour from the second one on, and answers again.
struct Ca<'a> {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    identity: &'a Identity,
    clock: Clock,
    /// Of its leaves.
    life: Duration,
    back: Cell<Option<SystemTime>>,
    in_vain: RefCell<Vec<SystemTime>>,
    answered: Cell<usize>,
}

const HOUR: Duration = Duration::from_secs(3_600);

impl<'a> Ca<'a> {
    fn new(identity: &'a Identity, clock: Clock, life: Duration) -> Self {
        let key = KeyPair::generate().expect("randomness");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("it can be signed").der().clone();
        let (back, in_vain, answered) = Default::default();
        Self { issuer: Issuer::new(params, key), root, identity, clock, life, back, in_vain, answered }
    }

    async fn ask(&self) -> Result<Material, String> {
        let now = self.clock.now();
        if self.answered.get() == 1 {
            let back = self.back.get().unwrap_or(now + HOUR);
            self.back.set(Some(back));
            if now < back {
                self.in_vain.borrow_mut().push(now);
                return Err("away".to_owned());
            }
        }
        self.answered.set(self.answered.get() + 1);
        let key = KeyPair::generate().expect("randomness");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("spiffe://td/ns/a/sa/b".try_into().expect("ASCII"))];
        (params.not_before, params.not_after) =
            ((now - Duration::from_secs(300)).into(), (now + self.life).into());
        let leaf = params.signed_by(&key, &self.issuer).expect("it can be signed");
        let (key, chain) = (key.serialize_der(), vec![leaf.der().clone()]);
        let svid = Svid::new(chain.clone(), private(&key)?, &self.identity.provider);
        self.identity.set_bundle(Bundle::new(vec![self.root.clone()]));
        self.identity.set_svid(svid.map_err(|error| error.to_string())?);
        Ok(Material::new(key, chain))
    }

    /// Lives until the authority has answered twice; `look` is called every second.
    async fn until_it_is_back(&self, look: impl Fn(SystemTime)) {
        let authority = Authority {
            addresses: Vec::new(),
            secure: Secure { roots: "roots.pem".into(), token: None },
            kept: Kept::new(None, "workload a/b"),
        };
        let watch = async {
            while self.answered.get() < 2 {
                sleep(Duration::from_secs(1)).await;
                look(self.clock.now());
            }
        };
        tokio::select! {
            () = authority.renew(self.identity, || self.clock.now(), || self.ask()) => unreachable!("it never ends"),
            () = watch => {}
        }
    }

    /// How long after its return it was asked, and answered, again: the certificate begins 5 min before that.
    fn mended_after(&self) -> Duration {
        let svid = self.identity.svid().expect("one");
        let answered = svid.leaf.not_before + Duration::from_secs(300);
        // In a certificate time has whole seconds.
        (answered + Duration::from_secs(1))
            .duration_since(self.back.get().expect("it was away"))
            .expect("after it")
    }
}

fn serial(identity: &Identity) -> Box<str> {
    identity.svid().expect("one").leaf.serial.clone()
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_is_away_for_an_hour_changes_nothing() {
    let (identity, clock) = (Identity::new(None), Clock::start());
    let ca = Ca::new(&identity, clock, 24 * HOUR);
    let first = RefCell::new(None);
    let mended = Cell::new(false);
    ca.until_it_is_back(|now| {
        assert_eq!(identity.unusable_at(now), None, "it can be used at all times");
        let serial = serial(&identity);
        mended.set(*first.borrow_mut().get_or_insert_with(|| serial.clone()) != serial);
    })
    .await;
    assert!(mended.get(), "a new one is in use");
    let in_vain = ca.in_vain.borrow();
    // At half its life, give or take a tenth; then ever seldomer.
    let due = in_vain[0].duration_since(clock.begun.1).expect("later").as_secs();
    assert!((38_880..=47_521).contains(&due), "{due} s");
    assert!((24..=80).contains(&in_vain.len()), "asked {} times in the hour", in_vain.len());
    assert!(ca.mended_after() <= Duration::from_secs(152), "{:?}", ca.mended_after());
    assert_eq!(identity.state.lock().error, None);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_expired_meanwhile_is_mended_without_help() {
    let (identity, clock) = (Identity::new(None), Clock::start());
    let life = Duration::from_secs(600);
    let ca = Ca::new(&identity, clock, life);
    let expired_for = Cell::new(0);
    ca.until_it_is_back(|now| {
        let age = now.duration_since(clock.begun.1).expect("later");
        match identity.unusable_at(now) {
            None if ca.answered.get() == 1 => assert!(age <= life + super::super::SKEW, "{age:?}"),
            None => {}
            Some(why) => {
                assert!(age + Duration::from_secs(1) > life + super::super::SKEW, "{age:?}: {why}");
                assert!(why.contains("has expired: away"), "{why}");
                expired_for.set(expired_for.get() + 1);
            }
        }
    })
    .await;
    assert!(expired_for.get() > 2_400, "for {} s", expired_for.get());
    assert!(ca.mended_after() <= Duration::from_secs(12), "{:?}", ca.mended_after());
    assert_eq!(identity.unusable_at(clock.now()), None);
}
