//! Serves the protocol: reads a request, calls the app, writes the answer.
//!
//! Docker sends no Content-Type and an empty Host, and retries a call when the connection
//! breaks, so nothing is asked of headers, and mutations outlive their connection. Where
//! nothing is known of a volume the connection is closed without an answer: Docker takes
//! any other answer for "there is no such volume".

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method as HttpMethod, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use volapi::problem::chain;
use volcore::name::{MountId, VolumeId};

use crate::app::Plugin;
use crate::app::volumes::{Listed, LookError};
use crate::docker::patience::Patience;
use crate::docker::peer::{Caller, Peer};
use crate::docker::protocol::{Capabilities, Method, Reply, Request, Volume};
use crate::docker::socket::PluginSocket;

/// The content type that Docker's own plugins answer with.
const PLUGIN_JSON: HeaderValue =
    HeaderValue::from_static("application/vnd.docker.plugins.v1.1+json");
/// The largest request that is read: a Create with very many options.
const LARGEST_BODY: usize = 1 << 20;
/// A client that does not send its request within this time is cut off.
const READING: Duration = Duration::from_secs(10);

/// The connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed without an answer: {0}")]
struct HangUp(String);

/// What a call is answered with: a status, and the reply whose `Err` Docker shows to the user.
struct Answer(StatusCode, Reply);

