//! A client of the web application.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ureq::Agent;

/// A response.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The cookie that was set, as `name=value`.
    pub cookie: Option<String>,
    /// Header `x-backend-ip`.
    pub backend: Option<String>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// One field of the JSON body, as text.
    ///
    /// # Errors
    /// If the body has no such field.
    pub fn field(&self, name: &str) -> Result<String, String> {
        let json: serde_json::Value = serde_json::from_str(&self.body).map_err(|error| format!("{error}: {:?}", self.body))?;
        match json.get(name) {
            Some(serde_json::Value::String(text)) => Ok(text.clone()),
            Some(value) => Ok(value.to_string()),
            None => Err(format!("no {name} in {}", self.body)),
        }
    }

    /// The node that answered.
    ///
    /// # Errors
    /// If the body does not say it.
    pub fn host(&self) -> Result<String, String> {
        self.field("host")
    }
}

/// An HTTP client that keeps its connections.
#[must_use]
pub fn client() -> Agent {
    Agent::new_with_config(
        Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(30))).build(),
    )
}

/// One request on a connection of its own.
///
/// # Errors
/// What went wrong, as text.
pub fn get(url: &str, cookie: Option<&str>) -> Result<Answer, String> {
    get_by(&client(), url, cookie)
}

/// One request with this client.
///
/// # Errors
/// What went wrong, as text.
pub fn get_by(agent: &Agent, url: &str, cookie: Option<&str>) -> Result<Answer, String> {
    let mut request = agent.get(url);
    if let Some(cookie) = cookie {
        request = request.header("Cookie", cookie);
    }
    let mut response = request.call().map_err(|error| error.to_string())?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let cookie = header("set-cookie").and_then(|cookie| Some(cookie.split(';').next()?.to_owned()));
    let (status, backend) = (response.status().as_u16(), header("x-backend-ip"));
    let body = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
    Ok(Answer { status, cookie, backend, body })
}

/// Pause of each client between a response and its next request. Without it, the load alone would use all of the machine, and
/// the tests beside it would wait.
const PAUSE: Duration = Duration::from_millis(10);

/// Clients that send requests in the background, at most 100 a second each.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// Starts clients that request `url`. Every second one opens a connection for each request, the others use keep-alive.
    #[must_use]
    pub fn start(url: &str, clients: usize) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let one = |number: usize| {
            let (url, stop, sent) = (url.to_owned(), stop.clone(), sent.clone());
            thread::spawn(move || ask_on(&url, number % 2 == 0, &stop, &sent))
        };
        let clients = (0..clients).map(one).collect();
        Self { stop, sent, clients }
    }

    /// Number of requests answered or lost so far.
    #[must_use]
    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops the clients and returns the number of requests sent, and the errors of the lost ones.
    #[must_use]
    pub fn finish(mut self) -> (u32, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients);
        let lost = clients.into_iter().flat_map(|client| client.join().expect("the client ends")).collect();
        (self.sent.load(Ordering::Relaxed), lost)
    }
}

/// If a test fails, the clients stop before its containers are removed. Otherwise their failed requests would fill the logs that
/// are printed then.
impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask_on(url: &str, keep: bool, stop: &AtomicBool, sent: &AtomicU32) -> Vec<String> {
    let mut agent = client();
    let mut lost = Vec::new();
    // Bounded, whatever the test does.
    for _ in 0..100_000 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if !keep {
            agent = client();
        }
        match get_by(&agent, url, None) {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => lost.push(format!("{} {}", answer.status, answer.body)),
            Err(error) => lost.push(error),
        }
        sent.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
    lost
}
