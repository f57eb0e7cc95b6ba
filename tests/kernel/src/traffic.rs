//! What must go on, and what must never happen, while agents follow one another: a pod's connects are captured, and somebody
//! outside the mesh who knocks at the pod is not let in.

use crate::{Pod, V4, versions::Held};
use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// The node's own address in the pod's network: where a connect arrives that is not captured.
const OUTSIDE: &str = "10.99.0.1:4444";
/// A SYN that is lost is sent again after a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the pod's application listens.
fn application() -> SocketAddr {
    SocketAddr::new(V4.parse().expect("an address"), 80)
}

fn outside() -> SocketAddr {
    OUTSIDE.parse().expect("an address")
}

/// The two listeners that nobody may reach.
pub struct Forbidden {
    outside: TcpListener,
    application: TcpListener,
}

impl Forbidden {
    /// Opens them: one on the node, one in the pod.
    pub fn open(pod: &Pod) -> Self {
        pod.reach_from_node();
        let outside = TcpListener::bind(outside()).expect("bind on the node");
        let application = pod.inside(|| TcpListener::bind(application()).expect("bind in the pod"));
        for listener in [&outside, &application] {
            listener.set_nonblocking(true).expect("option");
        }
        Self { outside, application }
    }

    /// Tries both once, whatever becomes of it, and fails if either was reached.
    pub fn is_out_of_reach(&self, pod: &Pod, when: &str) {
        const SOON: Duration = Duration::from_millis(150);
        drop(pod.inside(|| TcpStream::connect_timeout(&outside(), SOON)));
        drop(TcpStream::connect_timeout(&application(), SOON));
        assert_eq!(
            self.reached(),
            [0, 0],
            "a connect escaped, or plaintext was let in: {when}"
        );
    }

    /// How many connections arrived since the last question: outside, and at the application.
    fn reached(&self) -> [usize; 2] {
        [&self.outside, &self.application].map(|listener| {
            let accepted = std::iter::from_fn(|| listener.accept().ok());
            accepted.count()
        })
    }
}

/// Connects of the pod and knocks at it, one after the other, until asked for the result.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    listeners: Arc<Mutex<Vec<TcpListener>>>,
    connects: JoinHandle<Vec<io::Result<()>>>,
    knocks: JoinHandle<usize>,
    accepts: JoinHandle<()>,
    forbidden: Forbidden,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Connects of the pod that succeeded: an agent took them.
    pub captured: usize,
    /// Connects that failed, with the reason.
    pub failed: Vec<String>,
    /// Connects that left the pod as without a mesh, and plaintext that came in.
    pub forbidden: [usize; 2],
    /// How often somebody knocked.
    pub knocks: usize,
}

impl Traffic {
    /// Begins; somebody must hold the pod, see [`Self::accept_at`].
    pub fn begin(pod: &Pod) -> Self {
        let forbidden = Forbidden::open(pod);
        let stop = Arc::<AtomicBool>::default();
        let listeners = Arc::<Mutex<Vec<TcpListener>>>::default();
        let (until, netns) = (stop.clone(), pod.netns());
        let connects = thread::spawn(move || {
            crate::inside(&netns, move || {
                let mut results = Vec::new();
                while !until.load(Ordering::Relaxed) {
                    results.push(TcpStream::connect_timeout(&outside(), PATIENCE).map(drop));
                    thread::sleep(Duration::from_millis(1));
                }
                results
            })
        });
        let until = stop.clone();
        let knocks = thread::spawn(move || {
            let mut knocks = 0;
            while !until.load(Ordering::Relaxed) {
                drop(TcpStream::connect_timeout(
                    &application(),
                    Duration::from_millis(50),
                ));
                knocks += 1;
                thread::sleep(Duration::from_millis(1));
            }
            knocks
        });
        let (until, queues) = (stop.clone(), listeners.clone());
        let accepts = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                for listener in queues.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    while listener.accept().is_ok() {}
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self {
            stop,
            listeners,
            connects,
            knocks,
            accepts,
            forbidden,
        }
    }

    /// Has connections accepted that arrive at these listeners too.
    pub fn accept_at(&self, held: &[Held]) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let outbound = held.iter().flat_map(|held| &held.outbound);
        listeners.extend(outbound.map(|listener| listener.try_clone().expect("listener")));
    }

    /// Ends it.
    pub fn end(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let results = self.connects.join().expect("thread");
        let knocks = self.knocks.join().expect("thread");
        self.accepts.join().expect("thread");
        let captured = results.iter().filter(|result| result.is_ok()).count();
        let failed = results.into_iter().filter_map(Result::err);
        Tally {
            captured,
            failed: failed.map(|error| error.to_string()).collect(),
            forbidden: self.forbidden.reached(),
            knocks,
        }
    }
}
