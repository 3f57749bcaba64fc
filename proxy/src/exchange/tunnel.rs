//! What leaves HTTP: upgraded connections (101) and CONNECT.
//!
//! Owns when a tunnel opens and who is told how much it carried. What the client sends after its request and before the answer stays
//! in the codec until the tunnel stands: it is neither a request nor forwarded before the app agreed.

use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use tokio::time::sleep_until;

use super::is_connect;
use super::outgoing::Held;
use crate::body::Body;
use crate::downstream::counted::{Counted, Pauses};
use crate::failure::{Failure, Reason};
use crate::policy::deadline::{Bound, Deadline};
use crate::telemetry::Way;
use crate::upgrade::{self, Upgrade};
use crate::upstream::relay::{Resettable, relay};

/// Whether a request asks to leave HTTP, and the client's side of what would come then.
#[derive(Debug)]
pub struct Tunnel {
    client: Option<Upgrade>,
    connect: bool,
}

impl Tunnel {
    /// `protocols`: what an HTTP/1 client would like to upgrade to, which the next hop has to be told anew.
    pub fn asked(
        request: &mut Request<Body>,
        protocols: Option<HeaderValue>,
        client: Option<Upgrade>,
    ) -> Self {
        let connect = is_connect(request);
        if let Some(protocols) = protocols {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(UPGRADE, protocols);
            return Self { client, connect };
        }
        Self { client: client.filter(|_| connect), connect }
    }

    /// Ties both sides together if the response says so; it happens once the response's head went out.
    pub fn open(
        self,
        response: &mut Response<Body>,
        idle: Option<Duration>,
        deadline: &Deadline,
        held: &mut Held,
    ) -> Result<(), Failure> {
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let opened = switched || (self.connect && response.status().is_success());
        if !opened {
            return Ok(());
        }
        let refused = |why: &str| Failure::new(Reason::UpgradeFailed, why);
        let client = self.client.ok_or_else(|| refused("it switched protocols, which nobody asked for"))?;
        let server = upgrade::take(response).ok_or_else(|| refused("it agreed but opened no tunnel"))?;
        held.tunnel = Some(Box::new(Opened { client, server, idle, bound: deadline.of_body(true) }));
        Ok(())
    }
}

/// Both sides of a tunnel that stands as soon as the response's head is written.
#[derive(Debug)]
pub struct Opened {
    client: Upgrade,
    server: Upgrade,
    idle: Option<Duration>,
    /// Of its whole life.
    bound: Option<Bound>,
}

impl Opened {
    /// Carries bytes until both sides ended. The exchange lives as long.
    pub(super) fn spawn(self, mut held: Box<Held>) {
        tokio::task::spawn_local(async move {
            let (client, server) =
                match tokio::try_join!(self.client.established(), self.server.established()) {
                    Ok(sides) => sides,
                    Err(error) => {
                        held.record.fail(&Failure::new(Reason::UpgradeFailed, error.to_string()));
                        return;
                    }
                };
            let pauses = Pauses::new(self.idle);
            let (request, response) = (held.record.count(Way::Request), held.record.count(Way::Response));
            let client = Counted::new(client, request, response, &pauses);
            let mut server = server;
            let mut client = client;
            let relayed = pauses.bound(relay(&mut client, &mut server));
            let revoked = async {
                match &held.admitted {
                    Some(admitted) => admitted.revoked().await,
                    None => std::future::pending().await,
                }
            };
            let expired = async {
                match self.bound {
                    Some(bound) => {
                        sleep_until(bound.at()).await;
                        bound.failure("end of the tunnel")
                    }
                    None => std::future::pending().await,
                }
            };
            let failure = tokio::select! {
                failure = revoked => failure,
                failure = expired => failure,
                relayed = relayed => {
                    match relayed {
                        // One side broke it off, as the protocols in tunnels often do: the end of a tunnel is no failure of ours.
                        Some(_) => held.record.complete(),
                        None => {
                            held.record.fail(&Failure::new(Reason::RequestTimeout, "nothing moved for too long"));
                        }
                    }
                    return;
                }
            };
            client.reset();
            server.reset();
            held.record.fail(&failure);
        });
    }
}
