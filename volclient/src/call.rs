//! One call: which master is asked when, for how long, and how its answer is read.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{
    ACCEPT, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, USER_AGENT,
};
use hyper::{Method, Request, StatusCode, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;
use volapi::Problem;
use volapi::problem::{PROBLEM_JSON, REQUEST_ID};
use volcore::Kind;

use crate::client::{Client, Limit};
use crate::error::{Attempt, Attempts, ClientError, Root, Trouble};
use crate::master::MasterUrl;

/// The largest answer that is read: 20,000 volumes in full have about 20 MB.
const LARGEST_ANSWER: usize = 256 << 20;
/// The first pause between two rounds over all masters; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// The longest pause between two rounds.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A call that may take longer has no limit that anybody would notice; more would overflow the clock.
const LONGEST_LIMIT: Duration = Duration::from_secs(365 * 86_400);

/// What a change came to, by the status of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// There is something that was not there before (status 201).
    Created,
    /// It was there (status 200); after a retry, perhaps by an earlier attempt.
    Unchanged,
}

/// A request, not yet tied to a master.
pub(crate) struct Call {
    operation: &'static str,
    subject: String,
    method: Method,
    path: String,
    body: Bytes,
    etag: Option<HeaderValue>,
    /// Not sent again once it may have arrived.
    once: bool,
}

/// A master's answer: a success, or 304.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    url: Uri,
    operation: &'static str,
    subject: String,
}

/// What one attempt came to.
enum Reply {
    Success(Answer),
    Final(ClientError),
    /// Not a volmaster's words; another master may do better.
    Garbled(ClientError),
    Trouble(Trouble),
}

impl Call {
    pub(crate) fn new(
        operation: &'static str,
        subject: impl Into<String>,
        method: Method,
        path: impl Into<String>,
    ) -> Self {
        let (subject, path) = (subject.into(), path.into());
        Call { operation, subject, method, path, body: Bytes::new(), etag: None, once: false }
    }

    pub(crate) fn get(
        operation: &'static str,
        subject: impl Into<String>,
        path: impl Into<String>,
    ) -> Self {
        Call::new(operation, subject, Method::GET, path)
    }

    /// Bodies of the API are maps with text keys, which always have a JSON form.
    pub(crate) fn with_body(mut self, body: &impl Serialize) -> Self {
        self.body = serde_json::to_vec(body).unwrap_or_default().into();
        self
    }

    /// The same call, which is not sent again once it may have arrived.
    pub(crate) fn only_once(self) -> Self {
        Call { once: true, ..self }
    }

    /// An etag that is no header value is left out, and then matches nothing.
    pub(crate) fn with_etag(mut self, etag: Option<&str>) -> Self {
        self.etag = etag.and_then(|etag| HeaderValue::from_str(etag).ok());
        self
    }

    fn request(&self, uri: &Uri, id: &str, user_agent: &str) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Ok(agent) = HeaderValue::from_str(user_agent) {
            headers.insert(USER_AGENT, agent);
        }
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(REQUEST_ID, id);
        }
        if !self.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(etag) = &self.etag {
            headers.insert(IF_NONE_MATCH, etag.clone());
        }
        request
    }

    fn garbled(
        &self,
        url: &Uri,
        status: StatusCode,
        body: &[u8],
        source: Option<serde_json::Error>,
    ) -> ClientError {
        ClientError::Garbled {
            operation: self.operation,
            subject: self.subject.clone(),
            url: url.to_string(),
            status: status.as_u16(),
            body: beginning(body),
            source,
        }
    }

    /// Sorts an answer.
    fn reply(&self, answer: Answer) -> Reply {
        let status = answer.status;
        let not_modified = status == StatusCode::NOT_MODIFIED && self.etag.is_some();
        if not_modified || status == StatusCode::NO_CONTENT {
            return Reply::Success(answer);
        }
        if status.is_success() {
            return match answer.content_type() {
                "application/json" => Reply::Success(answer),
                _ => Reply::Garbled(self.garbled(&answer.url, status, &answer.body, None)),
            };
        }
        match read_problem(&answer) {
            Ok(problem) if problem.kind == Kind::Unavailable => {
                Reply::Trouble(Trouble::Unavailable(Box::new(problem)))
            }
            Ok(problem) => Reply::Final(self.refused(Box::new(problem))),
            Err(source) => Reply::Garbled(self.garbled(&answer.url, status, &answer.body, source)),
        }
    }

    fn refused(&self, problem: Box<Problem>) -> ClientError {
        ClientError::Problem { problem, operation: self.operation, subject: self.subject.clone() }
    }
}

