//! Who is in which room, and how a message gets to them.
//!
//! A room exists while somebody is in it. A member that doesn't keep up misses what others say, so that nobody can
//! hold back or fill up the server by not reading.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tonic::Status;

use super::messages::Message;

/// What a member is sent.
pub type Inbox = mpsc::Sender<Result<Message, Status>>;

#[derive(Clone, Debug, Default)]
pub struct Rooms(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    members: HashMap<String, Vec<(u64, Inbox)>>,
}

impl Rooms {
    pub fn enter(&self, room: &str, inbox: Inbox) -> Member {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.members.entry(room.to_owned()).or_default().push((id, inbox));
        Member { id, room: room.to_owned(), rooms: self.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.state().members.is_empty()
    }
}

/// A stay in a room; ends when dropped.
#[derive(Debug)]
pub struct Member {
    id: u64,
    room: String,
    rooms: Rooms,
}

impl Member {
    /// To everybody else in the room who has space for it.
    pub fn tell_others(&self, message: &Message) {
        let state = self.rooms.state();
        for (id, inbox) in state.members.get(&self.room).into_iter().flatten() {
            if *id != self.id {
                let _ = inbox.try_send(Ok(message.clone()));
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.rooms.state();
        if let Some(members) = state.members.get_mut(&self.room) {
            members.retain(|(id, _)| *id != self.id);
            if members.is_empty() {
                state.members.remove(&self.room);
            }
        }
    }
}