/// Serves until `stop`; calls under way are awaited by the owner of `calls`.
pub async fn serve(
    socket: &PluginSocket,
    plugin: Arc<Plugin>,
    calls: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        // Cancel-safe: an accepted connection is never lost, accept() is cancel-safe.
        let accepted = tokio::select! {
            accepted = socket.listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = Connection {
                    plugin: Arc::clone(&plugin),
                    calls: calls.clone(),
                    peer: Peer::of(&stream),
                };
                tokio::spawn(connection.run(stream, stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

#[derive(Clone)]
struct Connection {
    plugin: Arc<Plugin>,
    calls: TaskTracker,
    peer: Option<Peer>,
}

impl Connection {
    async fn run(self, stream: UnixStream, stop: CancellationToken) {
        let patience = Patience::default();
        let service = service_fn(|request| patience.serve(self.clone().request(request)));
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            // It would close what is idle, too.
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(patience.watch(stream)), service);
        let mut served = std::pin::pin!(served);
        // Cancel-safe: the connection is polled on in all arms but the one in which nothing of it is under way.
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = patience.is_over(READING) => return,
            () = stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = chain(&error), "connection ended");
        }
    }

    async fn request(
        self,
        request: hyper::Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, HangUp> {
        let (head, body) = request.into_parts();
        let Some(method) = Method::from_path(head.uri.path()) else {
            let text =
                format!("{} is not part of Docker's volume plugin protocol", head.uri.path());
            return Ok(write(&bad(StatusCode::NOT_FOUND, text)));
        };
        if head.method != HttpMethod::POST {
            let text = format!("{} takes POST, not {}", head.uri.path(), head.method);
            let mut response = write(&bad(StatusCode::METHOD_NOT_ALLOWED, text));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Ok(response);
        }
        let request = match read(body).await {
            Ok(request) => request,
            Err(answer) => return Ok(write(&answer)),
        };
        // A mutation goes on when its client hangs up; reading ones may too, they end soon. The channel
        // ends with this function, which the server drops when the client hangs up.
        let (answer, _waiting) = oneshot::channel();
        let caller = Caller::new(self.peer, answer);
        let call = self.calls.spawn(self.clone().call(method, request, caller));
        match call.await {
            Ok(answer) => answer.map(|answer| write(&answer)),
            Err(error) => Ok(write(&failed(format!("the call was ended: {error}")))),
        }
    }

    async fn call(
        self,
        method: Method,
        request: Request,
        caller: Caller,
    ) -> Result<Answer, HangUp> {
        let started = std::time::Instant::now();
        let name = request.name.clone();
        let answer = self.dispatch(method, request, &caller).await;
        let took_ms = started.elapsed().as_millis();
        match &answer {
            Ok(Answer(_, reply)) if reply.err.is_empty() => {
                tracing::debug!(?method, name, took_ms, "done");
            }
            Ok(Answer(_, reply)) => {
                tracing::warn!(?method, name, took_ms, err = reply.err, "refused")
            }
            Err(hang_up) => tracing::warn!(?method, name, took_ms, %hang_up),
        }
        answer
    }

    async fn dispatch(
        &self,
        method: Method,
        request: Request,
        caller: &Caller,
    ) -> Result<Answer, HangUp> {
        let plugin = &self.plugin;
        match method {
            Method::Activate => {
                // A new dockerd: what the last one left may be cleaned up.
                plugin.nudge.notify_one();
                Ok(done(Reply { implements: Some(["VolumeDriver"]), ..Reply::default() }))
            }
            Method::Capabilities => Ok(done(Reply {
                capabilities: Some(Capabilities { scope: "global" }),
                ..Reply::default()
            })),
            Method::List => self.list().await,
            Method::Create
            | Method::Remove
            | Method::Mount
            | Method::Path
            | Method::Unmount
            | Method::Get => {
                match VolumeId::from_docker(&request.name, plugin.default_tenant.as_ref()) {
                    Ok(id) => self.of_volume(method, id, request, caller).await,
                    Err(error) => Ok(failed(error.to_string())),
                }
            }
        }
    }

    async fn of_volume(
        &self,
        method: Method,
        id: VolumeId,
        request: Request,
        caller: &Caller,
    ) -> Result<Answer, HangUp> {
        let plugin = &self.plugin;
        Ok(match method {
            Method::Create => {
                reply(plugin.create(&id, request.opts.unwrap_or_default()).await, |()| {
                    Reply::default()
                })
            }
            Method::Remove => reply(plugin.remove(&id).await, |()| Reply::default()),
            Method::Mount => {
                let Some(use_id) = use_id(&request.id) else { return Ok(no_id()) };
                let mounted = plugin.mount(&id, use_id, caller).await;
                reply(mounted, |target| Reply { mountpoint: Some(target), ..Reply::default() })
            }
            Method::Unmount => {
                let Some(use_id) = use_id(&request.id) else { return Ok(no_id()) };
                reply(plugin.unmount(&id, &use_id).await, |()| Reply::default())
            }
            Method::Path => {
                let mountpoint = Some(plugin.path(&id).unwrap_or_default());
                done(Reply { mountpoint, ..Reply::default() })
            }
            Method::Get => return self.get(&id, request.name).await,
            Method::Activate | Method::Capabilities | Method::List => done(Reply::default()),
        })
    }

    async fn get(&self, id: &VolumeId, name: String) -> Result<Answer, HangUp> {
        let look = match self.plugin.get(id).await {
            Ok(look) => look,
            Err(LookError::Unknown(error)) => return Err(HangUp(error.to_string())),
            Err(error @ (LookError::NotFound { .. } | LookError::Creating { .. })) => {
                return Ok(failed(error.to_string()));
            }
        };
        let created_at = match &look.seen {
            crate::app::volumes::Seen::Fresh(volume) => Some(volume.created_at),
            crate::app::volumes::Seen::Cached(brief, _) => {
                brief.as_ref().map(|brief| brief.created_at)
            }
        };
        let volume = Volume {
            name,
            mountpoint: self.plugin.path(id),
            created_at,
            status: Some(self.plugin.status(&look).await),
        };
        Ok(done(Reply { volume: Some(volume), ..Reply::default() }))
    }

    async fn list(&self) -> Result<Answer, HangUp> {
        match self.plugin.list().await {
            Ok(listed) => Ok(done(Reply {
                volumes: Some(listed.into_iter().map(volume).collect()),
                ..Reply::default()
            })),
            Err(error) => Err(HangUp(chain(&error))),
        }
    }
}

fn volume(listed: Listed) -> Volume {
    let Listed { name, mountpoint, created_at } = listed;
    Volume { name, mountpoint, created_at: Some(created_at), status: None }
}

fn use_id(text: &str) -> Option<MountId> {
    text.parse().ok()
}

fn no_id() -> Answer {
    bad(StatusCode::BAD_REQUEST, "the request has no usable ID for the mount".to_owned())
}

fn reply<T, E: std::error::Error + 'static>(
    result: Result<T, E>,
    success: fn(T) -> Reply,
) -> Answer {
    match result {
        Ok(value) => done(success(value)),
        Err(error) => failed(chain(&error)),
    }
}

fn done(reply: Reply) -> Answer {
    Answer(StatusCode::OK, reply)
}

/// Docker shows the `Err` of an HTTP 500 to the user as it is.
fn failed(err: String) -> Answer {
    Answer(StatusCode::INTERNAL_SERVER_ERROR, Reply { err, ..Reply::default() })
}

fn bad(status: StatusCode, err: String) -> Answer {
    Answer(status, Reply { err, ..Reply::default() })
}

fn write(answer: &Answer) -> Response<Full<Bytes>> {
    let Answer(status, reply) = answer;
    let body = serde_json::to_vec(reply)
        .unwrap_or_else(|_| br#"{"Err":"the answer cannot be written"}"#.to_vec());
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = *status;
    response.headers_mut().insert(CONTENT_TYPE, PLUGIN_JSON);
    response
}

async fn read(body: Incoming) -> Result<Request, Answer> {
    let collected = within(READING, Limited::new(body, LARGEST_BODY).collect()).await;
    let body = match collected {
        Some(Ok(collected)) => collected.to_bytes(),
        Some(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(bad(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the request is larger than 1 MiB".to_owned(),
            ));
        }
        Some(Err(error)) => {
            return Err(bad(
                StatusCode::BAD_REQUEST,
                format!("the request could not be read: {error}"),
            ));
        }
        None => {
            return Err(bad(
                StatusCode::REQUEST_TIMEOUT,
                "the request was not sent within 10 s".to_owned(),
            ));
        }
    };
    // Activate and Capabilities have no body.
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Request::default());
    }
    serde_json::from_slice(&body).map_err(|error| {
        bad(
            StatusCode::BAD_REQUEST,
            format!("the request is not the JSON that Docker sends: {error}"),
        )
    })
}

async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}