/// Reads an error body; it has to say in every way that it is one.
fn read_problem(answer: &Answer) -> Result<Problem, Option<serde_json::Error>> {
    if answer.content_type() != PROBLEM_JSON {
        return Err(None);
    }
    let problem: Problem = serde_json::from_slice(&answer.body).map_err(Some)?;
    let ours = problem.kind_uri.starts_with("urn:volplugin:problem:");
    // A kind may come with a more exact status (405 is `invalid`), but "not found" is always 404.
    let status = answer.status.as_u16();
    let fits = problem.status == status && (problem.kind != Kind::NotFound || status == 404);
    if ours && fits { Ok(problem) } else { Err(None) }
}

/// How a body begins, in characters that can be shown.
fn beginning(body: &[u8]) -> String {
    let head = &body[..body.len().min(800)];
    let text = String::from_utf8_lossy(head);
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

impl Answer {
    /// The body.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|source| ClientError::Garbled {
            operation: self.operation,
            subject: self.subject.clone(),
            url: self.url.to_string(),
            status: self.status.as_u16(),
            body: beginning(&self.body),
            source: Some(source),
        })
    }

    /// The body, and whether something was created.
    pub(crate) fn created<T: DeserializeOwned>(&self) -> Result<(Creation, T), ClientError> {
        let creation = match self.status {
            StatusCode::CREATED => Creation::Created,
            _ => Creation::Unchanged,
        };
        Ok((creation, self.json()?))
    }

    /// What the body is, without parameters such as a charset.
    fn content_type(&self) -> &str {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.split(';').next()).unwrap_or_default().trim()
    }

    /// The version of the body, as the server names it.
    pub(crate) fn etag(&self) -> Option<String> {
        self.headers.get(ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }
}

