//! Where uses are counted: in this process, or in Redis for any number of servers together.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Script};

use super::window::{Answer, Ask, Window};

/// Several keys are asked for as one: all of them fit, or none is counted.
#[derive(Debug)]
pub enum Store {
    Memory(Memory),
    Redis(Redis),
}

#[derive(Debug, thiserror::Error)]
#[error("Redis: {0}")]
pub struct StoreError(#[from] redis::RedisError);

impl Store {
    pub fn memory() -> Self {
        Self::Memory(Memory::default())
    }

    /// `url`: `redis://[USER:PASSWORD@]HOST:PORT[/DB]`. Comes back whether Redis is there or not; it is asked for again whenever something is counted.
    pub fn redis(url: &str) -> Result<Self, StoreError> {
        let manager = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(10))
            .set_max_delay(Duration::from_millis(100));
        let connection = ConnectionManager::new_lazy_with_config(Client::open(url)?, manager)?;
        Ok(Self::Redis(Redis { connection, script: Script::new(include_str!("take.lua")) }))
    }

    /// Keys counted in this process.
    pub fn keys(&self) -> i64 {
        match self {
            Self::Memory(memory) => i64::try_from(memory.0.lock().windows.len()).unwrap_or(i64::MAX),
            Self::Redis(_) => 0,
        }
    }

    pub async fn take(&self, asks: &[(String, Ask)]) -> Result<Vec<Answer>, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.take(asks, now())),
            Self::Redis(redis) => redis.take(asks, 0).await,
        }
    }
}

/// The longest a connection or an answer of Redis is waited for.
pub const PATIENCE: Duration = Duration::from_millis(200);

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Forgets what is over when it is full; keys without a place then share one for each limit.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    windows: HashMap<String, (u64, Window)>,
    /// Nothing is looked through again before.
    look_again: u64,
}

/// Keys that are kept in memory at most, some 20 MB.
const MOST: usize = 100_000;

impl Memory {
    pub fn take(&self, asks: &[(String, Ask)], now: u64) -> Vec<Answer> {
        let mut kept = self.0.lock();
        let keys: Vec<_> = asks.iter().map(|(key, ask)| kept.place(key, *ask, now)).collect();
        let seen: Vec<_> = keys
            .iter()
            .zip(asks)
            .map(|(key, (_, ask))| {
                let (_, window) = kept.windows.get(key).copied().unwrap_or_default();
                window.at(now, *ask)
            })
            .collect();
        if seen.iter().any(|(.., answer)| !answer.fits) {
            return seen.into_iter().map(|(.., answer)| answer).collect();
        }
        let mut answers = Vec::with_capacity(asks.len());
        for ((key, (_, ask)), (mut window, used, answer)) in keys.into_iter().zip(asks).zip(seen) {
            window.count(*ask);
            kept.windows.insert(key, (ask.unit, window));
            answers.push(answer.counted(*ask, used));
        }
        answers
    }
}

impl Kept {
    fn place(&mut self, key: &str, ask: Ask, now: u64) -> String {
        if self.windows.len() >= MOST && !self.windows.contains_key(key) {
            if now >= self.look_again {
                self.windows.retain(|_, (unit, window)| !window.is_over(now, *unit));
                self.look_again = now + 1_000;
            }
            if self.windows.len() >= MOST {
                return format!("{} in {} ms", ask.limit, ask.unit);
            }
        }
        key.to_owned()
    }
}

#[derive(Debug)]
pub struct Redis {
    connection: ConnectionManager,
    script: Script,
}

impl Redis {
    /// `now`: milliseconds; 0 for Redis' own clock, which all servers share.
    pub async fn take(&self, asks: &[(String, Ask)], now: u64) -> Result<Vec<Answer>, StoreError> {
        let mut call = self.script.prepare_invoke();
        call.arg(now);
        for (key, ask) in asks {
            call.key(key).arg(ask.limit).arg(ask.unit).arg(ask.hits);
        }
        let told: Vec<i64> = call.invoke_async(&mut self.connection.clone()).await?;
        let number = |told: i64| u64::try_from(told).unwrap_or(0);
        let answer = |told: &[i64]| Answer {
            fits: told[0] == 1,
            remaining: u32::try_from(told[1]).unwrap_or(0),
            reset: number(told[2]),
        };
        Ok(told.chunks_exact(3).map(answer).collect())
    }
}