impl Client {
    /// Sends a call and reads the body of the answer.
    pub(crate) async fn read<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        self.send(call).await?.json()
    }

    /// Sends a call.
    pub(crate) async fn send(&self, call: Call) -> Result<Answer, ClientError> {
        self.ask(&call).await.1
    }

    /// Sends a removal. "Not found" is success, without an answer, where an earlier attempt of this
    /// call may have been carried out.
    pub(crate) async fn send_removal(&self, call: Call) -> Result<Option<Answer>, ClientError> {
        match self.ask(&call).await {
            (_, Ok(answer)) => Ok(Some(answer)),
            (true, Err(error)) if error.is_not_found() => Ok(None),
            (_, Err(error)) => Err(error),
        }
    }

    /// Asks the masters in rounds until one answers. The flag says whether a request before the last
    /// may have arrived somewhere.
    async fn ask(&self, call: &Call) -> (bool, Result<Answer, ClientError>) {
        let begun = Instant::now();
        let (deadline, limit) = match self.limit {
            Limit::Within(limit) => (begun + limit.min(LONGEST_LIMIT), limit),
            Limit::Until(deadline) => (deadline, deadline.saturating_duration_since(begun)),
        };
        // One id for all attempts, so that the logs of all masters can be put together.
        let id = Uuid::new_v4().to_string();
        let mut attempts = Attempts::default();
        let mut garbled = None;
        let mut pause = FIRST_PAUSE;
        let mut rounds_with_a_loss = 0;
        loop {
            let mut lost = false;
            let order = self.inner.order();
            let count = order.len();
            for (step, (index, master)) in order.enumerate() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                // Those still to come in this round get as much as this one.
                let share = left / u32::try_from(count - step).unwrap_or(u32::MAX);
                match self.attempt(call, master, &id, share).await {
                    Reply::Success(answer) => {
                        self.inner.prefer(index);
                        return (attempts.sent(), Ok(answer));
                    }
                    Reply::Final(error) => {
                        self.inner.prefer(index);
                        return (attempts.sent(), Err(error));
                    }
                    // A proxy may have passed it on.
                    Reply::Garbled(error) if call.once => return (true, Err(error)),
                    Reply::Garbled(error) => garbled = Some(error),
                    Reply::Trouble(trouble) => {
                        tracing::debug!(
                            operation = call.operation, subject = call.subject, %master, request_id = id,
                            trouble = volapi::problem::chain(&trouble), "a master did not answer"
                        );
                        lost |= matches!(trouble, Trouble::Lost(_));
                        attempts.0.push(Attempt { master: master.clone(), trouble });
                        if call.once && attempts.sent() {
                            let late = Instant::now() >= deadline;
                            return (true, Err(give_up(call, limit, late, attempts, garbled)));
                        }
                    }
                }
            }
            // A connection that broke is often a stale one, or that of a master that was just
            // restarted: without any patience, one more round settles it.
            rounds_with_a_loss += u32::from(lost);
            let patient =
                begun.elapsed() + pause <= self.patience || (lost && rounds_with_a_loss == 1);
            let now = Instant::now();
            if now >= deadline || !patient || garbled.is_some() {
                let error = give_up(call, limit, now >= deadline, attempts, garbled);
                return (true, Err(error));
            }
            sleep(pause.min(deadline - now)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One request to one master.
    async fn attempt(&self, call: &Call, master: &MasterUrl, id: &str, share: Duration) -> Reply {
        let Some(uri) = master.uri(&call.path) else {
            return Reply::Final(call.garbled(&Uri::default(), StatusCode::BAD_REQUEST, b"", None));
        };
        let request = call.request(&uri, id, &self.inner.user_agent);
        let exchange = async {
            let response = self.inner.http.request(request).await.map_err(|error| {
                if error.is_connect() {
                    Trouble::Connect(Root(error.into()))
                } else {
                    Trouble::Lost(Root(error.into()))
                }
            })?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER)
                .collect()
                .await
                .map_err(|error| Trouble::Lost(Root(error)))?;
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: body.to_bytes(),
                url: uri,
                operation: call.operation,
                subject: call.subject.clone(),
            })
        };
        match timeout(share, exchange).await {
            Ok(Ok(answer)) => call.reply(answer),
            Ok(Err(trouble)) => Reply::Trouble(trouble),
            Err(_) => Reply::Trouble(Trouble::TimedOut(Duration::from_millis(millis(share)))),
        }
    }
}

/// Whole milliseconds, for messages.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The error of a call that nobody answered for good. The most telling one wins: a volmaster's own
/// words, then a stranger's, then silence.
fn give_up(
    call: &Call,
    limit: Duration,
    late: bool,
    mut attempts: Attempts,
    garbled: Option<ClientError>,
) -> ClientError {
    let said = attempts.0.iter().rposition(|a| matches!(a.trouble, Trouble::Unavailable(_)));
    if let Some(index) = said
        && let Trouble::Unavailable(problem) = attempts.0.swap_remove(index).trouble
    {
        return call.refused(problem);
    }
    if let Some(garbled) = garbled {
        return garbled;
    }
    let (operation, subject) = (call.operation, call.subject.clone());
    if late {
        ClientError::Deadline { operation, subject, limit, attempts }
    } else {
        ClientError::Unreachable { operation, subject, attempts }
    }
}
